"""Backward policies: how a structure with many build orders shares its reward among them."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from algorithms.policy import HasBackwardPolicy, Memory, Policy
from algorithms.softmax import log_softmax
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.backward_walk import walk_backward
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class BackwardPolicy(ABC):
    """P_B(s | s'), whose product along a trajectory is P_B(tau | z)."""

    @abstractmethod
    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Scores each move of each trajectory backward.

        Args:
            env: The environment.
            policy: The forward policy, which may share its networks.
            batch: The trajectories, scored (`memory` is set).

        Returns:
            float `[T, N]`, nats, 0 after each row's length.
        """

    def total(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor | float:
        """Sums `log_prob` over each trajectory: log P_B(tau | z), float `[N]`, nats."""
        return self.log_prob(env, policy, batch).sum(0)

    @abstractmethod
    def sample(
        self,
        env: LatentEnv,
        policy: Policy,
        memory: Memory,
        rows: Tensor,
        context: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws a trajectory to each structure from P_B(tau | z).

        Args:
            env: The environment.
            policy: The forward policy, which may share its networks.
            memory: What `policy.encode` returned.
            rows: int64 `[N]`, the observation of each structure.
            context: int64 `[N, C]`.
            z: Complete states, int64 `[N, S]`.
            generator: Source of randomness.

        Returns:
            actions, int64 `[T, N]`, padded with -1 after each row's length, and lengths,
            int64 `[N]`.
        """


class _UniformOverTrajectories(BackwardPolicy):
    """What is common where every trajectory to a structure is as likely."""

    def sample(
        self,
        env: LatentEnv,
        policy: Policy,
        memory: Memory,
        rows: Tensor,
        context: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws trajectories by `env.sample_trajectory_to`; see `BackwardPolicy.sample`."""
        return env.sample_trajectory_to(z, context, generator)


class _StepByStep(BackwardPolicy):
    """What is common where backward actions are drawn one after the other."""

    @abstractmethod
    def logits(self, policy: Policy, memory: Memory, rows: Tensor, state: Tensor) -> Tensor | None:
        """Scores every backward action, float `[N, A]`; None for all alike."""

    @torch.no_grad()
    def sample(
        self,
        env: LatentEnv,
        policy: Policy,
        memory: Memory,
        rows: Tensor,
        context: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws trajectories step by step; see `BackwardPolicy.sample`."""

        def draw(state: Tensor, mask: Tensor) -> Tensor:
            logits = self.logits(policy, memory, rows, state)
            weight = mask.float()
            if logits is not None:
                lowest = torch.finfo(logits.dtype).min
                weight = logits.masked_fill(~mask, lowest).softmax(-1)
            cumulative = weight.cumsum(-1)
            uniform = torch.rand(len(z), 1, generator=generator, device=z.device) * (1 - 2.0**-22)
            drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
            return drawn.squeeze(-1).clamp_max(env.num_actions - 1)  # where nothing is legal

        return walk_backward(env, z, context, draw)


class TreeBackward(_UniformOverTrajectories):
    """P_B = 1, for environments in which every state has a single parent."""

    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Returns zeros `[T, N]`; see `BackwardPolicy.log_prob`.

        Raises:
            UserError: If the environment is not declared a tree.
        """
        total = self.total(env, policy, batch)
        return torch.full(batch.actions.shape, total, device=batch.actions.device)

    def total(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> float:
        """Returns 0; see `BackwardPolicy.total`.

        Raises:
            UserError: If the environment is not declared a tree.
        """
        if not env.is_tree:
            raise UserError(
                f"{type(env).__name__} is not a tree: P_B = 1 would count each structure once for "
                "every order that builds it. Use UniformActions or another backward policy."
            )
        return 0.0


class UniformActions(_StepByStep):
    """P_B uniform over the legal backward actions of each state."""

    def logits(self, policy: Policy, memory: Memory, rows: Tensor, state: Tensor) -> None:
        """Scores all actions alike."""

    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Returns minus the log number of parents `[T, N]`; see `BackwardPolicy.log_prob`."""
        horizon, num = batch.actions.shape
        states, context = batch.states[1:].flatten(0, 1), batch.context.repeat(horizon, 1)
        parents = env.num_parents(states, context).view(horizon, num)
        return torch.where(batch.actions >= 0, -parents.clamp_min(1).log(), 0.0)


class UniformTrajectories(_UniformOverTrajectories):
    """P_B uniform over the trajectories to each structure: P_B(s | s') = N(s) / N(s')."""

    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Returns log N(s) - log N(s') `[T, N]`; see `BackwardPolicy.log_prob`."""
        visits, num = batch.states.shape[:2]
        flat_context = batch.context.repeat(visits, 1)
        log_count = env.log_num_trajectories(batch.states.flatten(0, 1), flat_context)
        log_count = log_count.view(visits, num)
        return torch.where(batch.actions >= 0, log_count[:-1] - log_count[1:], 0.0)


class LearnedBackward(_StepByStep):
    """P_B from the policy's own `backward_logits`, learned jointly with P_F."""

    def log_prob(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> Tensor:
        """Returns the log-softmax over legal actions `[T, N]`; see `BackwardPolicy.log_prob`."""
        if batch.memory is None:
            raise ValueError("This batch has no memory: score it first (algorithms.rollout.score).")
        horizon, num = batch.actions.shape
        states, context = batch.states[1:].flatten(0, 1), batch.context.repeat(horizon, 1)
        logits = self.logits(policy, batch.memory, batch.rows.repeat(horizon), states)
        padding = batch.actions.reshape(-1, 1) < 0
        mask = env.backward_mask(states, context) | padding
        log_prob = log_softmax(torch.where(mask, logits, -torch.inf))
        chosen = log_prob.gather(1, batch.actions.clamp_min(0).reshape(-1, 1)).view(horizon, num)
        return torch.where(batch.actions >= 0, chosen, 0.0)

    def logits(self, policy: Policy, memory: Memory, rows: Tensor, state: Tensor) -> Tensor:
        """Asks the policy, float `[N, A]`.

        Raises:
            UserError: If the policy has no `backward_logits`.
        """
        return require_backward_policy(policy).backward_logits(state, memory, rows)


def require_backward_policy(policy: Policy) -> HasBackwardPolicy:
    """Returns a policy as one that learns P_B too.

    Raises:
        UserError: If it has no `backward_logits`.
    """
    if not isinstance(policy, HasBackwardPolicy):
        raise UserError(f"{type(policy).__name__} has no backward_logits to learn P_B with.")
    return policy


def default_backward_policy(env: LatentEnv) -> BackwardPolicy:
    """Returns P_B = 1 for a tree, and P_B uniform over legal actions otherwise."""
    return TreeBackward() if env.is_tree else UniformActions()
