"""An autoregressive Transformer over a grid of codes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from lvms.code_prior import CodePrior, draw_codes
from lvms.random_weights import draw_weights

Cache = tuple[Tensor, Tensor]
"""The keys and values of the places so far, `[B, heads, l, W / heads]` each."""


class TransformerPrior(CodePrior):
    """A causal Transformer that reads the codes in raster order (Vaswani et al. 2017).

    Layer norms come first in each block, there is no dropout, and sampling keeps the keys and
    values of the places so far.
    """

    def __init__(
        self,
        grid: Sequence[int],
        num_codes: int,
        width: int = 32,
        heads: int = 4,
        layers: int = 2,
        seed: int = 0,
    ) -> None:
        """Builds the network, uniform at first.

        Args:
            grid: Rows and columns.
            num_codes: K.
            width: W, the size of the hidden state of a place; a multiple of `heads`.
            heads: The number of attention heads.
            layers: The number of blocks.
            seed: Of the hidden weights.

        Raises:
            UserError: If the width is no multiple of the heads.
        """
        super().__init__(grid, num_codes)
        if width % heads:
            raise UserError(f"width must be a multiple of heads; got {width} and {heads}.")
        # The last row is read before the first code.
        self.read_code = nn.Embedding(num_codes + 1, width)
        self.read_place = nn.Embedding(len(self.blank), width)
        self.blocks = nn.ModuleList(_CausalBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_codes)
        self.start(torch.Generator().manual_seed(seed))

    def logits(self, z: Tensor) -> Tensor:
        """Computes all conditionals in one pass; see `CodePrior.logits`."""
        return self._score(self.read_code(F.pad(z[:, :-1], (1, 0), value=self.num_codes)))

    def relaxed_logits(self, weights: Tensor) -> Tensor:
        """Reads mean embeddings; see `CodePrior.relaxed_logits`."""
        codes = self.read_code.weight
        first = codes[-1].expand(len(weights), 1, -1)
        return self._score(torch.cat([first, weights[:, :-1] @ codes[:-1]], 1))

    @torch.no_grad()
    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws grids of codes, a place a pass; see `CodePrior.sample`."""
        code = self.blank.new_full((batch_size,), self.num_codes)
        caches: list[Cache | None] = [None] * len(self.blocks)
        z = []
        for place in range(len(self.blank)):
            hidden = (self.read_code(code) + self.read_place.weight[place])[:, None]
            for i, block in enumerate(self.blocks):
                hidden, caches[i] = block(hidden, caches[i])
            code = draw_codes(self.head(self.norm(hidden[:, 0])), generator)
            z.append(code)
        return torch.stack(z, -1)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None = None) -> None:
        """Draws the hidden weights and makes all outputs zero; see `CodePrior.start`."""
        draw_weights(self, generator)
        self.head.weight.zero_()

    def _score(self, hidden: Tensor) -> Tensor:
        """Scores each place's codes from what is read before it, `[B, L, W]` to `[B, L, K]`."""
        hidden = hidden + self.read_place.weight
        for block in self.blocks:
            hidden, _ = block(hidden)
        return self.head(self.norm(hidden))


class _CausalBlock(nn.Module):
    """Self-attention to what came before, then a perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, hidden: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Reads places `[B, l, W]`: all of them, or the next one after those in the cache."""
        parts = self.attend(self.norm(hidden)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.transpose(1, 3).unbind(2)
        if cache is not None:
            key = torch.cat([cache[0], key], dim=2)
            value = torch.cat([cache[1], value], dim=2)
        # The next place may look at everything; of all places, each only at those up to itself.
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        hidden = hidden + self.join(seen.transpose(1, 2).flatten(2))
        return hidden + self.perceptron(hidden), (key, value)
