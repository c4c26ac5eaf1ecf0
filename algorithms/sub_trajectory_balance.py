"""Sub-trajectory balance."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.backward_policy import BackwardPolicy
from algorithms.detailed_balance import require_state_flow, transition_residuals
from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.residual_loss import ResidualLoss, Squared
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv

WEIGHTINGS = ("geometric_within", "equal_within", "geometric", "equal")


class SubTrajectoryBalance(Objective):
    """Weighted mean of the squared residuals of all sub-trajectories.

    Sub-trajectory s_i .. s_j asks that log F(s_i) + sum log P_F = log F(s_j) + sum log P_B; its
    residual is the sum of those of its transitions (`detailed_balance.transition_residuals`).
    Madan, Rector-Brooks, Korablyov, Bengio, Jain, Nica, Bosc, Bengio, Malkin: "Learning GFlowNets
    from partial episodes for improved convergence and stability", ICML 2023. The weightings go by
    torchgfn's names:

    * `geometric_within`, the paper's SubTB(lambda): a sub-trajectory of l transitions weighs
      lambda^l, normalised within each trajectory; the loss is the mean over trajectories.
      lambda = 0 leaves single transitions, as detailed balance; a large one the whole trajectory,
      as trajectory balance.
    * `equal_within`: all alike within each trajectory; the same as lambda = 1.
    * `geometric`: the mean over all sub-trajectories of l transitions in the batch weighs
      lambda^l, normalised over the lengths that occur. (torchgfn's docstring says that each of
      them does; its code takes the means.)
    * `equal`: the mean over all sub-trajectories of the batch, so that long trajectories count
      more than short ones.

    torchgfn's others are objectives of their own here: "DB" is `DetailedBalance`, "ModifiedDB" is
    lambda = 0, and "TB" is `TrajectoryBalance`, with log Z(x) for log F(s_0; x).

    Attributes:
        lambda_: The weight of a sub-trajectory against that of one shorter by a transition.
        weighting: How sub-trajectories are weighted, one of `WEIGHTINGS`.
    """

    def __init__(
        self,
        backward: BackwardPolicy | None = None,
        residual_loss: ResidualLoss | None = None,
        lambda_: float = 0.9,
        weighting: str = "geometric_within",
    ) -> None:
        """Chooses the weights.

        Args:
            backward: The backward policy; see `Objective`.
            residual_loss: What a residual costs; see `Objective`.
            lambda_: At least 0; the equal weightings do not read it.
            weighting: One of `WEIGHTINGS`.

        Raises:
            UserError: If lambda is negative or not finite, or the weighting is unknown.
        """
        super().__init__(backward, residual_loss)
        if not 0 <= lambda_ < math.inf:
            raise UserError(f"lambda_ must be a finite number of at least 0; got {lambda_}.")
        if weighting not in WEIGHTINGS:
            raise UserError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}.")
        self.lambda_ = lambda_
        self.weighting = weighting

    def require_policy(self, policy: Policy) -> None:
        """Asks for a `state_flow`; see `Objective.require_policy`."""
        require_state_flow(self, policy)

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the weighted mean; see `Objective.loss`.

        `per_trajectory` is each trajectory's share of the loss, times the number of trajectories.

        Raises:
            UserError: If the policy has no `state_flow`.
        """
        residual, count = transition_residuals(self, env, policy, batch)
        time = torch.arange(len(residual), device=residual.device)
        base = self.lambda_ if self.weighting.startswith("geometric") else 1.0
        weight = base ** time.to(residual.dtype)  # of 1, 2, ... transitions
        if self.weighting == "geometric":
            # n transitions make n + 1 - l sub-trajectories of l transitions.
            number = (count - time[:, None]).clamp_min(0).sum(1)
            weight = torch.where(number > 0, weight / number.clamp_min(1), 0.0)
        if type(self.residual_loss) is not Squared:
            cost = _sum_of_losses(residual, count, weight, self.residual_loss)
        elif self.weighting == "geometric":
            cost = _sum_of_squares(residual, count, weight)
        else:
            cost = _geometric_sum_of_squares(residual, count, weight)
        # A trajectory's weights sum to: of 1 transition w_1, of 2 w_1 + (w_1 + w_2), ...
        total_weight = F.pad(weight.cumsum(0).cumsum(0), (1, 0))[count]
        if not self.weighting.endswith("within"):
            total_weight = total_weight.mean()
        # A structure that is complete at the start has no sub-trajectory, and costs 0.
        loss = cost / torch.where(total_weight > 0, total_weight, 1.0)
        return LossOutput(loss.mean(), loss.detach())


def _geometric_sum_of_squares(residual: Tensor, count: Tensor, power: Tensor) -> Tensor:
    """Sums lambda^(j - i - 1) (residual_i + ... + residual_(j - 1))^2 over all i < j.

    Multiplied out, transitions s <= t of the same trajectory meet in the sub-trajectories that
    begin by s and end after t, whose weights sum to lambda^(t - s) A(s + 1) A(n - t), where
    A(k) = 1 + lambda + ... + lambda^(k - 1). So a matrix product takes the place of a table of
    all sub-trajectories, which took about 20 times as long at 64 steps of 1024 trajectories.

    Args:
        residual: float `[E, N]`, nats, 0 after each trajectory's last transition.
        count: int64 `[N]`, n.
        power: float `[E]`, the powers of lambda from 0 on.

    Returns:
        float `[N]`.
    """
    time = torch.arange(len(residual), device=residual.device)[:, None]
    together = power[(time - time.T).abs()]
    # Each pair s < t occurs twice.
    together = together.tril() + together.tril(-1)
    geometric = F.pad(power.cumsum(0), (1, 0))
    begun = residual * geometric[time + 1]
    ended = residual * geometric[(count - time).clamp_min(0)]
    return (ended * (together @ begun)).sum(0)


def _sum_of_squares(residual: Tensor, count: Tensor, weight: Tensor) -> Tensor:
    """Sums weight(j - i) (residual_i + ... + residual_(j - 1))^2 over all i < j.

    For weights that are not powers. With c the cumulative residuals, a sub-trajectory's is
    c_j - c_i, and the sum is that of c_i^2 times all weights of those that begin or end at i, less
    that of weight(|j - i|) c_i c_j. It takes about one and a half times as long as
    `_geometric_sum_of_squares`, and cancels some digits more.

    Args:
        residual: float `[E, N]`, nats, 0 after each trajectory's last transition.
        count: int64 `[N]`, n.
        weight: float `[E]`, that of 1, 2, ... transitions.

    Returns:
        float `[N]`.
    """
    time = torch.arange(len(residual) + 1, device=residual.device)[:, None]
    visited = time <= count
    cumulative = torch.where(visited, F.pad(residual.cumsum(0), (0, 0, 1, 0)), 0.0)
    together = F.pad(weight, (1, 0))[(time - time.T).abs()]
    up_to = F.pad(weight.cumsum(0), (1, 0))
    touching = up_to[time] + up_to[(count - time).clamp_min(0)]
    return (cumulative * (touching * cumulative - together @ cumulative)).sum(0)


def _sum_of_losses(
    residual: Tensor, count: Tensor, weight: Tensor, residual_loss: ResidualLoss
) -> Tensor:
    """Sums weight(j - i) loss(residual_i + ... + residual_(j - 1)) over all i < j.

    For losses that do not multiply out: it holds all E (E + 1) / 2 sub-trajectories at once. See
    `_sum_of_squares`.
    """
    cumulative = F.pad(residual.cumsum(0), (0, 0, 1, 0))
    # Unlike indexing, index_select has a gradient that does not sort.
    start, end = torch.triu_indices(
        len(cumulative), len(cumulative), offset=1, device=residual.device
    )
    between = cumulative.index_select(0, end) - cumulative.index_select(0, start)
    weight = torch.where(end[:, None] <= count, weight[end - start - 1, None], 0.0)
    return (weight * residual_loss(between)).sum(0)
