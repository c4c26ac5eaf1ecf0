"""Drawings of labelled binary trees over their words, finished or not, as text and as pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gfn_envs.binary_tree import OPEN, UNSET, tree_nodes
from gfn_envs.errors import UserError
from gfn_envs.rendering import EMPTY, PALETTE

SPACE = 2
"""Columns between two words of a text."""

FONT_SIZE = 18
"""Size of words and labels in a picture, pixels; everything else in it is a part of this."""

SMOOTHING = 3
"""Pictures are drawn so many times larger and then made smaller, which smooths slanted lines."""

LINE = (110, 110, 110)
TEXT = (20, 20, 20)
PAPER = (255, 255, 255)

BRIGHTNESS = (0.30, 0.59, 0.11)
"""How bright red, green and blue look."""

DARK = 95
"""Names on colours darker than this are white."""


@dataclass(frozen=True)
class _Part:
    """A word, a node or a span that is not yet split.

    Attributes:
        span: The fenceposts before its first and behind its last word.
        text: The word, or the label's name; `?` where there is no label yet.
        label: A of a node or a span, None of what has none.
        children: The two parts of a node, the words of a span, nothing of a word.
        is_open: Whether it is a span.
        height: How many levels it stands above the words.
    """

    span: tuple[int, int]
    text: str
    label: int | None = None
    children: tuple["_Part", ...] = ()
    is_open: bool = False
    height: int = 0


def write_tree(state: Tensor, words: Sequence[str], names: Sequence[str] | None = None) -> str:
    """Draws one tree as text: words in a line, nodes above them in box-drawing characters.

    A span that is not yet split has a dashed line over its words, and `?` for a label that it does
    not have yet.

    Args:
        state: int64 `[3 G]`; see `gfn_envs.binary_tree`.
        words: The words of the sentence, at most G + 1.
        names: The names of labels 0, 1, ...; their numbers by default.

    Returns:
        Lines without trailing blanks.

    Raises:
        UserError: If the tree does not fit the words or the names.
    """
    parts = _parts(state, words, names)
    # Half a name's width for each word is enough for a name over two of them.
    least = (max((len(part.text) for part in parts if part.height), default=0) + 1) // 2
    widths = [max(len(word), least) for word in words]
    middles = [sum(widths[:i]) + SPACE * i + (width - 1) // 2 for i, width in enumerate(widths)]
    x_of = {span: int(x) for span, x in _places(parts, middles).items()}
    top = max(part.height for part in parts)
    lines = [[" "] * (sum(widths) + SPACE * len(words)) for _ in range(2 * top + 1)]
    for part in parts:
        x, line = x_of[part.span], 2 * (top - part.height)
        start = x - (len(part.text) - 1) // 2
        lines[line][start : start + len(part.text)] = part.text
        if part.height == 0:
            continue
        left, right = (x_of[part.children[i].span] for i in (0, -1))
        lines[line + 1][left : right + 1] = ("┄" if part.is_open else "─") * (right + 1 - left)
        for place, corner in ((left, "┌"), (right, "┐"), (x, "┴")):
            lines[line + 1][place] = corner
        for child in part.children:
            for below in range(line + 2, 2 * (top - child.height)):
                lines[below][x_of[child.span]] = "│"
    return "\n".join("".join(line).rstrip() for line in lines)


def draw_tree(
    state: Tensor, words: Sequence[str], names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws one tree as a picture: words in a line, nodes above them in their labels' colours.

    A span that is not yet split stands on a triangle over its words, as unanalysed phrases do in
    linguists' trees.

    Args:
        state: int64 `[3 G]`; see `gfn_envs.binary_tree`.
        words: The words of the sentence, at most G + 1.
        names: The names of labels 0, 1, ...; their numbers by default.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        UserError: If the tree does not fit the words or the names.
    """
    from PIL import Image, ImageDraw, ImageFont

    parts = _parts(state, words, names)
    em = FONT_SIZE * SMOOTHING
    font = ImageFont.load_default(size=em)
    name_width = max((font.getlength(part.text) for part in parts if part.height), default=0.0)
    widths = [max(font.getlength(word), name_width / 2) + em for word in words]
    middles = [sum(widths[:i]) + width / 2 for i, width in enumerate(widths)]
    x_of = _places(parts, middles)
    top = max(part.height for part in parts)
    level, half = 2.6 * em, 0.75 * em  # from one level to the next; half a node's height
    y_of = {part.span: (top - part.height) * level + em for part in parts}
    size = round(sum(widths)), round(top * level + 2 * em)
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    stroke = SMOOTHING * 3 // 2
    for part in parts:  # lines first, so that nodes lie over them
        x, y = x_of[part.span], y_of[part.span]
        ends = [(x_of[child.span], y_of[child.span] - half) for child in part.children]
        if part.is_open:
            draw.polygon([(x, y), ends[0], ends[-1]], EMPTY, LINE, stroke)
            continue
        for end_x, end_y in ends:
            # Down a little, across, and down: such lines never cross, however deep one side is.
            bend = round(y + level / 2)
            draw.line([(x, y), (x, bend), (end_x, bend), (end_x, end_y)], LINE, stroke, "curve")
    for part in parts:
        x, y = x_of[part.span], y_of[part.span]
        ink = TEXT
        if part.height:
            reach = max(font.getlength(part.text) / 2 + 0.4 * em, half)
            fill = PAPER if part.label is None else PALETTE[part.label % len(PALETTE)]
            box = (x - reach, y - half, x + reach, y + half)
            draw.rounded_rectangle(box, half, fill, LINE, stroke)
            ink = PAPER if np.dot(fill, BRIGHTNESS) < DARK else TEXT
        draw.text((x, y), part.text, ink, font, "mm")
    small = image.resize((size[0] // SMOOTHING, size[1] // SMOOTHING), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _parts(state: Tensor, words: Sequence[str], names: Sequence[str] | None) -> list[_Part]:
    """Reads a state as all its parts, the words first and each after those below it."""
    columns = zip(*(column.tolist() for column in tree_nodes(state)), strict=True)
    found = [(right - left, left, right, gap + 1, label)
             for gap, (label, left, right) in enumerate(columns) if label != UNSET]  # fmt: skip
    most = state.shape[-1] // 3 + 1
    needed = max((right for _, _, right, _, _ in found), default=1)
    if not needed <= len(words) <= most:
        raise UserError(f"This tree takes {needed} to {most} words; got {len(words)}.")
    parts = {(i, i + 1): _Part((i, i + 1), word) for i, word in enumerate(words)}

    def add_open(span: tuple[int, int], text: str, label: int | None) -> None:
        below = tuple(parts[i, i + 1] for i in range(*span))
        parts[span] = _Part(span, text, label, below, is_open=True, height=1)

    for _, left, right, split, label in sorted(found):  # narrow ones first
        number = label if label >= 0 else OPEN - label
        if names is not None and number >= len(names):
            raise UserError(f"The tree has label {number}; there are {len(names)} names.")
        name = str(number) if names is None else names[number]
        if label < 0:
            add_open((left, right), name, number)
            continue
        halves = (left, split), (split, right)
        for half in halves:
            if half not in parts:
                add_open(half, "?", None)
        children = tuple(parts[half] for half in halves)
        height = 1 + max(child.height for child in children)
        parts[left, right] = _Part((left, right), name, number, children, height=height)
    return list(parts.values())


def _places(parts: Sequence[_Part], middles: Sequence[float]) -> dict[tuple[int, int], float]:
    """Puts every part above the middle between its first and its last child.

    Args:
        parts: Each after those below it.
        middles: Where the words' middles are.

    Returns:
        The place of each part's middle, by its fenceposts.
    """
    x_of: dict[tuple[int, int], float] = {}
    for part in parts:
        if part.children:
            x_of[part.span] = (x_of[part.children[0].span] + x_of[part.children[-1].span]) / 2
        else:
            x_of[part.span] = middles[part.span[0]]
    return x_of
