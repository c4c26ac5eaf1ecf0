"""The one native type for trajectories."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.policy import Memory

if TYPE_CHECKING:
    from lvms.reward import LVMReward


@dataclass
class TrajectoryBatch:
    """N complete trajectories for B observations, several of them perhaps for the same one.

    Attributes:
        x: Observations, `[B, ...]`.
        rows: int64 `[N]`, the observation of each trajectory.
        context: int64 `[N, C]`.
        states: int64 `[T + 1, N, S]`; after its length a row repeats its last state.
        actions: int64 `[T, N]`, padded with -1 after each row's length; exit is not among them.
        lengths: int64 `[N]`, the number of actions before exit.
        log_pf: float `[T, N]`, log P_F of each action in nats, 0 after each row's length; None
            until scored. It carries the gradient where it was asked for.
        log_pf_exit: float `[N]`, log P_F of the exit in nats; None where every exit is forced.
        log_reward: float `[N]`, nats, true for `reward_version` only; None until asked for.
        reward_version: The version of the model's parameters that `log_reward` belongs to.
        memory: What the policy's `encode` returned for x, so that losses need not encode again.
    """

    x: Tensor
    rows: Tensor
    context: Tensor
    states: Tensor
    actions: Tensor
    lengths: Tensor
    log_pf: Tensor | None = None
    log_pf_exit: Tensor | None = None
    log_reward: Tensor | None = None
    reward_version: int | None = None
    memory: Memory | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def z(self) -> Tensor:
        """The complete structures, int64 `[N, S]`."""
        return self.states[-1]

    def total_log_pf(self) -> Tensor:
        """Sums log P_F over each trajectory, its exit included: float `[N]`, nats.

        Raises:
            ValueError: If the batch has not been scored.
        """
        if self.log_pf is None:
            raise ValueError("This batch has no log_pf: score it first (algorithms.rollout.score).")
        total = self.log_pf.sum(0)
        return total if self.log_pf_exit is None else total + self.log_pf_exit

    def ensure_log_reward(self, reward: "LVMReward") -> Tensor:
        """Returns the log reward under the current parameters, computing it only if stale.

        Args:
            reward: The reward.

        Returns:
            float `[N]`, nats.
        """
        if self.log_reward is None or self.reward_version != reward.version:
            self.log_reward = reward(self.x[self.rows], self.z)
            self.reward_version = reward.version
        return self.log_reward


def select(batch: TrajectoryBatch, which: Tensor | Sequence[int]) -> TrajectoryBatch:
    """Takes some of a batch's trajectories, on the same graph.

    Args:
        batch: The trajectories.
        which: bool `[N]`, or the numbers of those to take, in their order.

    Returns:
        A batch with the same x and memory.
    """

    def of(part: Tensor | None) -> Tensor | None:
        return None if part is None else part[which]

    return dataclasses.replace(
        batch,
        rows=batch.rows[which],
        context=batch.context[which],
        states=batch.states[:, which],
        actions=batch.actions[:, which],
        lengths=batch.lengths[which],
        log_pf=None if batch.log_pf is None else batch.log_pf[:, which],
        log_pf_exit=of(batch.log_pf_exit),
        log_reward=of(batch.log_reward),
    )


def concatenate(batches: Sequence[TrajectoryBatch]) -> TrajectoryBatch:
    """Puts batches for the same environment and policy one after the other.

    Batches whose x is the same tensor share its observations, so that all trajectories of one
    observation stay together; otherwise the observations are put one after the other too.
    Shorter trajectories are padded. What not all batches have (`log_pf`, `log_reward` of one
    version, `memory`) the result does not have.

    Args:
        batches: At least one.

    Returns:
        Their trajectories in order.
    """
    if len(batches) == 1:
        return batches[0]
    # Batches by the x they are for; each x and its memory is kept once.
    firsts: dict[int, TrajectoryBatch] = {}
    for batch in batches:
        firsts.setdefault(id(batch.x), batch)
    start, offset = 0, {}
    for key, first in firsts.items():
        offset[key] = start
        start += len(first.x)
    horizon = max(len(batch.actions) for batch in batches)
    missing = [horizon - len(batch.actions) for batch in batches]

    def padded(parts: Sequence[Tensor], value: float) -> Tensor:
        pairs = zip(parts, missing, strict=True)
        return torch.cat([F.pad(part, (0, 0, 0, pad), value=value) for part, pad in pairs], 1)

    states = [
        torch.cat([batch.states, batch.states[-1:].expand(pad, -1, -1)])
        for batch, pad in zip(batches, missing, strict=True)
    ]
    log_pf = _all([batch.log_pf for batch in batches])
    log_pf_exit = _all([batch.log_pf_exit for batch in batches])
    same_version = len({batch.reward_version for batch in batches}) == 1
    log_reward = _all([batch.log_reward for batch in batches]) if same_version else None
    memories = _all([batch.memory for batch in firsts.values()])
    return TrajectoryBatch(
        x=_joined([first.x for first in firsts.values()]),
        rows=torch.cat([batch.rows + offset[id(batch.x)] for batch in batches]),
        context=torch.cat([batch.context for batch in batches]),
        states=torch.cat(states, 1),
        actions=padded([batch.actions for batch in batches], -1),
        lengths=torch.cat([batch.lengths for batch in batches]),
        log_pf=None if log_pf is None else padded(log_pf, 0.0),
        log_pf_exit=None if log_pf_exit is None else torch.cat(log_pf_exit),
        log_reward=None if log_reward is None else torch.cat(log_reward),
        reward_version=None if log_reward is None else batches[0].reward_version,
        memory=None if memories is None else _joined(memories),
    )


def _all(parts: list[Any]) -> list[Any] | None:
    """Returns the parts, or None where one is missing."""
    return None if any(part is None for part in parts) else parts


def _joined(parts: Sequence[Any]) -> Any:
    """Concatenates tensors, or nested tuples of tensors, over observations; one is left as is.

    Where policies trim what they remember to the longest observation, zeros fill up the rest.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        if parts[0].dim() > 1:
            longest = max(part.shape[1] for part in parts)
            parts = [F.pad(p, (0, 0) * (p.dim() - 2) + (0, longest - p.shape[1])) for p in parts]
        return torch.cat(list(parts))
    return tuple(_joined(part) for part in zip(*parts, strict=True))
