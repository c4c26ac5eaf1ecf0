"""The learning curves of methods, against CPU time or mini-batches."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from benchmarks.em.lines import Line
from benchmarks.held_out.results import MethodResult
from benchmarks.report.ticks import plain_ticks

DPI = 110
"""Of every picture of a run."""


def plot_curves(
    axes: Any, results: Sequence[MethodResult], lines: Mapping[str, Line], x: str, y: str
) -> None:
    """Plots what was measured on validation data.

    Lines are means over seeds and bands reach from the least to the greatest.

    Args:
        axes: Of a matplotlib figure.
        results: The methods.
        lines: How each of them is drawn.
        x: The column of the horizontal axis.
        y: That of the vertical one.
    """
    for one in results:
        line, values, at = lines[one.method], one.curves[y], one.curves[x].mean(0)
        axes.plot(
            at, values.mean(0), label=one.method, color=line.colour, linestyle=line.dashes,
            marker=line.marker, markevery=max(1, values.shape[1] // 6), markersize=5,
            linewidth=1.4,
        )  # fmt: skip
        axes.fill_between(
            at, values.min(0), values.max(0), color=line.colour, alpha=0.15, linewidth=0
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # numbers of mini-batches are long
    plain_ticks(axes.xaxis)
