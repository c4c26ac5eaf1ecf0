"""The table and the learning curves of an EM suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from benchmarks.em.lines import lines_of
from benchmarks.em.runs import MethodRuns, read, standard_error
from benchmarks.em.sweep import EMCell
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.em.suite import EMSuite

HEADERS = (
    "task", "method", "test log-likelihood", "gap to truth", "train log-likelihood",
    "total variation", "seeds", "p(x, z) evaluations", "CPU s",
)  # fmt: skip

SHOWN_BELOW = 3.0
"""Curves are shown down to so many times the worst final gap below the truth."""


def write(
    suite: EMSuite, folder: RunFolder, failures: Mapping[EMCell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md` and a `learning-curves-TASK.png` for each task.

    Args:
        suite: The suite.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The table, and the files to look at.
    """
    found = read(folder, [cell for cell in suite.cells if cell not in failures])
    table = make_table(suite, found, failures)
    folder.write_text("table.md", table + "\n")
    pictures = []
    for task in suite.options.tasks:
        runs = [one for one in found if one.task == task]
        if runs:
            picture = folder.write_figure(f"learning-curves-{task}.png", draw_curves(runs))
            pictures.append(picture)
    return table, [folder.path / "table.md", *pictures]


def best_of(runs: Sequence[MethodRuns]) -> MethodRuns:
    """Returns the runs with the smallest mean gap to the true parameters."""

    def gap(one: MethodRuns) -> float:
        metric = one.metric("gap")
        assert metric is not None, "every method has it"
        return metric[0]

    return min(runs, key=gap)


def make_table(suite: EMSuite, found: Sequence[MethodRuns], failures: Mapping[EMCell, str]) -> str:
    """Compares the methods in a Markdown table, with a legend and what is missing below."""
    rows = []
    for task in suite.options.tasks:
        of_task = [one for one in found if one.task == task]
        if not of_task:
            continue
        best = best_of(of_task)
        for one in of_task:
            mark = "**" if one is best else ""
            rows.append(
                [
                    task,
                    one.method,
                    f"{mark}{_shown(one.metric('log_likelihood'))}{mark}",
                    f"{mark}{_shown(one.metric('gap'))}{mark}",
                    _shown(one.metric("train_log_likelihood")),
                    _shown(one.metric("total_variation")),
                    len(one.seeds),
                    f"{one.cost('likelihood_evaluations'):.3g}",
                    f"{one.cost('cpu_seconds'):.1f}",
                ]
            )
        truth = f"{best.true_log_likelihood:.4f}"
        rows.append([task, "true parameters", truth, *["-"] * (len(HEADERS) - 3)])
    options = suite.options
    lines = [
        tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True),
        "",
        f"Exact log-likelihoods in nats a point after {options.iterations} EM iterations on "
        f"{options.points} observations: mean ± standard error over seeds, each with its own data "
        "and start, the same for all methods. Gap: how much higher the same test observations' "
        "log-likelihood is at the true parameters; the smallest of each task is in bold type. "
        "Total variation: between the E-step's distribution and the exact posterior at the "
        "final parameters. p(x, z) evaluations and CPU s: of one run, without measurements.",
    ]
    if suite.left_out:
        lines += ["", "Left out, because they do not fit together:", ""]
        lines += [f"- {', '.join(names)}: {why}" for names, why in suite.left_out.items()]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {cell.title}: {reason}" for cell, reason in failures.items()]
    return "\n".join(lines)


def _shown(metric: tuple[float, float | None] | None) -> str:
    """Shows a mean with its standard error, where there is one."""
    if metric is None:
        return "-"
    mean, error = metric
    return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


def draw_curves(runs: Sequence[MethodRuns]) -> Figure:
    """Draws one task's test log-likelihood against EM iterations and against CPU seconds.

    Lines are means over seeds; bands are the standard error of the gap to the true parameters,
    since the log-likelihood itself varies with the test data, for all methods alike.
    """
    figure = Figure(figsize=(11, 4.8), dpi=110, layout="constrained")
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    lines = lines_of([one.method for one in runs])
    for one in runs:
        line = lines[one.method]
        curve = one.curves["log_likelihood"].mean(0)
        style = {
            "color": line.colour, "linestyle": line.dashes, "marker": line.marker,
            "markevery": max(1, len(curve) // 6), "markersize": 5, "linewidth": 1.4,
        }  # fmt: skip
        by_iteration.plot(one.curves["update"][0], curve, label=one.method, **style)
        by_time.plot(one.curves["cpu_seconds"].mean(0), curve, **style)
        if len(one.seeds) > 1:
            error = standard_error(one.curves["gap"])
            band = {"color": line.colour, "alpha": 0.15, "linewidth": 0}
            by_iteration.fill_between(one.curves["update"][0], curve - error, curve + error, **band)
    truth = best_of(runs).true_log_likelihood
    for axes in (by_iteration, by_time):
        axes.axhline(truth, color="0.3", linewidth=0.8, label="true parameters")
        axes.spines[["top", "right"]].set_visible(False)
    worst = max(truth - one.curves["log_likelihood"][:, -1].mean() for one in runs)
    room = SHOWN_BELOW * max(worst, 0.01)
    lowest = min(np.min(one.curves["log_likelihood"].mean(0)) for one in runs)
    by_iteration.set_ylim(max(lowest, truth - room) - 0.02 * room, truth + 0.05 * room)
    by_iteration.set(xlabel="EM iteration", ylabel="test log-likelihood (nats a point)")
    by_time.set(xlabel="CPU seconds", xscale="log")
    figure.suptitle(runs[0].task)
    figure.legend(*by_iteration.get_legend_handles_labels(), loc="outside right center",
                  frameon=False)  # fmt: skip
    return figure
