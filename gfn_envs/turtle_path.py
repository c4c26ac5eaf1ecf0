"""A path that a turtle walks over a grid whose edges meet."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET, FactoredCategorical
from gfn_envs.rendering import draw_grid, require_mode

NORTH = 1
"""Headings are west, north, east, south: 0 to 3, clockwise. The turtle faces north at first."""

ROW_STEP, COLUMN_STEP = (0, -1, 0, 1), (-1, 0, 1, 0)
"""By how much a move in each heading changes the row and the column."""


class TurtlePath(FactoredCategorical):
    """A start on a torus and turns, left, straight on or right, each followed by a step.

    Description:
        The path of a turtle (Papert 1980) over `rows` x `columns` cells whose opposite edges
        meet, so that every path is legal. Before its first step it may also turn about. Turns are
        relative: another early one carries all that follows elsewhere.

    State:
        int64 `[1 + moves]`: the start cell, row after row, then the turn before each move, 0 left,
        1 straight on, 2 right; the first is seen from the north, and 3 is about. -1 where unset.

    Actions:
        As `FactoredCategorical` of these sizes.

    Build orders:
        `fixed` walks the path from its start: a tree. `any` is any order. See
        `FactoredCategorical`.

    Termination:
        After 1 + moves actions; exit is forced.

    Enumeration:
        All rows * columns * 4 * 3^(moves - 1) paths, the last turn changing fastest.

    Rendering:
        `ansi`: the grid with the number of the latest visit in each cell, `.` where there is none;
        `rgb_array`: the same in coloured squares. Only what is walked for certain is shown: up to
        the first turn that is not set.

    Registered configurations:
        `gfn_envs/TurtlePath-v0` (grid 4, 4; 3 moves; order fixed).

    Attributes:
        grid: `(rows, columns)`.
        num_cells: rows * columns.
        moves: The number of steps.
    """

    def __init__(self, grid: Sequence[int] = (4, 4), moves: int = 3, order: str = "fixed") -> None:
        """Lays out the cells.

        Args:
            grid: The rows and the columns, at least 2 each.
            moves: The number of steps, at least 1.
            order: The build order, `fixed` or `any`.

        Raises:
            UserError: If a number is too small, or the order is unknown.
        """
        self.grid = tuple(int(side) for side in grid)
        if len(self.grid) != 2 or min(self.grid) < 2 or moves < 1:
            raise UserError(
                "A TurtlePath needs at least 2 rows, 2 columns and 1 move; "
                f"got grid {grid} and {moves} moves."
            )
        self.num_cells, self.moves = self.grid[0] * self.grid[1], int(moves)
        super().__init__((self.num_cells, 4) + (3,) * (self.moves - 1), order)
        self._row_step = torch.tensor(ROW_STEP)
        self._column_step = torch.tensor(COLUMN_STEP)
        self._cell = torch.arange(self.num_cells)

    def walk(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Follows the turns.

        Args:
            state: int64 `[N, 1 + moves]`.

        Returns:
            The cell at the start and after each move, int64 `[N, 1 + moves]`, and the heading
            there; -1 both after the first entry of the state that is not set.
        """
        start, turns = state[:, :1].clamp_min(0), state[:, 1:].clamp_min(0)
        steered = (NORTH + (turns - 1).cumsum(1)) % 4
        row = start // self.grid[1] + self._row_step[steered].cumsum(1)
        column = start % self.grid[1] + self._column_step[steered].cumsum(1)
        cell = torch.cat([start, row % self.grid[0] * self.grid[1] + column % self.grid[1]], 1)
        heading = torch.cat([torch.full_like(start, NORTH), steered], 1)
        known = (state != UNSET).cumprod(1).bool()
        return torch.where(known, cell, UNSET), torch.where(known, heading, UNSET)

    def visited(self, cell: Tensor) -> Tensor:
        """Marks the cells of paths.

        Args:
            cell: int64 `[N, n]`, -1 for none.

        Returns:
            Ones and zeros, float `[N, num_cells]`.
        """
        marks = torch.zeros(len(cell), self.num_cells + 1, device=cell.device)
        # No cell is marked in a column of its own, the last.
        return marks.scatter_(1, cell % (self.num_cells + 1), 1.0)[:, :-1]

    def views(self) -> Tensor:
        """Lists the cells as the turtle sees them from each cell in each heading.

        Returns:
            int64 `[num_cells, 4, side^2]` with the longer side of the grid: from the row farthest
            ahead to that farthest behind, each from left to right; where sides differ some cells
            are seen twice.
        """
        side = max(self.grid)
        offset = torch.arange(side, device=self.device) - (side - 1) // 2
        ahead, right = (o.flatten() for o in torch.meshgrid(offset.flip(0), offset, indexing="ij"))
        heading = torch.arange(4, device=self.device)[:, None]
        east = (heading + 1) % 4  # what is to the right of the heading
        parts = []
        for step, start, length in (
            (self._row_step, self._cell // self.grid[1], self.grid[0]),
            (self._column_step, self._cell % self.grid[1], self.grid[1]),
        ):
            away = step[heading] * ahead + step[east] * right
            parts.append((start[:, None, None] + away) % length)
        return parts[0] * self.grid[1] + parts[1]

    def render(self, state: Tensor, context_row: Tensor, mode: str) -> str | np.ndarray:
        """Draws one state; see `LatentEnv.render`."""
        require_mode(mode)
        latest: list[int | None] = [None] * self.num_cells
        for visit, cell in enumerate(self.walk(state[None])[0][0].tolist()):
            if cell != UNSET:
                latest[cell] = visit
        labels = ["." if visit is None else str(visit) for visit in latest]
        return draw_grid(labels, latest, self.grid[1], mode)
