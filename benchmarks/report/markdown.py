"""A report as Markdown, its pictures in files beside it."""

import re
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from benchmarks.report.document import (
    Bullets,
    Code,
    Document,
    Entry,
    Figure,
    Notice,
    Paragraph,
    Section,
    Strong,
    Table,
    Tabs,
    Words,
)
from benchmarks.report.svg import standalone


def to_markdown(document: Document, pictures: str) -> tuple[str, dict[str, bytes]]:
    """Writes a document as Markdown, as GitHub reads it.

    Args:
        document: The report.
        pictures: The folder of the pictures, as the text names it.

    Returns:
        The text, and the files in that folder by name.
    """
    files: dict[str, bytes] = {}
    parts = [f"# {_escape(document.title)}", _escape(document.subtitle)]
    parts += _blocks(document.sections, 2, pictures, files)
    return "\n\n".join(part for part in parts if part) + "\n", files


def _blocks(blocks: Sequence[Any], level: int, pictures: str, files: dict[str, bytes]) -> list[str]:
    """Writes blocks one after another; tabs become headings."""
    parts: list[str] = []
    for block in blocks:
        match block:
            case Section(heading, inner):
                parts.append(f"{'#' * level} {_escape(heading)}")
                parts += _blocks(inner, level + 1, pictures, files)
            case Tabs(panels):
                for label, inner in panels.items():
                    parts.append(f"**{_escape(label)}**")
                    parts += _blocks(inner, level, pictures, files)
            case Paragraph(words):
                parts.append(_words(words))
            case Notice(paragraph):
                parts.append(f"> {_words(paragraph.words)}")
            case Bullets(items):
                parts.append("\n".join(f"- {_words(item.words)}" for item in items))
            case Table():
                parts += [_escape(block.caption), _table(block)]
            case Figure():
                parts += [_figure(block, pictures, files), _escape(block.caption)]
    return parts


def _words(words: Sequence[Words]) -> str:
    """Writes a paragraph's words."""
    shown = {Strong: "**{}**", Code: "`{}`"}
    return "".join(
        _escape(word) if isinstance(word, str)
        else shown[type(word)].format(word.text if isinstance(word, Code) else _escape(word.text))
        for word in words
    )  # fmt: skip


def _table(table: Table) -> str:
    """Writes a table; pictures of intervals are left out, for their numbers stand beside them."""
    shown = [i for i in range(len(table.headers)) if table.scale(i) is None]
    rows = [[_entry(row[i]) for i in shown] for row in table.rows]
    align = ["right" if table.is_numeric(i) else "left" for i in shown]
    headers = [_escape(" ".join(table.headers[i].split("\n"))) for i in shown]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _entry(entry: Entry) -> str:
    """Writes what stands in one place of a table."""
    text = _escape(f"{entry.text} ({entry.note})" if entry.note else entry.text)
    return f"**{text}**" if entry.mark == "best" else text


def _figure(figure: Figure, pictures: str, files: dict[str, bytes]) -> str:
    """Adds a picture's file and refers to it."""
    if isinstance(figure.picture, bytes):
        name, content = f"{figure.stem}.png", figure.picture
    else:
        name, content = f"{figure.stem}.svg", standalone(figure.picture).encode()
    files[name] = content
    return f"![{_escape(figure.description)}]({pictures}/{name})"


def _escape(text: str) -> str:
    """Keeps Markdown from reading marks into plain text."""
    text = re.sub(r"([\\`*<>|\[\]])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
