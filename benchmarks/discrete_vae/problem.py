"""What a method of the discrete-VAE task is given: the same for every method of one seed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.code_grid_policy import CodeGridPolicy, RasterPolicy
from algorithms.schedule import Schedule, falling
from lvms.discrete_vae import DiscreteVAE

SLOWED_SHARE = 0.4
"""Over the last so much of the updates learning rates fall."""

FEWEST_TURNS = 20
"""So many turns of policy and model, at the least, a short run is divided into."""


@dataclass(frozen=True)
class Problem:
    """A model at its start, and what there is to learn it with.

    Attributes:
        model: The model, to be learned in place; it has been started at `x`.
        x: The training images, `[N, C, H, W]`.
        num_updates: How many mini-batches there will be.
        rounds: Over how many calls of `Learner.update` they are spread.
        batch_size: Images a mini-batch.
        channels: The channels of an image encoder.
        hidden: The width of a policy's other hidden layers.
        generator: The source of everything random, seeded for this method alone.
    """

    model: DiscreteVAE
    x: Tensor
    num_updates: int
    rounds: int
    batch_size: int
    channels: int
    hidden: int
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

    def make_policy(
        self, partition: str = "per-image", autoregressive: bool = True
    ) -> CodeGridPolicy:
        """Makes the policy that all methods but the paper's share, for the order of the model.

        See `RasterPolicy` and, for any order, `CodeGridPolicy`, which always sees other codes.
        """
        if autoregressive and not self.model.env.is_tree:
            return CodeGridPolicy(
                self.model.env, self.model.image_shape, self.channels, self.hidden,
                partition=partition,
            )  # fmt: skip
        return self.make_raster_policy(partition, autoregressive)

    def make_raster_policy(
        self, partition: str = "per-image", autoregressive: bool = True
    ) -> RasterPolicy:
        """Makes the policy of methods that need raster order; see `RasterPolicy`.

        Raises:
            UserError: If the model's order is another.
        """
        return RasterPolicy(
            self.model.env, self.model.image_shape, self.channels, self.hidden,
            partition=partition, autoregressive=autoregressive,
        )  # fmt: skip

    def slowed(self, rate: float) -> Schedule:
        """Keeps a learning rate for most of the updates and lets it fall over the last ones."""
        last = max(1, int(SLOWED_SHARE * self.num_updates))
        return falling(rate, self.num_updates - last, self.num_updates)

    def turn(self, updates: int) -> int:
        """Shortens a turn of policy or model where the run would have too few of them."""
        return max(1, min(updates, self.num_updates // FEWEST_TURNS))
