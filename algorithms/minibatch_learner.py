"""Learners that make many small updates, each on a few observations."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.batch_sampler import BatchSampler, WithReplacement
from algorithms.learner import Learner
from algorithms.schedule import Schedule, as_schedule, require_positive
from gfn_envs.errors import UserError
from lvms.model import ContrastivePrior, LatentVariableModel


class MinibatchLearner(Learner):
    """Learns a model by updates on mini-batches.

    A call of `update` is a round of many such updates, so that a run of hundreds of thousands has
    a few hundred rounds to be logged and saved between. Schedules count mini-batches.

    Attributes:
        model: The model being learned.
        updates: How many mini-batches there have been.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int,
        sampler: BatchSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up.

        Args:
            model: The model.
            num_updates: How many mini-batches there are to be in all.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch; all of them where there are fewer.
            sampler: Chooses them; any, with replacement, by default.
            generator: Source of randomness.

        Raises:
            UserError: If a number is below 1 or there are fewer updates than rounds.
        """
        if min(rounds, batch_size) < 1 or num_updates < rounds:
            raise UserError(
                "Training needs a batch_size of at least 1 and at least as many updates as rounds; "
                f"got {batch_size}, {num_updates} and {rounds}."
            )
        self.model = model
        self.num_updates = num_updates
        self.rounds = rounds
        self.batch_size = batch_size
        self.sampler = sampler or WithReplacement()
        self.generator = generator
        self.updates = 0
        self._rounds_done = 0
        self._optimizers: list[ScheduledAdam] = []

    @abstractmethod
    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Makes one update on a mini-batch.

        Args:
            x: Observations, `[B, ...]`.
            ids: int64 `[B]`, which observations of the data they are.

        Returns:
            Scalars without gradient for the log.
        """

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes a round of updates on x `[N, ...]`; see `Learner.update`.

        Returns:
            The means of the scalars that `step` returns.
        """
        self._rounds_done += 1
        until = self.num_updates * self._rounds_done // self.rounds
        self.sampler.begin_round(x, self.generator)
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        while self.updates < until:
            for optimizer in self._optimizers:
                optimizer.follow(self.updates)
            size = min(self.batch_size, len(x))
            ids = self.sampler.draw(x, size, self.generator)
            for name, value in self.step(x[ids], ids).items():
                sums[name] = sums[name] + value if name in sums else value
                counts[name] = counts.get(name, 0) + 1
            self.updates += 1
        return {name: (total / counts[name]).item() for name, total in sums.items()}

    def m_step_loss(self, log_joint: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        """Computes what the model is to make smaller, given structures of a mini-batch.

        Args:
            log_joint: log p(x, z), float `[N]`, nats, with gradient.
            z: Structures that stand for the posterior, int64 `[N, S]`.
            weight: Of each of them, float `[N]`, in all 1.

        Returns:
            The mean of -log p(x, z); beside it, if the model has a factor without a known
            normaliser, that factor's contrast. A scalar.
        """
        loss = -(weight * log_joint).sum()
        if isinstance(self.model, ContrastivePrior):
            loss = loss + self.model.contrastive_loss(z, weight, self.generator)
        return loss

    def adam(
        self,
        *groups: tuple[Iterable[nn.Parameter], Schedule | float],
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float = math.inf,
    ) -> "ScheduledAdam":
        """Makes an optimiser whose rates follow schedules and whose state is saved.

        Args:
            *groups: Parameters, and their learning rate.
            betas: See `ScheduledAdam`.
            max_norm: See `ScheduledAdam`.
        """
        self._optimizers.append(ScheduledAdam(groups, betas, max_norm))
        return self._optimizers[-1]

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "updates": self.updates,
            "rounds": self._rounds_done,
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.updates = state["updates"]
        self._rounds_done = state["rounds"]
        if self.generator is not None:
            self.generator.set_state(state["generator"])


class ScheduledAdam(torch.optim.Adam):
    """Adam, fused, with a schedule of the learning rate for each group of parameters.

    Attributes:
        max_norm: Longer gradients, of all groups together, are scaled down to this norm.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Iterable[nn.Parameter], Schedule | float]],
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float = math.inf,
    ) -> None:
        """Takes the groups; those without parameters are left out.

        Args:
            groups: Parameters, and their learning rate.
            betas: Of the moving averages of the gradient and of its square.
            max_norm: See above.

        Raises:
            UserError: If a rate or the norm is not positive.
        """
        if not max_norm > 0:
            raise UserError(f"max_norm must be positive; got {max_norm}.")
        kept = [(list(parameters), as_schedule(rate)) for parameters, rate in groups]
        kept = [(parameters, rate) for parameters, rate in kept if parameters]
        self._rates = [rate for _, rate in kept]
        for rate in self._rates:
            require_positive("learning_rate", rate)
        self.max_norm = max_norm
        super().__init__(
            [{"params": parameters} for parameters, _ in kept], betas=betas, fused=True
        )

    def follow(self, updates: int) -> None:
        """Sets each group's rate to its schedule's after so many updates."""
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"] = rate.at(updates)

    def descend(self, loss: Tensor) -> None:
        """Makes one step down the gradient of a loss; see `step_clipped`."""
        self.zero_grad()
        loss.backward()
        self.step_clipped()

    def step_clipped(self) -> None:
        """Makes one step down the gradients that there are, scaled down if they are too long."""
        if self.max_norm < math.inf:
            parameters = [p for group in self.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.max_norm)
        self.step()
