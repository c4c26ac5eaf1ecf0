"""Learned estimates of log Z(x), which trajectory balance needs."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.policy import Policy
from gfn_envs.errors import unknown_name


class LogPartition(nn.Module, ABC):
    """Estimates log Z(x) from x itself, with parameters of its own.

    Its residuals are hundreds of nats at first: in shared layers they would drown what the policy
    needs of them.
    """

    level: nn.Parameter

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Estimates log Z(x) for x `[B, ...]`: float `[B]`, nats; 0 at first."""

    @torch.no_grad()
    def raise_by(self, nats: Tensor) -> None:
        """Adds a number to the estimates of all x."""
        self.level.add_(nats)


class PerImagePartition(LogPartition):
    """A level for all x and what a perceptron makes of each."""

    def __init__(self, x_size: int, hidden: int = 128) -> None:
        """Builds the perceptron.

        Args:
            x_size: How many numbers an observation has.
            hidden: The size of the hidden layer.
        """
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.read_x = nn.Linear(x_size, hidden)
        self.head = zero_linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Estimates log Z(x); see `LogPartition.forward`."""
        return self.level + self.head(F.relu(self.read_x(x.flatten(1)))).squeeze(-1)


class GlobalPartition(LogPartition):
    """One number for all x: what the authors' code has in place of log Z(x).

    With it no policy can be balanced on images whose log p(x) differ; it is here to be compared.
    """

    def __init__(self) -> None:
        """Makes the number."""
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Gives the number for each x; see `LogPartition.forward`."""
        return self.level.expand(len(x))


def partition_of(policy: Policy) -> nn.Module | None:
    """Finds the part of a policy, `partition`, that learns log Z(x) or flows, if it has one."""
    partition = getattr(policy, "partition", None)
    return partition if isinstance(partition, nn.Module) else None


PARTITIONS = ("per-image", "global")
"""The kinds of log Z that a policy on images can have."""


def make_partition(kind: str, x_size: int) -> LogPartition:
    """Makes one of `PARTITIONS`.

    Args:
        kind: Its name.
        x_size: How many numbers an observation has.

    Raises:
        UserError: If there is none of that name.
    """
    match kind:
        case "per-image":
            return PerImagePartition(x_size)
        case "global":
            return GlobalPartition()
    raise unknown_name("kind of log Z", kind, PARTITIONS)
