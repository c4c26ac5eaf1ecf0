"""Several explorations at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from algorithms.exploration import Exploration, TrainingStep
from algorithms.explorations import explorations
from algorithms.row_groups import split_rows
from algorithms.schedule import Schedule, as_schedule
from algorithms.tempered_reward import refuse_tempered_reward
from algorithms.trajectory_batch import TrajectoryBatch, concatenate
from gfn_envs.errors import UserError


class Mixture(Exploration):
    """Each observation's trajectories shared out among other explorations by weight.

    Of the n trajectories of an observation a part of weight w (of a total of 1) draws w n, rounded
    down or up at random. Rewards are those of the parts, computed once.
    """

    def __init__(
        self,
        parts: Sequence[Exploration | str],
        weights: Sequence[Schedule | float] | None = None,
    ) -> None:
        """Takes the parts.

        Args:
            parts: Explorations, or the names of registered ones.
            weights: A weight of at least 0 for each, or a schedule of such numbers over updates;
                they need not sum to 1. All alike by default.

        Raises:
            UserError: If there is no part, not one weight for each, a weight is negative, all are
                zero, or a part has a tempered reward.
        """
        made = [explorations.make(part) if isinstance(part, str) else part for part in parts]
        self.parts: list[Exploration] = made
        self.weights = [as_schedule(w) for w in ([1.0] * len(made) if weights is None else weights)]
        if not made or len(self.weights) != len(made):
            raise UserError(
                f"A Mixture needs parts and one weight for each; got {len(made)} parts and "
                f"{len(self.weights)} weights."
            )
        for update in (0, 10**12):
            self._weights_at(update)
        refuse_tempered_reward(*made)
        self.on_policy = all(part.on_policy for part in made)
        self.posterior_samples = all(part.posterior_samples for part in made)
        self.one_per_x = any(part.one_per_x for part in made)

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Lets each part draw its share; see `Exploration.sample`."""
        weights = torch.tensor(self._weights_at(step.update), dtype=torch.float64)
        part_of = split_rows(step.rows, weights.to(step.rows.device), step.generator)
        batches = []
        for index, part in enumerate(self.parts):
            rows = step.rows[part_of == index]
            if len(rows):
                batches.append(part.sample(replace(step, rows=rows)))
                # Some parts know their rewards already: now all do, and none is computed twice.
                batches[-1].ensure_log_reward(step.reward)
        return concatenate(batches)

    def _weights_at(self, update: int) -> list[float]:
        """Returns the weights at one update.

        Raises:
            UserError: If one is negative or all are zero.
        """
        weights = [schedule.at(update) for schedule in self.weights]
        if not min(weights) >= 0.0 or not 0.0 < sum(weights) < float("inf"):
            raise UserError(
                f"The weights of a Mixture must be at least 0 and not all 0; got {weights}."
            )
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Returns the parts' in order; see `Exploration.state_dict`."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        for part, part_state in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(part_state)
