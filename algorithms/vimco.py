"""VIMCO: the importance-weighted bound, with a baseline from the other samples."""

import torch
from torch import Tensor

from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.reverse_kl import leave_one_out
from algorithms.reweighted_wake import log_sum_per_observation
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.latent_env import LatentEnv


class VIMCO(Objective):
    """-E[log (1 / K) sum_k w_k], w_k = R(z_k; x) P_B(tau_k | z_k) / P_F(tau_k | x), for each x.

    With L the log of the mean, and L_k the same with log w_k replaced by the mean of the others',
    the gradient is estimated by

        -sum_k (L - L_k + 1 / K) grad log P_F(tau_k) + w_k / (sum_j w_j) grad log w_k.

    Mnih, Rezende: "Variational inference for Monte Carlo objectives", ICML 2016, but for the 1 / K.
    That changes nothing in expectation and lets the estimate vanish at the posterior, where all w
    agree, which the paper's does not. An M-step that is `reweighted` by the same w (see
    `MinibatchEM`) is the bound's gradient in the model.

    The loss's value is the mean -L. A `residual_loss` has no part in it.
    """

    on_policy_only = True
    min_samples_per_x = 2

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Averages over observations; see `Objective.loss`.

        `per_trajectory` is -log w_k; the metric is `iwae_bound`, the mean L, nats.

        Raises:
            UserError: If an observation that has trajectories has only one.
        """
        ratio = self.log_ratio(env, policy, batch)
        log_w = -ratio.detach()
        others = log_w - leave_one_out(log_w, batch)
        count = torch.bincount(batch.rows, minlength=len(batch.x))
        present = count > 0
        log_total = log_sum_per_observation(log_w, batch)
        share = (log_w - log_total[batch.rows]).exp()
        without = torch.logaddexp(_log_rest(log_w, share, log_total, batch), others)
        signal = log_total[batch.rows] - without + 1 / count[batch.rows]
        surrogate = (share * ratio - signal * batch.total_log_pf()).sum() / present.sum()
        bound = (log_total - count.log())[present].mean()
        loss = surrogate - surrogate.detach() - bound
        return LossOutput(loss, -log_w, {"iwae_bound": bound})


def _log_rest(log_w: Tensor, share: Tensor, log_total: Tensor, batch: TrajectoryBatch) -> Tensor:
    """Computes the log of the sum of each observation's other weights, float `[N]`.

    Taken from the sum, a weight that is nearly all of it would leave rounding errors. No more
    than one is over half of it, so that the others of those are summed without them.
    """
    large = share > 0.5
    small = log_sum_per_observation(log_w.masked_fill(large, -torch.inf), batch)
    return torch.where(large, small[batch.rows], log_total[batch.rows] + torch.log1p(-share))
