"""Learners that improve a model on mini-batches without any policy."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from algorithms.batch_sampler import BatchSampler
from algorithms.minibatch_learner import MinibatchLearner
from algorithms.schedule import Schedule
from lvms.model import LatentVariableModel


class ModelLearner(MinibatchLearner):
    """Learns a model alone, each update one step of Adam down a loss of a mini-batch.

    Attributes:
        optimizer: Of the model's parameters.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int = 32,
        model_rate: Schedule | float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float = math.inf,
        sampler: BatchSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchLearner`.

        Args:
            model: The model.
            num_updates: How many mini-batches there are to be.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            model_rate: Adam's learning rate.
            betas: Adam's; see `ScheduledAdam`.
            max_norm: Longer gradients are scaled down to this norm.
            sampler: Chooses the mini-batches; with replacement by default.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers do not fit together.
        """
        super().__init__(
            model, num_updates=num_updates, rounds=rounds, batch_size=batch_size,
            sampler=sampler, generator=generator,
        )  # fmt: skip
        self.optimizer = self.adam((model.parameters(), model_rate), betas=betas, max_norm=max_norm)
        self._evaluations = 0

    @property
    def likelihood_evaluations(self) -> int:
        """How many times log p(x, z) has been evaluated to infer z; an exact sum over z is one."""
        return self._evaluations

    @abstractmethod
    def loss(self, x: Tensor, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes what an update makes smaller, and counts its evaluations.

        Args:
            x: Observations, `[B, ...]`.
            ids: int64 `[B]`, which observations of the data they are.

        Returns:
            A scalar, and further scalars without gradient for the log.
        """

    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Makes one step of Adam; see `MinibatchLearner.step`."""
        loss, metrics = self.loss(x, ids)
        self.optimizer.descend(loss)
        self.model.mark_updated()
        return {"loss": loss.detach(), **metrics}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {**super().state_dict(), "likelihood_evaluations": self._evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self._evaluations = state["likelihood_evaluations"]
