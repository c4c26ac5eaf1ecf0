"""A PixelCNN over a grid of codes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lvms.code_prior import CodePrior
from lvms.random_weights import draw_weights


class PixelCNN(CodePrior):
    """Masked convolutions over the grid (van den Oord, Kalchbrenner, Kavukcuoglu 2016).

    The first kernel spans the whole grid, so that every place sees all codes before it: grids of
    codes are small, and stacks of small masked kernels would leave a blind spot. The residual
    layers after it have 3 x 3 kernels.
    """

    def __init__(
        self,
        grid: Sequence[int],
        num_codes: int,
        channels: int = 32,
        layers: int = 2,
        seed: int = 0,
    ) -> None:
        """Builds the network, uniform at first.

        Args:
            grid: Rows and columns.
            num_codes: K.
            channels: The channels of the hidden layers.
            layers: How many residual layers there are.
            seed: Of the hidden weights.
        """
        super().__init__(grid, num_codes)
        rows, columns = self.grid
        whole = (2 * rows - 1, 2 * columns - 1)
        self.first = _MaskedConvolution(num_codes, channels, whole, sees_itself=False)
        self.layers = nn.ModuleList(
            _MaskedConvolution(channels, channels, (3, 3), sees_itself=True) for _ in range(layers)
        )
        self.head = nn.Conv2d(channels, num_codes, 1)
        self.start(torch.Generator().manual_seed(seed))

    def logits(self, z: Tensor) -> Tensor:
        """Computes all conditionals in one pass; see `CodePrior.logits`."""
        return self.relaxed_logits(F.one_hot(z, self.num_codes).to(self.head.weight.dtype))

    def relaxed_logits(self, weights: Tensor) -> Tensor:
        """Reads weights where codes are one-hot; see `CodePrior.relaxed_logits`."""
        hidden = self.first(weights.transpose(1, 2).unflatten(2, self.grid))
        for layer in self.layers:
            hidden = hidden + layer(hidden.relu())
        return self.head(hidden.relu()).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def start(self, generator: torch.Generator | None = None) -> None:
        """Draws the hidden weights and makes all outputs zero; see `CodePrior.start`."""
        draw_weights(self, generator)
        self.head.weight.zero_()


class _MaskedConvolution(nn.Conv2d):
    """A convolution that sees only what comes earlier in raster order, and perhaps the place."""

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], sees_itself: bool
    ) -> None:
        """Builds the convolution and its mask, of odd sides."""
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(inputs, outputs, kernel, padding=padding)
        place = torch.arange(kernel[0] * kernel[1]).view(kernel)
        middle = place.numel() // 2
        mask = place <= middle if sees_itself else place < middle
        self.register_buffer("mask", mask.float(), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Convolves `[B, inputs, rows, columns]`."""
        return F.conv2d(hidden, self.weight * self.mask, self.bias, padding=self.padding)
