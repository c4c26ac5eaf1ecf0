"""Which observations make a mini-batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor


class BatchSampler(ABC):
    """Chooses mini-batches so that each observation is as probable as any other.

    So the mean gradient of a batch is, on average over batches, that of all the data.
    """

    def begin_round(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Looks at the observations `[N, ...]` before the first mini-batch of a round."""

    @abstractmethod
    def draw(self, x: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws a mini-batch.

        Args:
            x: The observations that the round began with, `[N, ...]`.
            size: B, at most N.
            generator: Source of randomness.

        Returns:
            Indices of observations, int64 `[B]`.
        """


class WithReplacement(BatchSampler):
    """Any observations, each drawn by itself."""

    def draw(self, x: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws a mini-batch; see `BatchSampler.draw`."""
        return torch.randint(len(x), (size,), generator=generator, device=x.device)


class SimilarSizes(BatchSampler):
    """Neighbours in order of size, for observations that cost as much as the largest beside them.

    The order among equals is drawn anew each round. A batch begins anywhere, and one that comes to
    the end goes on at the beginning, so that each place is in as many batches as any other.
    """

    def __init__(self, size: Callable[[Tensor], Tensor]) -> None:
        """Takes a function from observations `[N, ...]` to their sizes `[N]`."""
        self.size = size
        self._order = torch.empty(0, dtype=torch.int64)

    def begin_round(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Sorts the observations; see `BatchSampler.begin_round`."""
        shuffled = torch.randperm(len(x), generator=generator, device=x.device)
        self._order = shuffled[self.size(x)[shuffled].argsort(stable=True)]

    def draw(self, x: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws a mini-batch of distinct observations; see `BatchSampler.draw`."""
        start = torch.randint(len(x), (1,), generator=generator, device=x.device)
        return self._order[(start + torch.arange(size, device=x.device)) % len(x)]
