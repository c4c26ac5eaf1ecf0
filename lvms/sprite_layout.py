"""Where sprites can stand in an image, and what they hide of each other there."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfn_envs.factored_categorical import UNSET


class SpriteLayout(nn.Module):
    """Square sprites on a grid of places, close enough to overlap.

    A sprite has S^2 cells, the image D pixels, both numbered in raster order; so are the L places.

    Attributes:
        side: S, pixels.
        num_places: L.
        image_shape: `(H, W)`.
        cells: Which pixel each cell covers, int64 `[L + 1, S^2]`; the last row, that of a sprite
            without a place, is of no meaning.
        clear: Which cells of a sprite at one place another leaves to be seen, ones and zeros,
            float `[L + 1, L + 1, S^2]`. A sprite without a place hides nothing and is not seen.
    """

    cells: Tensor
    clear: Tensor

    def __init__(self, side: int, grid: Sequence[int], stride: int) -> None:
        """Lays out the places.

        Args:
            side: S, pixels.
            grid: Rows and columns of places.
            stride: Pixels from a place to the next.
        """
        super().__init__()
        rows, columns = (int(count) for count in grid)
        self.side, self.num_places = side, rows * columns
        self.image_shape = (side + stride * (rows - 1), side + stride * (columns - 1))
        pixel = torch.arange(self.image_shape[0] * self.image_shape[1]).view(self.image_shape)
        # `[S, S, rows, columns]` with the cells first, then one row a place.
        cells = pixel.unfold(0, side, stride).unfold(1, side, stride).flatten(2).flatten(0, 1)
        hidden = (cells[:, None, :, None] == cells[:, None]).any(-1)
        clear = torch.ones(self.num_places + 1, self.num_places + 1, side**2)
        clear[:-1, :-1] -= hidden.float()
        clear[-1] = 0.0
        self.register_buffer("cells", torch.cat([cells, cells[:1]]), persistent=False)
        self.register_buffer("clear", clear, persistent=False)

    def visible(self, place: Tensor) -> Tensor:
        """Says which cells of each piece no later one hides.

        Args:
            place: int64 `[N, P]`, -1 where a piece has none.

        Returns:
            Ones and zeros, float `[N, P, S^2]`.
        """
        place = torch.where(place == UNSET, self.num_places, place)
        pairs, width = self.clear.flatten(0, 1), self.num_places + 1
        alone = place * width + self.num_places
        parts = []
        for piece, first in enumerate(alone.unbind(1)):
            seen = pairs.index_select(0, first)
            for later in place[:, piece + 1 :].unbind(1):
                seen = seen * pairs.index_select(0, first - self.num_places + later)
            parts.append(seen)
        return torch.stack(parts, 1)

    def visible_table(self, later: int) -> Tensor:
        """Says the same of a sprite at every place for all places of the pieces after it.

        Args:
            later: How many pieces come after it.

        Returns:
            Ones and zeros, float `[L, L^later, S^2]`, the last piece's place changing fastest.
        """
        clear = self.clear[:-1, :-1]
        table = clear.new_ones(self.num_places, 1, self.side**2)
        for _ in range(later):
            table = (clear[:, :, None] * table[:, None]).flatten(1, 2)
        return table

    def look(self, x: Tensor, place: Tensor) -> Tensor:
        """Cuts out what of the image lies under each piece.

        Args:
            x: Images, `[N, D]`.
            place: int64 `[N, P]`, -1 where a piece has none: what stands there is of no meaning.

        Returns:
            `[N, P, S^2]`.
        """
        under = self.pixels(place)
        return x.gather(1, under.flatten(1)).view_as(under)

    def pixels(self, place: Tensor) -> Tensor:
        """Lists the pixels under each piece, int64 `[N, P, S^2]`; see `look`."""
        # Row -1 is the last one.
        return self.cells.index_select(0, place.flatten() % len(self.cells)).view(*place.shape, -1)
