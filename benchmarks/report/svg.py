"""Pictures as SVG that follows the page: ink and colours change with it, and text stays text.

A picture is drawn in the colours of this file. `to_svg` turns them into CSS variables, which the
page sets for light and for dark; `standalone` turns them into the light ones for a file.
"""

import io
import re
from typing import Any

import matplotlib

INK, GRID, PAPER = "#1b1f24", "#d5d9de", "#fffffe"
"""The last is not plain white, which stays white on a dark page too."""

PAGE_WIDTH = 11.4
"""Inches that a picture across the whole page has."""

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's palette, told apart by colour-blind readers too; its yellow is too light for
lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)),
)  # fmt: skip
"""A line is told from the others by its marker and dashes as well."""

VARIABLES = {
    INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
}  # fmt: skip

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "gflownet-em", "font.size": 10, "font.family": "sans",
    "font.sans-serif": ["DejaVu Sans"], "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "grid.color": GRID, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10, "lines.linewidth": 1.6,
}  # fmt: skip
"""matplotlib's settings for every picture of a page."""


def style() -> Any:
    """Gives a context in which figures of a page are made, drawn on and turned into SVG."""
    return matplotlib.rc_context(STYLE)


def to_svg(figure: Any) -> str:
    """Turns a matplotlib figure into markup for a page.

    Args:
        figure: Made under `style`.

    Returns:
        An `<svg>` element in CSS variables, with no more than a `viewBox` for its size.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", text, count=1)
    text = re.sub(r"'DejaVu Sans'(, [\w' -]+)*", "sans-serif", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), text)


def with_unique_ids(svg: str, prefix: str) -> str:
    """Puts a prefix before every id, so that several pictures can share a page.

    matplotlib gives the same ids to the clip paths and markers of different figures.
    """
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}", svg)


def size(svg: str) -> tuple[float, float]:
    """Reads a picture's width and height, points."""
    width, height = re.findall(r'viewBox="0 0 (\S+) ([^"\s]+)"', svg)[0]
    return float(width), float(height)


def standalone(svg: str) -> str:
    """Turns markup for a page into a file of its own, in light colours on white."""
    width, height = size(svg)
    colours = {variable: colour for colour, variable in VARIABLES.items()}
    svg = re.sub(r"var\(--[\w-]+\)", lambda found: colours[found[0]], svg)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}pt" height="{height:g}pt" '
        f'viewBox="0 0 {width:g} {height:g}">\n<rect width="100%" height="100%" fill="{PAPER}"/>'
    )
    return f"{re.sub('<svg[^>]*>', opening, svg, count=1)}\n"
