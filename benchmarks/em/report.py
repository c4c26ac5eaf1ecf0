"""The table and the learning curves of an EM suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from benchmarks.em.contest import CONTEST
from benchmarks.em.equal_time import EXPLANATION, EqualTime, Gap
from benchmarks.em.lines import lines_of
from benchmarks.em.sweep import EMCell
from benchmarks.report.learning_curves import read_curves
from benchmarks.report.numbers import counted
from benchmarks.report.results import Combination, best_of, read
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.em.suite import EMSuite

HEADERS = (
    "task", "method", "test log-likelihood", "gap to truth", "train log-likelihood",
    "total variation", "seeds", "p(x, z) evaluations", "CPU s",
)  # fmt: skip

COLUMNS = ("update", "cpu_seconds", "log_likelihood", "gap")
"""What curves are drawn from."""

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
    found = read(CONTEST, folder, [cell for cell in suite.cells if cell not in failures])
    table = make_table(suite, found, failures)
    equal_time = make_equal_time_table(suite, folder, found)
    if equal_time:
        table = f"{table}\n\n{equal_time}"
    folder.write_text("table.md", table + "\n")
    pictures = []
    for task in suite.options.tasks:
        runs = [one for one in found if one.task == task]
        if runs:
            figure = draw_curves(folder, runs)
            pictures.append(folder.write_figure(f"learning-curves-{task}.png", figure))
    return table, [folder.path / "table.md", *pictures]


def make_table(suite: EMSuite, found: Sequence[Combination], failures: Mapping[EMCell, str]) -> str:
    """Compares the methods in a Markdown table, with a legend and what is missing below."""
    rows = []
    for task in suite.options.tasks:
        of_task = [one for one in found if one.task == task]
        best = best_of(found, task)
        if best is None:
            continue
        for one in of_task:
            mark = "**" if one is best else ""
            rows.append(
                [
                    task,
                    one.name,
                    f"{mark}{_shown(one, 'log_likelihood')}{mark}",
                    f"{mark}{_shown(one, 'gap')}{mark}",
                    _shown(one, "train_log_likelihood"),
                    _shown(one, "total_variation"),
                    len(one.seeds),
                    f"{np.mean(one.likelihood_evaluations):.3g}",
                    f"{np.mean(one.cpu_seconds):.1f}",
                ]
            )
        truth = f"{_true_log_likelihood(best):.4f}"
        rows.append([task, "true parameters", truth, *["-"] * (len(HEADERS) - 3)])
    iterations = counted(suite.options.iterations, "EM iteration")
    points = counted(suite.options.points, "observation")
    lines = [
        tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True),
        "",
        f"Exact log-likelihoods in nats a point after {iterations} on {points}: mean ± standard "
        "error over seeds, each with its own data and start, the same for all methods. Gap: how "
        "much higher the same test observations' "
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


def make_equal_time_table(suite: EMSuite, folder: RunFolder, found: Sequence[Combination]) -> str:
    """Compares the methods of each task at equal CPU time; empty where none has several."""
    tables = []
    for task in suite.options.tasks:
        runs = [one for one in found if one.task == task]
        if len(runs) > 1:
            equal = EqualTime.of(folder, runs)
            rows = [[task, name, *map(_marked, equal.of_method(name))] for name in equal.gaps]
            headers = ["task", "method", *equal.headers]
            tables.append(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return "\n\n".join([EXPLANATION, *tables]) if tables else ""


def _marked(gap: Gap) -> str:
    """Puts the smallest gap in bold type."""
    return f"**{gap}**" if gap.best else str(gap)


def _shown(one: Combination, metric: str) -> str:
    """Shows a metric's mean with its standard error, where there is one."""
    if metric not in one.metrics:
        return "-"
    mean, error = np.mean(one.metrics[metric]), one.standard_error(metric)
    return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


def _true_log_likelihood(one: Combination) -> float:
    """The mean over seeds of the test log-likelihood at the true parameters, nats a point."""
    return float(np.mean(one.metrics["log_likelihood"]) + np.mean(one.metrics["gap"]))


def draw_curves(folder: RunFolder, runs: Sequence[Combination]) -> Figure:
    """Draws one task's test log-likelihood against EM iterations and against CPU seconds.

    Lines are means over seeds; bands are the standard error of the gap to the true parameters,
    since the log-likelihood itself varies with the test data, for all methods alike.

    Args:
        folder: The run's folder.
        runs: The methods' runs on the task.
    """
    figure = Figure(figsize=(11, 4.8), dpi=110, layout="constrained")
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    lines = lines_of([one.name for one in runs])
    lowest = np.inf
    for one in runs:
        line, curves = lines[one.name], read_curves(folder, one, COLUMNS)
        steps, curve = curves["update"][0], curves["log_likelihood"].mean(0)
        style = {
            "color": line.colour, "linestyle": line.dashes, "marker": line.marker,
            "markevery": max(1, len(curve) // 6), "markersize": 5, "linewidth": 1.4,
        }  # fmt: skip
        by_iteration.plot(steps, curve, label=one.name, **style)
        by_time.plot(curves["cpu_seconds"].mean(0), curve, **style)
        if len(one.seeds) > 1:
            error = np.std(curves["gap"], axis=0, ddof=1) / len(one.seeds) ** 0.5
            band = {"color": line.colour, "alpha": 0.15, "linewidth": 0}
            by_iteration.fill_between(steps, curve - error, curve + error, **band)
        lowest = min(lowest, curve.min())
    truth = _true_log_likelihood(min(runs, key=lambda one: one.mean))
    for axes in (by_iteration, by_time):
        axes.axhline(truth, color="0.3", linewidth=0.8, label="true parameters")
        axes.spines[["top", "right"]].set_visible(False)
    worst = max(truth - float(np.mean(one.metrics["log_likelihood"])) for one in runs)
    room = SHOWN_BELOW * max(worst, 0.01)
    by_iteration.set_ylim(max(lowest, truth - room) - 0.02 * room, truth + 0.05 * room)
    by_iteration.set(xlabel="EM iteration", ylabel="test log-likelihood (nats a point)")
    by_time.set(xlabel="CPU seconds", xscale="log")
    figure.suptitle(runs[0].task)
    figure.legend(*by_iteration.get_legend_handles_labels(), loc="outside right center",
                  frameon=False)  # fmt: skip
    return figure
