"""Priors over grids of codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gfn_envs.catalogue import Catalogue

code_priors = Catalogue("prior over codes")
"""Every prior by name; it is made from a grid, the number of codes and `seed`."""


class CodePrior(nn.Module, ABC):
    """p(z) of a grid of codes, the product of p(z_l | z_1, ..., z_l-1) in raster order.

    Attributes:
        grid: `(rows, columns)`; L is their product.
        num_codes: K.
    """

    blank: Tensor

    def __init__(self, grid: Sequence[int], num_codes: int) -> None:
        """Takes the shape of z.

        Args:
            grid: Rows and columns.
            num_codes: K.
        """
        super().__init__()
        self.grid = (int(grid[0]), int(grid[1]))
        self.num_codes = int(num_codes)
        blank = torch.zeros(math.prod(self.grid), dtype=torch.int64)
        self.register_buffer("blank", blank, persistent=False)

    @abstractmethod
    def logits(self, z: Tensor) -> Tensor:
        """Computes the logits of every code at each place, given the codes before it.

        Args:
            z: int64 `[B, L]`; what stands at a place and after it changes nothing there.

        Returns:
            float `[B, L, K]`.
        """

    @abstractmethod
    def relaxed_logits(self, weights: Tensor) -> Tensor:
        """Computes `logits` where each place holds a mixture of codes, not one of them.

        Args:
            weights: float `[B, L, K]`, summing to 1 at each place; one-hot, they are codes.

        Returns:
            float `[B, L, K]`, differentiable in the weights.
        """

    @abstractmethod
    def start(self, generator: torch.Generator | None = None) -> None:
        """Sets every parameter to where learning starts: a uniform prior.

        Args:
            generator: Source of randomness.
        """

    def conditionals(self, z: Tensor) -> Tensor:
        """Computes log p(z_l | z_1, ..., z_l-1) for z int64 `[B, L]`: float `[B, L]`, nats."""
        return self.logits(z).log_softmax(-1).gather(-1, z[..., None]).squeeze(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """Computes log p(z) for z int64 `[B, L]`: float `[B]`, nats."""
        return self.conditionals(z).sum(-1)

    @torch.no_grad()
    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws grids of codes, int64 `[B, L]`, one place after another.

        Args:
            batch_size: B.
            generator: Source of randomness.
        """
        z = self.blank.repeat(batch_size, 1)
        for place in range(z.shape[1]):
            z[:, place] = draw_codes(self.logits(z)[:, place], generator)
        return z


class UniformPrior(CodePrior):
    """Every grid of codes is as likely as any other; there is nothing to learn."""

    def __init__(self, grid: Sequence[int], num_codes: int, seed: int = 0) -> None:
        """Takes the shape of z; `seed` is not used. See `CodePrior`."""
        super().__init__(grid, num_codes)

    def logits(self, z: Tensor) -> Tensor:
        """Gives zeros; see `CodePrior.logits`."""
        return torch.zeros(*z.shape, self.num_codes, device=z.device)

    def relaxed_logits(self, weights: Tensor) -> Tensor:
        """Gives zeros; see `CodePrior.relaxed_logits`."""
        return torch.zeros_like(weights)

    def start(self, generator: torch.Generator | None = None) -> None:
        """Does nothing; see `CodePrior.start`."""

    def conditionals(self, z: Tensor) -> Tensor:
        """Gives -log K everywhere; see `CodePrior.conditionals`."""
        return torch.full(z.shape, -math.log(self.num_codes), device=z.device)

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws all codes at once; see `CodePrior.sample`."""
        size = (batch_size, len(self.blank))
        device = self.blank.device
        return torch.randint(self.num_codes, size, generator=generator, device=device)


def draw_codes(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws one code from each row of logits `[B, K]`, int64 `[B]`."""
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


code_priors.register("uniform", "lvms.code_prior:UniformPrior")
code_priors.register("pixel-cnn", "lvms.pixel_cnn:PixelCNN")
code_priors.register("transformer", "lvms.transformer_prior:TransformerPrior")
