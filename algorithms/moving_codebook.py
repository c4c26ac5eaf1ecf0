"""Codes that follow the vectors assigned to them, by exponential moving averages."""

import torch
from torch import Tensor, nn

from gfn_envs.errors import UserError

DEAD = 0.01
"""A code used less often than this share of even use begins anew."""


class MovingCodebook(nn.Module):
    """Moves each code to a moving average of the vectors nearest to it.

    van den Oord, Vinyals, Kavukcuoglu: "Neural discrete representation learning", NeurIPS 2017,
    appendix A.1. A code that is hardly used any more begins anew at one of the vectors. The codes
    lie in an embedding of the model's, which this changes in place.

    Attributes:
        decay: What share of the averages an update keeps.
        count: Moving average of how many vectors a code has, a buffer `[K]`.
        total: That of their sum, a buffer `[K, D]`.
    """

    count: Tensor
    total: Tensor

    def __init__(self, embedding: nn.Embedding, decay: float = 0.99) -> None:
        """Takes the codes.

        Args:
            embedding: Whose weight, `[K, D]`, are the codes.
            decay: At least 0 and below 1.

        Raises:
            UserError: If the decay is out of range.
        """
        super().__init__()
        if not 0 <= decay < 1:
            raise UserError(f"decay must be at least 0 and below 1; got {decay}.")
        self.decay = decay
        # In a tuple, so that the model's parameter is not this module's too.
        self._embedding = (embedding,)
        self.register_buffer("count", torch.zeros_like(self.codes[:, 0]))
        self.register_buffer("total", torch.zeros_like(self.codes))

    @property
    def codes(self) -> Tensor:
        """The codes without gradient, `[K, D]`."""
        return self._embedding[0].weight.detach()

    def nearest(self, vectors: Tensor) -> Tensor:
        """Finds the code of least Euclidean distance for each vector, int64 `[...]`."""
        codes = self.codes
        return (vectors.detach() @ codes.T - codes.square().sum(-1) / 2).argmax(-1)

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator | None = None) -> None:
        """Puts each code on one of the vectors `[N, D]`."""
        self._restart(torch.ones_like(self.count, dtype=torch.bool), vectors, generator)

    @torch.no_grad()
    def follow(
        self, vectors: Tensor, nearest: Tensor, generator: torch.Generator | None = None
    ) -> None:
        """Moves the codes after a mini-batch.

        Args:
            vectors: float `[N, D]`.
            nearest: int64 `[N]`, the code of each.
            generator: Source of randomness.
        """
        ours = nn.functional.one_hot(nearest, len(self.count)).to(vectors.dtype)
        self.count.lerp_(ours.sum(0), 1 - self.decay)
        self.total.lerp_(ours.T @ vectors, 1 - self.decay)
        self._restart(self.count < DEAD * len(vectors) / len(self.count), vectors, generator)

    def _restart(self, which: Tensor, vectors: Tensor, generator: torch.Generator | None) -> None:
        """Sets codes to what their averages say, those of bool `[K]` to vectors drawn anew."""
        size = (len(which),)
        drawn = torch.randint(len(vectors), size, generator=generator, device=vectors.device)
        even = len(vectors) / len(which)
        self.count.masked_fill_(which, even)
        self.total.copy_(torch.where(which[:, None], even * vectors[drawn], self.total))
        self._embedding[0].weight.copy_(self.total / self.count[:, None])
