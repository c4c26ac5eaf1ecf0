"""What a latent variable model is, and what some of them can do beyond that."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from gfn_envs.latent_env import LatentEnv


@dataclass(frozen=True)
class WeightedSamples:
    """Structures that stand for a posterior, k for each observation.

    Attributes:
        z: int64 `[B, k, S]`.
        log_w: float `[B, k]`, log-weights normalised over k, nats.
    """

    z: Tensor
    log_w: Tensor

    @classmethod
    def equal(cls, z: Tensor) -> Self:
        """Gives each of `z` `[B, k, S]` the weight 1 / k."""
        size = torch.full((), float(z.shape[1]), device=z.device)
        return cls(z, -size.log().expand(z.shape[:2]))


class LatentVariableModel(nn.Module, ABC):
    """A generative model p(x, z) with parameters theta, whose z is built in a `LatentEnv`.

    Attributes:
        env: Where its z lives.
        version: Counts parameter updates; a log reward computed at another version is stale.
    """

    env: LatentEnv
    version: int

    def __init__(self) -> None:
        super().__init__()
        self.version = 0

    @abstractmethod
    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z), differentiable in theta.

        Args:
            x: Observations, `[B, ...]`.
            z: Complete states, int64 `[B, S]`.

        Returns:
            float `[B]`, nats.
        """

    @abstractmethod
    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws from p(x, z): dreams, for the sleep phase.

        Args:
            batch_size: B.
            generator: Source of randomness.

        Returns:
            x `[B, ...]` and z, int64 `[B, S]`.
        """

    def context(self, x: Tensor) -> Tensor:
        """Gives what of x shapes the action space, int64 `[B, C]`."""
        return self.env.empty_context(len(x))

    def mark_updated(self) -> None:
        """Says that the parameters changed; every M-step calls it."""
        self.version += 1

    def get_extra_state(self) -> int:
        """Keeps the version in `state_dict`."""
        return self.version

    def set_extra_state(self, state: int) -> None:
        """Takes the version from a `state_dict`."""
        self.version = state

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the environment along with the parameters."""
        moved = super()._apply(fn, recurse)
        moved.env = moved.env.to(next(moved.parameters()).device)
        return moved


@runtime_checkable
class ExactPosterior(Protocol):
    """Can compute p(z | x) and p(x) exactly."""

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`, nats, differentiable in theta."""

    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k structures from p(z | x) for each observation, int64 `[B, k, S]`."""

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs x `[B, ...]`, z `[B, S]`: float `[B]`, nats."""


@runtime_checkable
class ClosedFormMStep(Protocol):
    """Can maximise the expected log joint over theta in closed form."""

    def maximise(self, x: Tensor, samples: WeightedSamples) -> None:
        """Sets theta to the argmax of sum_b sum_k w[b, k] log p(x[b], z[b, k])."""


@runtime_checkable
class MeanField(Protocol):
    """Can fit a fully factorised posterior by coordinate ascent."""

    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) = prod_d q_d(z_d | x), starting from uniform factors.

        Args:
            x: `[B, ...]`.
            sweeps: How often each factor is updated.

        Returns:
            log q_d, float `[B, K_d]` for each variable d, nats.
        """


@runtime_checkable
class PartialJoint(Protocol):
    """Can score what is built so far, for forward-looking flows."""

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Scores partial structures; equal to `log_joint` on complete ones.

        Args:
            x: Observations, `[N, ...]`.
            state: Reachable states, int64 `[N, S]`.

        Returns:
            float `[N]`, nats, finite.
        """


@runtime_checkable
class ContrastivePrior(Protocol):
    """Has a factor of p(x, z) without a known normaliser, which is learned by contrast.

    `log_joint` is then the log of an unnormalised density, and its gradient leaves that factor out.
    """

    def contrastive_loss(
        self, z: Tensor, weight: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Estimates the gradient of the factor's normalised likelihood.

        Args:
            z: Structures that stand for the posterior, int64 `[N, S]`.
            weight: Of each of them, float `[N]`, in all 1.
            generator: Source of randomness.

        Returns:
            A scalar whose gradient estimates that of -sum_n weight[n] log p(z[n]); its value means
            nothing.
        """


@runtime_checkable
class StartAtData(Protocol):
    """Can forget its parameters and begin anew from random ones, to be fitted."""

    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Sets every learned parameter to where learning from x starts; none keeps its value.

        Args:
            x: Observations, `[B, ...]`.
            generator: Source of randomness.

        Raises:
            UserError: If there are too few observations.
        """
