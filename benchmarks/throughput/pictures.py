"""The pictures of a throughput run."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.report.ticks import plain_ticks
from benchmarks.throughput.results import Comparison, Ratio
from benchmarks.throughput.sides import BARE, OURS, SAMPLING, STOCK, STOCK_X, TB, WORKS

COLOURS = {SAMPLING: "#0072B2", TB: "#E69F00", "DB step": "#009E73", "SubTB step": "#CC79A7"}
MARKERS = {SAMPLING: "o", TB: "s", "DB step": "^", "SubTB step": "D"}
SIDE_STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#0072B2", "marker": "o"},
    BARE: {"color": "black", "marker": "x"},
    STOCK: {"color": "#D55E00", "marker": "s"},
    STOCK_X: {"color": "#CC79A7", "marker": "^"},
}


def draw_ratios(grid: Sequence[Comparison]) -> Figure:
    """Draws both ratios of each policy and batch, with their quartiles and the targets."""
    cells = list(dict.fromkeys((c.setting.policy, c.setting.batch) for c in grid))
    figure = Figure(figsize=(11, 1.4 + 0.34 * len(cells)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, side, to in ((panels[0], OURS, BARE), (panels[1], STOCK, OURS)):
        for comparison in grid:
            ratio = comparison.ratio(side, to)
            if ratio is not None:
                row = cells.index((comparison.setting.policy, comparison.setting.batch))
                _dot(panel, ratio, row, comparison.work)
        panel.set(xscale="log", xlabel=f"cost of {side} / cost of {to}")
        panel.axvline(1, color="0.6", linewidth=0.8)
        panel.set_xticks([0.7, 0.8, 1, 1.2, 1.5, 2, 3, 4, 6, 8, 10, 15])
        panel.set_xlim(*_range(grid, side, to))
        plain_ticks(panel.xaxis)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
    for target, work in ((1.3, SAMPLING), (1.2, TB)):
        panels[0].axvline(target, color=COLOURS[work], linestyle="--", linewidth=1)
    panels[1].axvline(2.5, color="0.3", linestyle="--", linewidth=1)
    panels[0].set_title("left of the dashed lines: targets met", fontsize=9)
    panels[1].set_title("right of the dashed line: target met (batch 64)", fontsize=9)
    panels[0].set_yticks(range(len(cells)), [f"{policy}, batch {batch}" for policy, batch in cells])
    panels[0].invert_yaxis()
    shown = {c.work for c in grid}
    for work in (w for w in WORKS if w in shown):
        panels[1].plot([], [], MARKERS[work], color=COLOURS[work], label=work)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4,
                  frameon=False)  # fmt: skip
    return figure


def _range(grid: Sequence[Comparison], side: str, to: str) -> tuple[float, float]:
    """Gives the range of an axis that shows every ratio, its quartiles and 1."""
    found = [r for c in grid if (r := c.ratio(side, to)) is not None]
    bounds = [1.0, *(bound for ratio in found for bound in ratio.quartiles)]
    return 0.93 * min(bounds), 1.07 * max(bounds)


def _dot(panel: Any, ratio: Ratio, row: int, work: str) -> None:
    """Draws one ratio with its quartiles; works lie a little apart."""
    low, high = ratio.quartiles
    error = [[max(ratio.median - low, 0)], [max(high - ratio.median, 0)]]
    panel.errorbar(
        ratio.median, row + 0.16 * (WORKS.index(work) - 1.5), xerr=error, fmt=MARKERS[work],
        color=COLOURS[work], markersize=5, elinewidth=1,
    )  # fmt: skip


def draw_growth(comparisons: Sequence[Comparison]) -> Figure:
    """Draws cost against length, batch and size of x, in logarithms, sampling above training."""
    keys = {"length": "length", "batch": "batch", "x-size": "x_size"}
    sections = [s for s in keys if any(c.setting.section == s for c in comparisons)]
    figure = Figure(figsize=(1 + 3.6 * len(sections), 6.5), layout="constrained")
    panels = figure.subplots(2, len(sections), squeeze=False)
    for row, work in zip(panels, (SAMPLING, TB), strict=True):
        for panel, section in zip(row, sections, strict=True):
            here = [c for c in comparisons if c.setting.section == section and c.work == work]
            _curves(panel, here, keys[section])
            panel.set(xscale="log", yscale="log", title=f"{work}")
            panel.set_xlabel({"x-size": "numbers in x"}.get(section, section))
            panel.set_xticks(sorted({getattr(c.setting, keys[section]) for c in here}))
            plain_ticks(panel.xaxis)
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            plain_ticks(panel.yaxis)
        row[0].set_ylabel("CPU milliseconds a call")
    entries = {}
    for panel in panels.flat:
        handles, labels = panel.get_legend_handles_labels()
        entries.update(dict(zip(labels, handles, strict=True)))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3,
                  frameon=False)  # fmt: skip
    return figure


def _curves(panel: Any, comparisons: Sequence[Comparison], key: str) -> None:
    """Draws a line for each policy and side, with a band from quartile to quartile."""
    policies = list(dict.fromkeys(c.setting.policy for c in comparisons))
    for policy, line in zip(policies, ("-", ":", "--"), strict=False):
        here = [c for c in comparisons if c.setting.policy == policy]
        for side, style in SIDE_STYLES.items():
            found = [(getattr(c.setting, key), m) for c in here if (m := c.fastest(side))]
            if not found:
                continue
            sizes = [size for size, _ in found]
            panel.plot(sizes, [m.timing.median for _, m in found], line, **style, markersize=5,
                       label=f"{side} ({policy})")  # fmt: skip
            bounds = [m.timing.quartiles for _, m in found]
            panel.fill_between(sizes, *zip(*bounds, strict=True), color=style["color"],
                               alpha=0.15, linewidth=0)  # fmt: skip
