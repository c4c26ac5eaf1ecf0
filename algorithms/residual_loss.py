"""How much a balance residual costs."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from gfn_envs.errors import UserError


class ResidualLoss(ABC):
    """A function of a residual in nats, zero and smallest at zero."""

    @abstractmethod
    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the loss of each residual, of the same shape."""


@dataclass(frozen=True)
class Squared(ResidualLoss):
    """The square."""

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the squares; see `ResidualLoss`."""
        return residual.square()


@dataclass(frozen=True)
class Scaled(ResidualLoss):
    """Another loss of the residual times a number.

    With 1 / steps it counts nats a step, as the authors of GFlowNet-EM do for images: then Adam's
    epsilon and other terms of a loss weigh differently, but the minimum is the same.

    Attributes:
        scale: The number, positive.
        loss: The other loss.
    """

    scale: float
    loss: ResidualLoss = Squared()

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise UserError(f"scale must be a positive number; got {self.scale}.")

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the other loss of scaled residuals; see `ResidualLoss`."""
        return self.loss(self.scale * residual)


@dataclass(frozen=True)
class Huber(ResidualLoss):
    """The square up to delta, and a straight line beyond it.

    Early in EM a structure can be hundreds of nats off; squared, one such structure outweighs the
    rest of the batch. Huber: "Robust estimation of a location parameter", 1964, doubled so that
    it equals the square near zero.

    Attributes:
        delta: Where the line begins, nats.
    """

    delta: float = 5.0

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the losses; see `ResidualLoss`."""
        zero = residual.new_zeros(()).expand_as(residual)
        return 2 * F.huber_loss(residual, zero, reduction="none", delta=self.delta)


@dataclass(frozen=True)
class HalfSquared(ResidualLoss):
    """Half the square, whose gradient is the residual itself.

    Venkatraman et al.: "Amortizing intractable inference in diffusion models for vision, language,
    and control", NeurIPS 2024, state relative trajectory balance so.
    """

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns half the squares; see `ResidualLoss`."""
        return residual.square() / 2


@dataclass(frozen=True)
class ShiftedCosh(ResidualLoss):
    """exp(t) + exp(-t) - 2, which neither invents mass nor misses any.

    Hu et al.: "Beyond squared error: exploring loss design for enhanced training of generative
    flow networks", ICLR 2025. Past `limit` it goes on as a straight line: an exponential
    of hundreds of nats, as they occur early in EM, would overflow Adam's second moment for good.

    Attributes:
        limit: Where the lines begin, nats.
    """

    limit: float = 20.0

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the losses; see `ResidualLoss`."""
        inner = residual.clamp(-self.limit, self.limit)
        # cosh(t) - 1 = 2 sinh(t / 2)^2, which does not cancel near zero.
        return 4 * (inner / 2).sinh().square() + 2 * inner.detach().sinh() * (residual - inner)


@dataclass(frozen=True)
class Linex(ResidualLoss):
    """(exp(alpha t) - alpha t - 1) / alpha^2, exponential to one side and linear to the other.

    Hu et al.: "Beyond squared error: exploring loss design for enhanced training of generative
    flow networks", ICLR 2025. A residual t here is log policy less log target. So alpha = -1 has,
    on the policy's own trajectories, the gradient of the forward KL, which misses no mode: the
    paper's Linex(1), and alpha = -1/2 its Linex(1/2). (torchgfn's docstring says alpha = 1, but
    its residuals have the sign of ours.) Past `limit` it goes on as a line; see `ShiftedCosh`.

    Attributes:
        alpha: How steep it is, not 0.
        limit: Where the line begins, in units of alpha t.
    """

    alpha: float = -1.0
    limit: float = 20.0

    def __post_init__(self) -> None:
        if self.alpha == 0 or not math.isfinite(self.alpha):
            raise UserError(f"alpha must be a finite number other than 0; got {self.alpha}.")

    def __call__(self, residual: Tensor) -> Tensor:
        """Returns the losses; see `ResidualLoss`."""
        scaled = self.alpha * residual
        inner = scaled.clamp_max(self.limit)
        line = inner.detach().expm1() * (scaled - inner)
        return (inner.expm1() - inner + line) / self.alpha**2
