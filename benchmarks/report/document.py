"""What a report says, apart from how it looks: sections of paragraphs, tables and figures.

A task describes its run as a `Document`; `html.py` and `markdown.py` write it down. Text is plain
text everywhere: writing it down is what escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Strong:
    """Words that stand out in a paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Words that one could type."""

    text: str


Words = str | Strong | Code


@dataclass(frozen=True, init=False)
class Paragraph:
    """Some sentences, of plain and of marked words."""

    words: tuple[Words, ...]

    def __init__(self, *words: Words) -> None:
        object.__setattr__(self, "words", words)


@dataclass(frozen=True)
class Notice:
    """A paragraph that must not be missed: what is not there, what to be careful about."""

    paragraph: Paragraph


@dataclass(frozen=True)
class Bullets:
    """A list of short paragraphs."""

    items: Sequence[Paragraph]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, drawn as a dot on a line; the whole column shares one scale."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: What is read.
        sort: What the column is sorted by; the text by default. Numbers come before text.
        note: Something smaller below the text.
        mark: "best" or "tied", for places that are to be found at a glance.
        interval: A picture in place of the text, which then serves those who cannot see it.
    """

    text: str
    sort: float | None = None
    note: str = ""
    mark: str = ""
    interval: Interval | None = None


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted.

    Attributes:
        headers: One for each column.
        rows: As many entries each.
        caption: What is seen, in a sentence or more.
        logarithmic: Whether intervals are drawn on a logarithmic scale; all must be positive.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    caption: str = ""
    logarithmic: bool = False

    def is_numeric(self, column: int) -> bool:
        """Whether a column is of numbers, which stand flush right."""
        sorted_by_number = [row[column] for row in self.rows if row[column].sort is not None]
        return any(entry.text[:1] in "+-≈0123456789" for entry in sorted_by_number)

    def scale(self, column: int) -> tuple[float, float] | None:
        """The range of a column's intervals, None of a column without."""
        drawn = [row[column].interval for row in self.rows]
        bounds = [bound for one in drawn if one for bound in (one.low, one.mean, one.high)]
        return (min(bounds), max(bounds)) if bounds else None


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: Unlike any other's of the document.
        picture: Markup made by `svg.to_svg`, or a PNG file's bytes.
        description: What is seen, for those who cannot see it.
        caption: What it means, in a sentence or more.
    """

    name: str
    picture: str | bytes
    description: str
    caption: str = ""

    @property
    def stem(self) -> str:
        """The name as a file's and as part of an id: whatever a task is called, it is safe."""
        return re.sub(r"[^\w.-]+", "-", self.name)


@dataclass(frozen=True)
class Tabs:
    """Alternatives, of which one is looked at at a time; all of them in print."""

    panels: Mapping[str, Sequence[Block]]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, further sections among it."""

    heading: str
    blocks: Sequence[Block]


Block = Paragraph | Notice | Bullets | Table | Figure | Tabs | Section


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: What it is about.
        subtitle: Which run, and of when.
        sections: Its parts.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
