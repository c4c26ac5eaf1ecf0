"""What the pages of tasks share that judge methods on held-out data."""

import io
from collections.abc import Sequence
from typing import Any

from benchmarks.held_out.results import Standing
from benchmarks.report.document import Block, Entry, Notice, Paragraph, Table

EARLY_STOPPING = "the weights with the least validation NLL of all measurements are judged"
"""What every cell has in common and no option sets."""


def sortable_table(headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    """Turns a run's table into one that can be sorted."""
    return Table(headers, [[_entry(text) for text in row] for row in rows], caption)


def single_runs(standings: Sequence[Standing[Any]], what: str) -> list[Block]:
    """Says so if there is one run a method.

    Args:
        standings: Of the methods.
        what: What the intervals of the table are over, in the plural.
    """
    if any(len(one.result.cells) > 1 for one in standings):
        return []
    text = (
        f"There is one run a method: another seed may end elsewhere, which no interval over {what} "
        "shows."
    )
    return [Notice(Paragraph(text))]


def to_png(figure: Any) -> bytes:
    """Makes a PNG file of a matplotlib figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _entry(text: str) -> Entry:
    """Sorts by the number that a text begins with, if it does; stars mark the best.

    What ends the text in brackets, such as an interval, stands below it.
    """
    plain, _, note = text.replace("**", "").partition(" (")
    mark = "best" if "**" in text else ""
    try:
        number = float(plain.removeprefix("≈ ").split()[0].replace(",", ""))
    except ValueError:
        number = None
    return Entry(plain, number, note.removesuffix(")"), mark)
