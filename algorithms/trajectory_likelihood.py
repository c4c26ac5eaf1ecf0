"""Trajectory likelihood maximisation: P_B learns to retrace what P_F does."""

import copy
import dataclasses

from torch import Tensor

from algorithms.backward_policy import LearnedBackward, require_backward_policy
from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class DetachedBackward(LearnedBackward):
    """The policy's own P_B, taken as given: no gradient reaches it."""

    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Scores moves without gradient, `[T, N]`; see `BackwardPolicy.log_prob`."""
        return super().log_prob(env, policy, batch).detach()


class TrajectoryLikelihoodMaximisation(Objective):
    """Another objective for P_F, with -E[log P_B(tau | z)] for P_B.

    P_F sees P_B as fixed, and P_B maximises the likelihood of the trajectories that P_F drew: it
    follows P_F(tau | z), so that P_F need not change the orders it builds in. Gritsaev, Morozov,
    Samsonov, Tiapkin: "Optimizing backward policies in GFlowNets via trajectory likelihood
    maximization", ICLR 2025. Here both updates are one step on the summed losses.
    Whatever P_B is, the minimum for P_F is the posterior; trajectories from elsewhere make P_B
    follow those, and do no other harm.

    Attributes:
        objective: The objective for P_F, a copy with P_B detached.
    """

    def __init__(self, objective: Objective | None = None) -> None:
        """Takes the objective for P_F.

        Args:
            objective: Trajectory balance by default. It must leave P_B open.

        Raises:
            UserError: If the objective comes with a backward policy.
        """
        objective = copy.copy(objective) if objective else TrajectoryBalance()
        if objective.backward is not None:
            raise UserError(
                f"This {type(objective).__name__} has a backward policy of its own; trajectory "
                "likelihood maximisation learns one. Leave it out."
            )
        objective.backward = DetachedBackward()
        super().__init__(LearnedBackward(), objective.residual_loss)
        self.objective = objective
        self.min_samples_per_x = objective.min_samples_per_x
        self.on_policy_only = objective.on_policy_only
        self.needs_posterior_samples = objective.needs_posterior_samples
        self.reads_reward = objective.reads_reward

    def require_policy(self, policy: Policy) -> None:
        """Asks for `backward_logits`, and for what the objective for P_F does."""
        require_backward_policy(policy)
        self.objective.require_policy(policy)

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Adds the two losses; see `Objective.loss`.

        `per_trajectory` is that of the objective for P_F; a further metric is `backward_nll`, the
        mean -log P_B(tau | z), nats.
        """
        output = self.objective.loss(env, policy, batch)
        backward_nll = -LearnedBackward().log_prob(env, policy, batch).sum(0).mean()
        metrics = {**output.metrics, "backward_nll": backward_nll.detach()}
        return dataclasses.replace(output, loss=output.loss + backward_nll, metrics=metrics)
