"""Trajectory balance."""

from typing import Any

from algorithms.objective import LossOutput, Objective
from algorithms.policy import HasLogPartition, Policy, supports
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class TrajectoryBalance(Objective):
    """Squared residual of log Z(x) + log P_F(tau) = log R(z; x) + log P_B(tau | z).

    Malkin, Jain, Bengio, Sun, Bengio: "Trajectory balance: improved credit assignment in
    GFlowNets", NeurIPS 2022, equation 14, with log Z a learned function of x, as posteriors of
    many observations need.
    """

    def require_policy(self, policy: Policy) -> None:
        """Asks for a `log_partition`; see `Objective.require_policy`."""
        if not supports(type(policy), HasLogPartition):
            raise UserError(
                f"{type(policy).__name__} has no log_partition, which trajectory balance needs; "
                "add one or use VarGrad."
            )

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the mean loss of the residuals; see `Objective.loss`.

        Raises:
            UserError: If the policy has no `log_partition`.
        """
        self.require_policy(policy)
        if batch.memory is None:
            raise ValueError("This batch has no memory: score it first (algorithms.rollout.score).")
        learned: Any = policy
        log_z = learned.log_partition(batch.memory).index_select(0, batch.rows)
        loss = self.residual_loss(log_z + self.log_ratio(env, policy, batch))
        return LossOutput(loss.mean(), loss.detach())
