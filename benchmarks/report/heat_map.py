"""A heat map of one number for each pair of choices."""

from collections.abc import Collection, Sequence

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from benchmarks.report.numbers import significant
from benchmarks.report.svg import INK, PAPER
from benchmarks.report.ticks import plain_log_ticks

WIDE_RANGE = 10.0
"""From such a ratio of the largest to the smallest number on, colours follow logarithms."""


def draw_heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    best: tuple[int, int] | None = None,
    tied: Collection[tuple[int, int]] = (),
) -> Figure:
    """Draws positive numbers, the smaller the darker; the best has a frame.

    Args:
        values: float `[R, C]`; NaN where there is nothing, which stays blank.
        rows: The names of the rows.
        columns: The names of the columns.
        label: What the numbers are.
        best: The row and column of the best, if there is one.
        tied: Those of the ones that cannot be told apart from it; they are marked with ≈.

    Returns:
        The figure.
    """
    size = (2.4 + 1.3 * len(columns), 1.1 + 0.42 * len(rows))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots()
    # Magnitudes matter more than differences; cividis reads the same to every kind of eye.
    colours, norm = matplotlib.colormaps["cividis"], _norm(values)
    image = axes.pcolormesh(
        np.ma.masked_invalid(values), cmap=colours, norm=norm, edgecolors=PAPER, linewidth=2
    )
    for (row, column), value in np.ndenumerate(values):
        missing = np.isnan(value)
        ink = INK if missing else "black" if norm(value) > 0.5 else "white"
        mark = "≈ " if (row, column) in tied else ""
        text = "-" if missing else f"{mark}{significant(value, 2)}"
        weight = "bold" if (row, column) == best else "normal"
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontweight=weight
        )
    if best is not None:
        frame = matplotlib.patches.Rectangle(
            (best[1], best[0]), 1, 1, fill=False, edgecolor="#e8452c", linewidth=3, clip_on=False
        )
        axes.add_patch(frame)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, label=label, aspect=12)
    bar.outline.set_visible(False)
    if isinstance(norm, LogNorm):
        plain_log_ticks(bar.ax.yaxis, *bar.ax.get_ylim())
    return figure


def _norm(values: np.ndarray) -> Normalize:
    """Chooses how numbers become colours."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Normalize(0.0, 1.0)
    low, high = known.min(), known.max()
    if low > 0 and high > WIDE_RANGE * low:
        return LogNorm(low, high)
    return Normalize(0.0, high or 1.0)
