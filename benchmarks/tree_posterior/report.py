"""The table and the curves of a tree posterior suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from benchmarks.report.about import left_out
from benchmarks.report.learning_curves import read_curves
from benchmarks.report.results import Combination, best_of, read
from benchmarks.report.svg import DASHES, MARKERS, PAGE_WIDTH, SERIES
from benchmarks.report.ticks import plain_log_ticks
from benchmarks.run_folder import RunFolder
from benchmarks.tree_posterior.contest import CONTEST
from benchmarks.tree_posterior.sweep import BETWEEN, TreePosteriorCell
from benchmarks.tree_posterior.training import SLEEP

if TYPE_CHECKING:
    from benchmarks.tree_posterior.suite import TreePosteriorSuite

KL, REVERSED = "elbo_gap", "eubo_gap"

LEGEND = (
    "Nats a held-out sentence at fixed parameters, as many sentences of each length: KL(q‖p) of "
    "the policy q from the exact posterior p, before training, along the way and in the end, "
    "KL(p‖q) and the effective sample size of 16 importance weights, as a share. ± is the standard "
    "error over seeds; that over sentences stands beside it. The lowest KL(q‖p) of each grammar is "
    "in bold type. CPU s and updates: of one training, without measurements. Policies that merge "
    "trees have many build orders: theirs are divergences of trajectories, no less than those of "
    "trees."
)


def write(
    suite: TreePosteriorSuite, folder: RunFolder, failures: Mapping[TreePosteriorCell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md` and `curves.png`.

    Args:
        suite: The suite.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The table, and the files to look at.
    """
    found = read(CONTEST, folder, [cell for cell in suite.cells if cell not in failures])
    table = make_table(suite, folder, found, failures)
    folder.write_text("table.md", table + "\n")
    files = [folder.path / "table.md"]
    if found:
        files.append(folder.write_figure("curves.png", draw_curves(suite, folder, found)))
    return table, files


def make_table(
    suite: TreePosteriorSuite,
    folder: RunFolder,
    found: list[Combination],
    failures: Mapping[TreePosteriorCell, str],
) -> str:
    """Compares the pairs in a Markdown table, with a legend and what is missing below."""
    rounds = suite.options.rounds
    along = sorted({max(1, rounds // 6), rounds // 2} - {0, rounds})
    by_time = [f"KL(q‖p) at {_when(suite, done)}" for done in along]
    headers = [
        "grammar", "policy", "objective", "KL(q‖p) untrained", *by_time,
        f"at {_when(suite, rounds)}", "over sentences", "KL(p‖q)", "ESS", "updates", "CPU s",
    ]  # fmt: skip
    rows = []
    for one in found:
        curve = read_curves(folder, one, (KL, "policy_updates"))
        mark = "**" if one is best_of(found, one.task) else ""
        first = suite.evaluate(suite.make_learner(_cell(one, one.seeds[0])))
        rows.append(
            [
                one.task,
                *one.choice,
                f"{first[KL]:.2f}",
                *(f"{curve[KL][:, done - 1].mean():.2f}" for done in along),
                f"{mark}{_with_error(one, KL)}{mark}",
                f"± {_sentence_error(folder, one):.3f}",
                _with_error(one, REVERSED),
                f"{np.mean(one.metrics['ess']):.2f}",
                f"{curve['policy_updates'][:, -1].mean():.0f}",
                f"{np.mean(one.cpu_seconds):.0f}",
            ]
        )
    lines = [tabulate(rows, headers, tablefmt="github", disable_numparse=True), "", LEGEND]
    if suite.left_out:
        lines += ["", "Left out, because they do not fit together:", ""]
        lines += [f"- {line}" for line in left_out(suite.left_out)]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {cell.title}: {reason}" for cell, reason in failures.items()]
    return "\n".join(lines)


def draw_curves(suite: TreePosteriorSuite, folder: RunFolder, found: list[Combination]) -> Figure:
    """Draws both divergences against CPU time, a column for each grammar.

    Lines are means over seeds and bands reach from the least to the greatest; see `pair_styles`.
    """
    tasks = list(dict.fromkeys(one.task for one in found))
    figure = Figure(figsize=(PAGE_WIDTH, 7.0), dpi=110, layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharex=True)
    styles = pair_styles(suite.options.pairs)
    for one in found:
        curve = read_curves(folder, one, (KL, REVERSED, "cpu_seconds"))
        pair, at = BETWEEN.join(one.choice), curve["cpu_seconds"].mean(0)
        style = styles[pair]
        for axes, metric in zip(panels[:, tasks.index(one.task)], (KL, REVERSED), strict=True):
            values = curve[metric]
            axes.plot(at, values.mean(0), label=pair, markersize=5, linewidth=1.4, **style)
            axes.fill_between(
                at, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0
            )
    for row, label in zip(panels, ("KL(q‖p)", "KL(p‖q)"), strict=True):
        row[0].set_ylabel(f"{label}, nats a sentence")
        for axes in row:
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis, *axes.get_ylim())
            axes.grid(axis="y", color="0.92")
            axes.spines[["top", "right"]].set_visible(False)
    for axes, task in zip(panels[0], tasks, strict=True):
        axes.set_title(task, loc="left", fontweight="bold")
    for axes in panels[1]:
        axes.set_xlabel("CPU seconds of training")
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        lines, names = axes.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    return figure


def pair_styles(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Gives a policy its dashes and an objective its colour; markers are hollow beside dreams."""
    split = {pair: pair.removesuffix(f"+{SLEEP}").split(BETWEEN) for pair in pairs}
    policies, objectives = (
        list(dict.fromkeys(names)) for names in zip(*split.values(), strict=True)
    )
    styles = {}
    for pair, (policy, objective) in split.items():
        i = objectives.index(objective) % len(SERIES)
        styles[pair] = {
            "color": SERIES[i],
            "marker": MARKERS[i],
            "markerfacecolor": "white" if pair.endswith(f"+{SLEEP}") else SERIES[i],
            "linestyle": DASHES[policies.index(policy) % len(DASHES)],
        }
    return styles


def _when(suite: TreePosteriorSuite, done: int) -> str:
    """Says where a training is after some rounds."""
    options = suite.options
    if len(options.updates) == 1:
        return f"{options.updates[0] * done // options.rounds} updates"
    return f"{options.cpu_seconds * done / options.rounds:.3g} s"


def _with_error(one: Combination, metric: str) -> str:
    """Shows a mean over seeds with its standard error."""
    error = one.standard_error(metric)
    mean = f"{np.mean(one.metrics[metric]):.3f}"
    return mean if error is None else f"{mean} ± {error:.3f}"


def _sentence_error(folder: RunFolder, one: Combination) -> float:
    """The standard error of KL(q || p) over sentences, averaged over seeds, nats."""
    errors = []
    for seed in one.seeds:
        run = RunFolder(folder.path / _cell(one, seed).folder)
        try:
            errors.append(run.read_json("summary.json")["metrics"][KL]["standard_error"])
        except (KeyError, TypeError) as error:
            raise run.damaged("summary.json") from error
    return float(np.mean(errors))


def _cell(one: Combination, seed: int) -> TreePosteriorCell:
    """A seed's cell."""
    policy, objective = one.choice
    return TreePosteriorCell(one.task, policy, objective, seed)
