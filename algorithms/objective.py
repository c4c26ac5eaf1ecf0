"""What a GFlowNet objective is, and the residual that the trajectory objectives share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from algorithms.backward_policy import BackwardPolicy, default_backward_policy
from algorithms.policy import Policy
from algorithms.residual_loss import ResidualLoss, Squared
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.latent_env import LatentEnv


@dataclass(frozen=True)
class LossOutput:
    """What an objective returns.

    Attributes:
        loss: A scalar to minimise.
        per_trajectory: float `[N]`, each trajectory's share, without gradient.
        metrics: Further scalars for the log, without gradient.
        likelihood_evaluations: How often the loss has evaluated the model itself, beyond the log
            rewards that the batch came with: a cost of training.
    """

    loss: Tensor
    per_trajectory: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    likelihood_evaluations: int = 0


class Objective(ABC):
    """A loss on trajectories whose minimum is the posterior: P_F(z | x) = p(z | x).

    Attributes:
        backward: The backward policy; P_B = 1 on trees and uniform over legal backward actions
            elsewhere, unless another is given.
        residual_loss: What a residual costs; its square, unless another is given.
        min_samples_per_x: The fewest trajectories that each observation must have.
        on_policy_only: Whether trajectories from anywhere but the policy itself bias it.
        needs_posterior_samples: Whether it is right only for structures that are samples of the
            posterior, or with their x of the model's joint distribution.
        reads_reward: Whether it reads the trajectories' log reward, and not only the model itself.
    """

    min_samples_per_x: int = 1
    on_policy_only: bool = False
    needs_posterior_samples: bool = False
    reads_reward: bool = True

    def __init__(
        self, backward: BackwardPolicy | None = None, residual_loss: ResidualLoss | None = None
    ) -> None:
        self.backward = backward
        self.residual_loss = residual_loss or Squared()

    def require_policy(self, policy: Policy) -> None:
        """Raises a UserError if the loss would ask for what this kind of policy has not.

        So that it shows before any training. By default every policy will do.

        Args:
            policy: The policy to be trained.
        """

    @abstractmethod
    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the loss.

        Args:
            env: The environment.
            policy: The policy being trained.
            batch: Trajectories with `log_pf` (with gradient) and `log_reward`.

        Returns:
            The loss, which reaches the policy's parameters and no others.
        """

    def log_ratio(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Computes log P_F(tau) - log P_B(tau | z) - log R(z; x), float `[N]`, nats.

        At the posterior it is -log Z(x) on every trajectory.

        Raises:
            ValueError: If the batch has no log reward.
        """
        if batch.log_reward is None:
            raise ValueError("This batch has no log_reward: call ensure_log_reward first.")
        backward = self.backward or default_backward_policy(env)
        log_pb = backward.total(env, policy, batch)
        return batch.total_log_pf() - log_pb - batch.log_reward
