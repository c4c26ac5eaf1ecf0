"""Where an E-step's training trajectories come from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.backward_policy import BackwardPolicy
from algorithms.objective import Objective
from algorithms.policy import Policy
from algorithms.rollout import rollout
from algorithms.schedule import Schedule, as_schedule
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv
from lvms.model import LatentVariableModel
from lvms.reward import LVMReward


@dataclass(frozen=True)
class TrainingStep:
    """What one update of a policy has to do with.

    Attributes:
        model: The model whose posterior is sampled.
        reward: Its log reward; it counts what it evaluates.
        policy: The policy being trained.
        backward: The objective's backward policy.
        x: Observations, `[B, ...]`.
        ids: int64 `[B]`, which observations of the data they are.
        context: int64 `[B, C]`.
        rows: int64 `[N]`, the observation of each trajectory that is wanted.
        update: How many updates have been made so far, for schedules.
        m_steps: How many M-steps have been made so far, for schedules: 0 at fixed theta.
        generator: Source of randomness.
    """

    model: LatentVariableModel
    reward: LVMReward
    policy: Policy
    backward: BackwardPolicy
    x: Tensor
    ids: Tensor
    context: Tensor
    rows: Tensor
    update: int
    m_steps: int = 0
    generator: torch.Generator | None = None

    @property
    def env(self) -> LatentEnv:
        """Where the model's structures live."""
        return self.model.env


class Exploration(ABC):
    """A source of trajectories to train a policy on.

    Attributes:
        on_policy: Whether trajectories are drawn from the policy as it is, as some objectives
            need.
        posterior_samples: Whether structures are samples of the posterior, or with their x of the
            model's joint distribution, as others need.
        one_per_x: Whether some trajectories have an x that no other has, which objectives that
            compare those of one x cannot learn from.
        tempers_reward: Whether the reward is not p(x, z) but a power of it.
    """

    on_policy: bool = False
    posterior_samples: bool = False
    one_per_x: bool = False
    tempers_reward: bool = False

    @abstractmethod
    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Draws a training trajectory for each entry of `step.rows`.

        Args:
            step: What the update has to do with.

        Returns:
            Trajectories scored under `step.policy`, with gradient.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs; see `Learner.state_dict`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""


class EpsilonUniform(Exploration):
    """On-policy but for a share epsilon of actions drawn uniformly from the legal ones."""

    def __init__(self, epsilon: Schedule | float) -> None:
        """Takes the share of uniform actions.

        Args:
            epsilon: A number in 0 .. 1, or a schedule of such numbers over updates.

        Raises:
            UserError: If it is outside 0 .. 1.
        """
        self.epsilon = as_schedule(epsilon)
        if not 0.0 <= self.epsilon.at(0) <= 1.0:
            raise UserError(f"epsilon must lie in 0 .. 1; got {self.epsilon.at(0)}.")

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Draws trajectories; see `Exploration.sample`."""
        return rollout(
            step.env,
            step.policy,
            step.x,
            rows=step.rows,
            context=step.context,
            generator=step.generator,
            epsilon=self.epsilon.at(step.update),
            with_grad=True,
        )


class OnPolicy(EpsilonUniform):
    """Trajectories from the policy itself."""

    on_policy = True

    def __init__(self) -> None:
        super().__init__(0.0)


def require_fit(objective: Objective, exploration: Exploration, samples_per_x: int) -> None:
    """Raises a UserError if an objective is not right for what an exploration draws.

    Args:
        objective: The loss.
        exploration: Where its trajectories come from.
        samples_per_x: How many there are for each observation of an update.

    Raises:
        UserError: If the objective needs trajectories from the policy itself, or to samples of the
            posterior, where the exploration's are not, or more of them for each observation, or
            does not read the reward that the exploration tempers.
    """
    name, source = type(objective).__name__, type(exploration).__name__
    if objective.on_policy_only and not exploration.on_policy:
        raise UserError(
            f"{name} is right only for trajectories drawn from the policy itself; {source} would "
            "bias it. Use OnPolicy."
        )
    if objective.needs_posterior_samples and not exploration.posterior_samples:
        raise UserError(
            f"{name} is right only for samples of the posterior, as the sleep phase and exact "
            f"samples are; those of {source} are not."
        )
    if exploration.tempers_reward and not objective.reads_reward:
        raise UserError(f"{name} reads scores of the model's own, which {source} does not change.")
    if objective.min_samples_per_x > 1 and exploration.one_per_x:
        raise UserError(
            f"{name} needs several samples per x; some of {source} have an x of their own."
        )
    if samples_per_x < objective.min_samples_per_x:
        raise UserError(
            f"{name} needs at least {objective.min_samples_per_x} samples per x; "
            f"got {samples_per_x}."
        )
