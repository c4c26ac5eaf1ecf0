"""What a policy is: it reads an observation once and scores actions many times."""

import functools
from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Memory = tuple[Any, ...]
"""What `Policy.encode` returns: a nested tuple of tensors whose first dimension is B."""


@functools.cache
def supports(kind: type, protocol: type) -> bool:
    """Says whether a class has what a protocol asks for.

    The same as `isinstance` of its instances, which takes as long as a small network every time.
    """
    return issubclass(kind, protocol)


class Policy(nn.Module, ABC):
    """A forward policy P_F(action | state, x) that encodes x once for a whole batch.

    Attributes:
        scores_in_parallel: Whether rollouts sample without gradient and score all steps afterwards,
            however many trajectories there are: of a policy with cached decoding, because it scores
            steps side by side, not one after another as a recurrence does; of another, because
            objectives then find again what was read for P_F.
    """

    scores_in_parallel: bool = False

    @abstractmethod
    def encode(self, x: Tensor) -> Memory:
        """Reads the observations.

        Args:
            x: `[B, ...]`.

        Returns:
            Whatever `logits` needs of them, each tensor with leading dimension B.
        """

    @abstractmethod
    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action, without masking.

        Args:
            state: int64 `[N, S]`.
            memory: What `encode` returned for B observations.
            rows: int64 `[N]`, which observation each state belongs to.

        Returns:
            float `[N, A + 1]`, exit last.
        """


@runtime_checkable
class HasLogPartition(Protocol):
    """Learns log Z(x), which trajectory balance needs."""

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x) = log p(x), float `[B]`, nats."""


@runtime_checkable
class HasBackwardPolicy(Protocol):
    """Learns P_B(action | next state, x), for structures with many build orders."""

    def backward_logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action as the last one taken, without masking, float `[N, A]`."""


@runtime_checkable
class CachedDecoding(Protocol):
    """Scores actions given those already taken, without reading the state anew at each step.

    Only for trees: elsewhere the order of the actions is not part of the state, and a policy must
    not depend on it. `logits` must agree.
    """

    def begin(self, memory: Memory, rows: Tensor) -> tuple[Any, Tensor]:
        """Starts N trajectories at the initial state.

        Args:
            memory: What `encode` returned.
            rows: int64 `[N]`.

        Returns:
            A carry for `advance`, and the logits of the first action, float `[N, A + 1]`.
        """

    def advance(self, carry: Any, action: Tensor) -> tuple[Any, Tensor]:
        """Takes one action `[N]` in each; returns the next carry and logits `[N, A + 1]`."""

    def trajectory_logits(self, actions: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every step of whole trajectories in one pass.

        Args:
            actions: int64 `[T, N]`, 0 after a row's length; the last one is not read.
            memory: What `encode` returned.
            rows: int64 `[N]`.

        Returns:
            The logits before each action, float `[T, N, A + 1]`.
        """


@runtime_checkable
class WholeStructures(Protocol):
    """Draws and scores whole structures instead of one action after another.

    Only for trees: what is drawn must have one trajectory. `logits` must agree.
    """

    def draw_structures(
        self,
        memory: Memory,
        rows: Tensor,
        generator: torch.Generator | None,
        epsilon: float,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Draws complete structures, each action as `rollout` would.

        Args:
            memory: What `encode` returned.
            rows: int64 `[N]`.
            generator: Source of randomness.
            epsilon: Weight of uniform actions; see `rollout`.
            temperature: See `rollout`.

        Returns:
            The structures, int64 `[N, S]`, and what `score_structures` returns, without gradient.
        """

    def score_structures(self, z: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Computes log P_F of the actions that build given structures.

        Args:
            z: int64 `[N, S]`.
            memory: What `encode` returned.
            rows: int64 `[N]`.

        Returns:
            float `[max_steps, N]`, nats, 0 after each trajectory's end.
        """


@runtime_checkable
class HasStateFlow(Protocol):
    """Learns log F(s; x), which balance over parts of a trajectory needs."""

    def state_flow(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Estimates log F(s; x), the log of the flow through each state.

        At the initial state it is log Z(x).

        Args:
            state: int64 `[N, S]`.
            memory: What `encode` returned for B observations.
            rows: int64 `[N]`, which observation each state belongs to.

        Returns:
            float `[N]`, nats.
        """
