"""A grid of discrete codes, as the discrete VAE has them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET, FactoredCategorical
from gfn_envs.rendering import draw_grid, require_mode


class CodeGrid(FactoredCategorical):
    """A grid of codes, each one of K, assigned one by one.

    Description:
        The latent of a discrete VAE: `rows` x `columns` places, all with the same K codes. It is
        a `FactoredCategorical` that knows how its variables lie.

    State:
        int64 `[rows * columns]`, row after row: the code of each place, -1 where there is none
        yet.

    Actions:
        Order `fixed`: action k puts code k at the next place; A is K. Order `any`: one action
        for each (place, code); A is rows * columns * K.

    Build orders:
        `fixed` is raster order, row after row from the left: a tree. `any` is any order. See
        `FactoredCategorical`.

    Termination:
        After rows * columns actions; exit is forced.

    Enumeration:
        All K^(rows * columns) grids, the last place changing fastest.

    Rendering:
        `ansi`: a line for each row, with `.` for an empty place; `rgb_array`: a grid of coloured
        squares.

    Registered configurations:
        `gfn_envs/CodeGrid-v0` (grid 4, 4; 8 codes; order fixed).

    Attributes:
        grid: `(rows, columns)`.
        num_codes: K.
    """

    def __init__(
        self, grid: Sequence[int] = (4, 4), num_codes: int = 8, order: str = "fixed"
    ) -> None:
        """Lays out the places.

        Args:
            grid: The rows and the columns, at least 1 each.
            num_codes: K, at least 1.
            order: The build order, `fixed` or `any`.

        Raises:
            UserError: If a number is below 1, or the order is unknown.
        """
        self.grid = tuple(int(side) for side in grid)
        if len(self.grid) != 2 or min(*self.grid, num_codes) < 1:
            raise UserError(
                "A CodeGrid needs rows, columns and num_codes of at least 1; "
                f"got grid {grid} and {num_codes} codes."
            )
        rows, columns = self.grid
        self.num_codes = int(num_codes)
        super().__init__((self.num_codes,) * (rows * columns), order)

    def to_structure(self, state: Tensor, context_row: Tensor) -> tuple[tuple[int, ...], ...]:
        """Gives the rows of codes; see `LatentEnv.to_structure`."""
        return tuple(map(tuple, state.view(self.grid).tolist()))

    def from_structure(self, structure: tuple[tuple[int, ...], ...], context_row: Tensor) -> Tensor:
        """Joins the rows; see `LatentEnv.from_structure`."""
        return torch.tensor(structure, dtype=torch.int64, device=self.device).flatten()

    def render(self, state: Tensor, context_row: Tensor, mode: str) -> str | np.ndarray:
        """Draws one state; see `LatentEnv.render`."""
        require_mode(mode)
        codes = [None if code == UNSET else code for code in state.tolist()]
        labels = ["." if code is None else str(code) for code in codes]
        return draw_grid(labels, codes, self.grid[1], mode)
