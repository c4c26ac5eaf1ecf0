"""Learners that train a policy beside the model, to sample its posterior."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from algorithms.batch_sampler import BatchSampler
from algorithms.minibatch_learner import MinibatchLearner
from algorithms.policy import Policy
from lvms.model import LatentVariableModel


class AmortisedLearner(MinibatchLearner):
    """Learns a model with a policy that amortises its posterior, by updates on mini-batches.

    Attributes:
        policy: Samples z given x; it is learned too.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        policy: Policy,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int,
        sampler: BatchSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchLearner`.

        Args:
            model: The model.
            policy: The policy.
            num_updates: How many mini-batches there are to be in all.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            sampler: Chooses them; any, with replacement, by default.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers do not fit together.
        """
        super().__init__(
            model, num_updates=num_updates, rounds=rounds, batch_size=batch_size,
            sampler=sampler, generator=generator,
        )  # fmt: skip
        self.policy = policy

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {**super().state_dict(), "policy": self.policy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.policy.load_state_dict(state["policy"])


@runtime_checkable
class HasOwnBound(Protocol):
    """Bounds log p(x) by itself as long as its policy knows nothing to sample with."""

    def policy_is_learned(self) -> bool:
        """Says whether the policy has begun to learn, so that it can propose samples."""

    def own_bound(self, x: Tensor) -> Tensor:
        """Computes a lower bound of log p(x), float `[B]`, nats, for x `[B, ...]`."""
