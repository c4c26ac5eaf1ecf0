"""How the tables that runs end with show standings, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.results import MethodResult, Standing
from benchmarks.report.numbers import counted
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.held_out.task import HeldOutTask


def write_table(
    folder: RunFolder,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    failures: Mapping[MethodCell, str],
) -> str:
    """Writes `table.md`.

    Args:
        folder: The run's folder.
        headers: One for each column.
        rows: As many words each; none if every cell failed, and then there is no table.
        notes: Lines below the table.
        failures: Why each of the cells that failed did so.

    Returns:
        What was written.
    """
    lines = []
    if rows:
        lines = [tabulate(rows, headers, tablefmt="github", disable_numparse=True), "", *notes]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {cell.title}: {reason}" for cell, reason in failures.items()]
    table = "\n".join(lines)
    folder.write_text("table.md", table + "\n")
    return table


def show_score(standing: Standing[Any], digits: int) -> str:
    """Shows a method's mean score and its interval; stars mark the best."""
    mark = "**" if standing.is_best else ""
    score = f"{standing.result.scores.mean():.{digits}f}"
    return f"{mark}{score}{mark}{between(standing.interval, digits)}"


def show_behind(standing: Standing[Any], digits: int) -> str:
    """Shows how far a method is behind the best, and whether that may be chance."""
    if standing.is_best:
        return "best"
    mark = "≈ " if standing.tied else ""
    return f"{mark}{standing.behind:+.{digits}f}{between(standing.behind_interval, digits)}"


def between(interval: tuple[float, float] | None, digits: int) -> str:
    """Shows an interval in brackets, nothing where there is none."""
    if interval is None:
        return ""
    return f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def show_runs(standing: Standing[Any], digits: int) -> str:
    """Shows how many runs there are, and how far their mean scores spread."""
    means = standing.result.scores.mean(1)
    return "1" if len(means) == 1 else f"{len(means)}, ± {np.std(means, ddof=1):.{digits}f}"


def early_ends(task: HeldOutTask, results: Sequence[MethodResult]) -> str:
    """Says how many runs ended early, if the task lets them: a sentence for a legend."""
    patience = task.options.patience
    if patience == 0:
        return ""
    ended = sum(
        int((one.curves["minibatches"][:, -1] < task.num_minibatches(one.method)).sum())
        for one in results
    )
    runs = counted(sum(len(one.cells) for one in results), "run")
    return (
        f" {ended:,} of {runs} ended early, as {counted(patience, 'measurement')} in a row found "
        "no lower validation NLL; updates are means."
    )
