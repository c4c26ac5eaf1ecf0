"""Small pictures of states, for the `rgb_array` render mode."""

from collections.abc import Sequence

import numpy as np

from gfn_envs.errors import UserError

RENDER_MODES = ("ansi", "rgb_array")

# Okabe and Ito's palette: told apart by colour-blind readers too.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167),
           (0, 114, 178), (213, 94, 0))  # fmt: skip
EMPTY = (235, 235, 235)


def require_mode(mode: str) -> None:
    """Raises a UserError unless `mode` is one that environments draw in."""
    if mode not in RENDER_MODES:
        raise UserError(f"Unknown render mode '{mode}'. Known: {', '.join(RENDER_MODES)}.")


def draw_cells(
    labels: Sequence[str],
    colours: Sequence[int | None] | None = None,
    cell: int = 48,
    columns: int | None = None,
) -> np.ndarray:
    """Draws labelled squares, in one row or in several.

    Args:
        labels: The text in each square.
        colours: An index into the palette for each square, or None for an empty one; all empty
            by default.
        cell: The side of a square, pixels.
        columns: How many squares a row has; all of them by default.

    Returns:
        uint8 `[cell * rows, cell * columns, 3]`.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = columns or len(labels)
    rows = -(-len(labels) // columns)
    image = Image.new("RGB", (cell * columns, cell * rows), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=cell // 2)
    for i, label in enumerate(labels):
        index = colours[i] if colours is not None else None
        fill = EMPTY if index is None else PALETTE[index % len(PALETTE)]
        top, left = (cell * place for place in divmod(i, columns))
        box = (left + 1, top + 1, left + cell - 2, top + cell - 2)
        draw.rectangle(box, fill, (90, 90, 90))
        draw.text((left + cell / 2, top + cell / 2), label, (20, 20, 20), font, "mm")
    return np.asarray(image)


def draw_grid(
    labels: Sequence[str], colours: Sequence[int | None], columns: int, mode: str
) -> str | np.ndarray:
    """Draws labels in rows of equal length, as text or as squares.

    Args:
        labels: The text of each cell, row after row.
        colours: As in `draw_cells`.
        columns: How many cells a row has.
        mode: A render mode.

    Returns:
        A line for each row, or uint8 `[H, W, 3]`.
    """
    if mode == "rgb_array":
        return draw_cells(labels, colours, columns=columns)
    width = max(map(len, labels))
    cells = [label.rjust(width) for label in labels]
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return "\n".join(map(" ".join, lines))
