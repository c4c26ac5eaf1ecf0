"""Learning curves as small multiples: one panel a method, a few lines in each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report.svg import DASHES, GRID, INK, MARKERS, PAGE_WIDTH, SERIES, style, to_svg
from benchmarks.report.ticks import plain_log_ticks, plain_symmetric_ticks

PANEL_HEIGHT = 2.5
"""In inches."""

LINEAR_DECADES = 1.2
"""The linear part of a logarithmic axis, on one side of zero, is as long as so many decades."""


@dataclass(frozen=True)
class Line:
    """One line of a panel, a value at each measurement.

    Attributes:
        label: What it is called in the legend.
        x: Where the measurements are, float `[M]`.
        mean: The mean over seeds, float `[M]`.
        low: The least of the seeds, float `[M]`.
        high: The greatest, float `[M]`.
    """

    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Axes:
    """What the axes of every panel show.

    Attributes:
        x_label: The horizontal one.
        y_label: The vertical one.
        x_logarithmic: Whether x is.
        y_logarithmic: Whether y is.
        y_linear_to: Up to here, on both sides of zero, y is linear, and logarithmic beyond; None
            of an axis of one kind.
        level: A value to draw a thin line at in every panel, if any.
    """

    x_label: str
    y_label: str
    x_logarithmic: bool = False
    y_logarithmic: bool = False
    y_linear_to: float | None = None
    level: float | None = None


def draw_curves(panels: Mapping[str, Sequence[Line]], labels: Sequence[str], axes: Axes) -> str:
    """Draws lines with bands from the least to the greatest seed.

    Args:
        panels: The lines of each panel by its title.
        labels: Every label of the legend; a label looks the same in every panel and picture.
        axes: What the axes show, the same range in every panel.

    Returns:
        The picture's markup; see `to_svg`.
    """
    columns = {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = PAGE_WIDTH if columns > 1 else 0.6 * PAGE_WIDTH
    with style():
        figure = Figure(figsize=(width, 0.75 + PANEL_HEIGHT * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for panel in grid.flat[len(panels) :]:
            panel.set_visible(False)
        handles = {}
        for panel, (title, lines) in zip(grid.flat, panels.items(), strict=False):
            for line in lines:
                kind = labels.index(line.label) % len(SERIES)
                colour = SERIES[kind]
                panel.fill_between(
                    line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0
                )
                (handles[line.label],) = panel.plot(
                    line.x, line.mean, color=colour, linestyle=DASHES[kind], marker=MARKERS[kind],
                    markersize=3.5, label=line.label,
                )  # fmt: skip
            if axes.level is not None:
                panel.axhline(axes.level, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
            panel.set_title(title, loc="left", fontweight="bold")
            panel.set_xscale("log" if axes.x_logarithmic else "linear")
            if axes.y_linear_to is not None:
                panel.set_yscale("symlog", linthresh=axes.y_linear_to, linscale=LINEAR_DECADES)
            else:
                panel.set_yscale("log" if axes.y_logarithmic else "linear")
            panel.grid(color=GRID, linewidth=0.6)
            panel.set_axisbelow(True)
        for panel in grid.flat[max(0, len(panels) - columns) : len(panels)]:
            panel.set_xlabel(axes.x_label)
            panel.tick_params(labelbottom=True)
        for panel in grid[:, 0]:
            panel.set_ylabel(axes.y_label)
        for panel in grid.flat[: len(panels)]:
            if axes.x_logarithmic:
                plain_log_ticks(panel.xaxis, *panel.get_xlim())
            if axes.y_linear_to is not None:
                plain_symmetric_ticks(panel.yaxis, panel.get_ylim(), axes.y_linear_to)
            elif axes.y_logarithmic:
                plain_log_ticks(panel.yaxis, *panel.get_ylim())
        shown = [handles[label] for label in labels if label in handles]
        figure.legend(handles=shown, loc="outside lower center", ncols=5, handlelength=3.2)
        return to_svg(figure)
