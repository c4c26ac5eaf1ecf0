"""What methods of all such tasks are given: for how long and on what they learn."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.schedule import Schedule, falling

SLOWED_SHARE = 0.4
"""Over the last so much of the updates learning rates fall."""

FEWEST_TURNS = 20
"""So many turns of policy and model, at the least, a short run is divided into."""


@dataclass(frozen=True, kw_only=True)
class HeldOutProblem:
    """The training data and the budget; subclasses add the model.

    Attributes:
        x: The training data, `[N, ...]`.
        num_updates: How many mini-batches there will be.
        rounds: Over how many calls of `Learner.update` they are spread.
        batch_size: Observations a mini-batch.
        generator: The source of everything random, seeded for this method alone.
    """

    x: Tensor
    num_updates: int
    rounds: int
    batch_size: int
    generator: torch.Generator

    @property
    def schedule(self) -> dict[str, Any]:
        """How long and on what a `MinibatchLearner` learns: arguments of its own."""
        return {
            "num_updates": self.num_updates,
            "rounds": self.rounds,
            "batch_size": self.batch_size,
            "generator": self.generator,
        }

    def slowed(self, rate: float) -> Schedule:
        """Keeps a learning rate for most of the updates and lets it fall over the last ones."""
        last = max(1, int(SLOWED_SHARE * self.num_updates))
        return falling(rate, self.num_updates - last, self.num_updates)

    def turn(self, updates: int) -> int:
        """Shortens a turn of policy or model where the run would have too few of them."""
        return max(1, min(updates, self.num_updates // FEWEST_TURNS))
