"""A report as one HTML page that loads nothing from elsewhere."""

import base64
import io
import math
import re
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from benchmarks.report import document as model
from benchmarks.report.document import Document, Figure, Interval, Table
from benchmarks.report.svg import size, with_unique_ids

NARROW = 400
"""A picture no wider than this, in points, fits a telephone."""


def to_html(document: Document) -> str:
    """Writes a document as a page.

    Args:
        document: The report.

    Returns:
        HTML with styles, script and pictures in it.
    """
    here = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for kind in ("Strong", "Paragraph", "Notice", "Bullets", "Table", "Figure", "Section"):
        environment.tests[kind.lower()] = _is(getattr(model, kind))
    page = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    return page.render(
        document=document,
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        javascript=Markup((here / "page.js").read_text(encoding="utf-8")),
        anchor=_Anchors(),
        picture=_picture,
        place=_place,
    )


class _Anchors:
    """Gives every part an id of its own."""

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}

    def __call__(self, part: Any) -> str:
        """Returns a part's id: a section's from its heading, a panel's from its number."""
        if id(part) not in self._ids:
            heading = getattr(part, "heading", "panel")
            words = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
            self._ids[id(part)] = f"part-{len(self._ids) + 1}-{words}"
        return self._ids[id(part)]


def _is(kind: type) -> Any:
    """Makes a test for templates."""
    return lambda value: isinstance(value, kind)


def _picture(figure: Figure) -> Markup:
    """Shows a picture, as wide as it was drawn and never wider than the page."""
    if isinstance(figure.picture, bytes):
        source = f"data:image/png;base64,{base64.b64encode(figure.picture).decode()}"
        return Markup('<img src="{}" alt="{}" style="width: {}px">').format(
            source, figure.description, _png_width(figure.picture)
        )
    width = size(figure.picture)[0]
    svg = with_unique_ids(figure.picture, f"{figure.stem}-")
    attributes = Markup('class="{}" role="img" aria-label="{}" style="width: {}pt"').format(
        "small" if width <= NARROW else "large", figure.description, f"{width:g}"
    )
    return Markup(svg.replace("<svg ", f"<svg {attributes} ", 1))


def _png_width(content: bytes) -> int:
    """Reads how wide a picture is to be shown, pixels of a screen of 96 to the inch."""
    image = Image.open(io.BytesIO(content))
    resolution = float(image.info.get("dpi", (96, 96))[0])
    return round(image.width * 96 / resolution)


def _place(table: Table, column: int, interval: Interval) -> list[str]:
    """Places an interval's low end, dot and high end on the column's scale, percent."""
    scale = table.scale(column)
    assert scale is not None, "the column has an interval"
    transform = math.log if table.logarithmic else float
    low, high = map(transform, scale)
    width = (high - low) or 1.0
    return [f"{100 * (transform(value) - low) / width:.2f}"
            for value in (interval.low, interval.mean, interval.high)]  # fmt: skip
