"""Detailed balance."""

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.backward_policy import default_backward_policy
from algorithms.objective import LossOutput, Objective
from algorithms.policy import HasStateFlow, Policy
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class DetailedBalance(Objective):
    """Squared residual of F(s; x) P_F(s' | s, x) = F(s'; x) P_B(s | s', x), every transition.

    Bengio, Lahlou, Deleu, Hu, Tiwari, Bengio: "GFlowNet foundations", JMLR 2023, section 3.2,
    with flows that depend on x. `transition_residuals` says what the transitions are.
    """

    def require_policy(self, policy: Policy) -> None:
        """Asks for a `state_flow`; see `Objective.require_policy`."""
        require_state_flow(self, policy)

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the mean loss over all transitions of the batch; see `Objective.loss`.

        `per_trajectory` is the mean over each trajectory's own transitions.

        Raises:
            UserError: If the policy has no `state_flow`.
        """
        residual, count = transition_residuals(self, env, policy, batch)
        cost = self.residual_loss(residual).sum(0)
        loss = cost.sum() / count.sum().clamp_min(1)
        return LossOutput(loss, cost.detach() / count.clamp_min(1))


def transition_residuals(
    objective: Objective, env: LatentEnv, policy: Policy, batch: TrajectoryBatch
) -> tuple[Tensor, Tensor]:
    """Computes log F(s) + log P_F(s' | s) - log F(s') - log P_B(s | s') of every transition.

    Where exit is forced, the flow through a complete state z is known, F(z; x) = R(z; x): it
    stands for log F(s') in the last action's residual, and exit is no transition. Where exit is
    optional it is one, with residual log F(z) + log P_F(exit | z) - log R(z; x). The sum over a
    whole trajectory is the residual of trajectory balance, with log F(s_0) for log Z(x).

    Args:
        objective: For its backward policy.
        env: The environment.
        policy: The policy being trained.
        batch: Trajectories with `log_pf` (with gradient) and `log_reward`.

    Returns:
        The residuals, float `[E, N]`, nats, 0 after each trajectory's last transition; and its
        number of transitions, int64 `[N]`. E is T, and T + 1 where exit is optional.

    Raises:
        UserError: If the policy has no `state_flow`.
        ValueError: If the batch has not been scored or has no log reward.
    """
    flows = require_state_flow(objective, policy)
    if batch.log_pf is None or batch.memory is None:
        raise ValueError("This batch has no log_pf: score it first (algorithms.rollout.score).")
    if batch.log_reward is None:
        raise ValueError("This batch has no log_reward: call ensure_log_reward first.")
    backward = objective.backward or default_backward_policy(env)
    log_ratio = batch.log_pf - backward.log_prob(env, policy, batch)
    exits = batch.log_pf_exit is not None
    num_transitions = len(batch.actions) + exits
    count = batch.lengths + exits
    time = torch.arange(num_transitions, device=batch.rows.device)[:, None]
    last = time == count - 1
    if batch.log_pf_exit is not None:
        log_ratio = torch.where(last, batch.log_pf_exit, F.pad(log_ratio, (0, 0, 0, 1)))
    # The state before each transition. Padding is scored and dropped: picking it out first would
    # make the device wait.
    state = batch.states[:num_transitions].flatten(0, 1)
    log_flow = flows.state_flow(state, batch.memory, batch.rows.repeat(num_transitions))
    log_flow = log_flow.view(num_transitions, len(batch))
    following = torch.cat([log_flow, batch.log_reward[None]])[1:]
    following = torch.where(last, batch.log_reward, following)
    return torch.where(time < count, log_flow + log_ratio - following, 0.0), count


def require_state_flow(objective: Objective, policy: Policy) -> HasStateFlow:
    """Returns a policy as one with state flows.

    Raises:
        UserError: If it has no `state_flow`.
    """
    if not isinstance(policy, HasStateFlow):
        raise UserError(
            f"{type(policy).__name__} has no state_flow, which {type(objective).__name__} needs; "
            "add one or use TrajectoryBalance or VarGrad."
        )
    return policy
