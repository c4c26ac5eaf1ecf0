"""Training against a power of the reward."""

from typing import Any

from algorithms.exploration import Exploration, OnPolicy, TrainingStep
from algorithms.schedule import Linear, Schedule, as_schedule, require_positive
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError


class TemperedReward(Exploration):
    """Trajectories of another exploration, rewarded with beta log R instead of log R.

    The policy then learns p(z | x)^beta, normalised. An early beta below 1 levels the posterior's
    peaks until the policy has found them; only at beta = 1 is the posterior itself the aim. It is
    the reward exponent of Bengio, Jain, Korablyov, Precup, Bengio: "Flow network based generative
    models for non-iterative diverse candidate generation", NeurIPS 2021, made a schedule. Moves
    inside the other exploration that look at rewards see log R.

    Every objective that reads rewards takes its aim from them alone, forward-looking ones too:
    their partial scores are not tempered, and need not be. With `RelativeBalance`, whose R leaves
    log p(z) out, the aim is p(z) p(x | z)^beta. An objective that reads none and asks for samples
    of the posterior, as `ForwardKL` does, would learn the posterior itself, and is refused.

    It changes what is learned, so it must be the outermost: half of a batch against beta log R and
    half against log R would agree on no policy.
    """

    tempers_reward = True

    def __init__(
        self,
        exploration: Exploration | None = None,
        beta: Schedule | float | None = None,
        *,
        per_m_step: bool = False,
    ) -> None:
        """Takes the exploration and the power.

        Args:
            exploration: Where trajectories come from; on-policy by default.
            beta: A positive number, or a schedule of such numbers over updates; by default a
                straight line from 0.1 to 1 over the first 500.
            per_m_step: Whether the schedule is over M-steps instead, so that beta stays the same
                within an E-step: deterministic annealing, see `ExactEStep`.

        Raises:
            UserError: If beta is not positive at the start or in the end, or the exploration has
                a tempered reward itself.
        """
        self.exploration = exploration or OnPolicy()
        refuse_tempered_reward(self.exploration)
        self.on_policy = self.exploration.on_policy
        self.one_per_x = self.exploration.one_per_x
        self.beta = Linear(0.1, 1.0, 500) if beta is None else as_schedule(beta)
        self.per_m_step = per_m_step
        require_positive("beta", self.beta)

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Draws trajectories and sets their log reward; see `Exploration.sample`."""
        batch = self.exploration.sample(step)
        beta = self.beta.at(step.m_steps if self.per_m_step else step.update)
        # Stamped with the current version, so the E-step keeps it.
        batch.log_reward = beta * batch.ensure_log_reward(step.reward)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Returns the other exploration's; see `Exploration.state_dict`."""
        return self.exploration.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.exploration.load_state_dict(state)


def refuse_tempered_reward(*parts: Exploration) -> None:
    """Raises a UserError if one of the parts of an exploration is a TemperedReward."""
    if any(isinstance(part, TemperedReward) for part in parts):
        raise UserError(
            "A TemperedReward must be the outermost exploration: trajectories with different "
            "rewards agree on no policy. Put it around the whole."
        )
