"""A Transformer over sequences of different lengths that lie one behind the other."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError


class RaggedTransformer(nn.Module):
    """Layers of attention within each sequence, normalised first (Xiong et al. 2020).

    Only attention itself pads sequences: all other layers see the tokens there are and no more.
    """

    def __init__(self, dim: int, layers: int, heads: int) -> None:
        """Builds the layers.

        Args:
            dim: D, the size of a token, a multiple of `heads`; hidden layers have 4 D.
            layers: How many, at least 1.
            heads: Of attention, at least 1.

        Raises:
            UserError: If the sizes do not fit.
        """
        super().__init__()
        if min(dim, layers, heads) < 1 or dim % heads:
            raise UserError(
                "A Transformer needs dim, layers and heads of at least 1, and dim a multiple of "
                f"heads; got {dim}, {layers} and {heads}."
            )
        self.layers = nn.ModuleList(_Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, row: Tensor, place: Tensor) -> Tensor:
        """Reads sequences.

        Args:
            tokens: float `[R, D]`.
            row: Which sequence each is in, int64 `[R]`, from 0 on, none without a token.
            place: Where in it, int64 `[R]`, from 0 on without a gap.

        Returns:
            float `[R, D]`.
        """
        if not len(tokens):
            return tokens
        shape = int(row.max()) + 1, int(place.max()) + 1
        padded = row * shape[1] + place
        present = torch.zeros(shape, dtype=torch.bool, device=tokens.device)
        present.view(-1)[padded] = True
        for layer in self.layers:
            tokens = layer(tokens, padded, present)
        return self.norm(tokens)


class _Layer(nn.Module):
    """Attention and two linear layers, each added to what it reads."""

    def __init__(self, dim: int, heads: int) -> None:
        """Builds the layers; see `RaggedTransformer`."""
        super().__init__()
        self.heads = heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project = nn.Linear(dim, 3 * dim)
        self.attended = nn.Linear(dim, dim)
        self.hidden, self.out = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor, padded: Tensor, present: Tensor) -> Tensor:
        """Turns tokens `[R, D]` that lie at `padded` `[R]` of the flat `present` `[M, L]`."""
        projected = self.project(self.attention_norm(tokens))
        grid = projected.new_zeros(present.numel(), projected.shape[1])
        grid = grid.index_copy(0, padded, projected).view(*present.shape, 3, self.heads, -1)
        query, key, value = grid.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, present[:, None, None])
        # Unlike indexing, index_select has a gradient that does not sort.
        mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, padded)
        tokens = tokens + self.attended(mixed)
        return tokens + self.out(F.relu(self.hidden(self.hidden_norm(tokens))))
