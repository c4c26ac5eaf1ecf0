"""A convolutional encoder of images onto a grid of places."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from lvms.code_decoder import ResidualBlock, channels_last, num_doublings, upsampling_plan


class ImageEncoder(nn.Module):
    """Turns images into features of each place of a grid: `CodeDecoder` backwards.

    Strided convolutions halve the sides that the decoder's transposed convolutions double, from
    28 to 14 to 7 to 4 say; two residual blocks follow. Where the decoder cuts off what is too
    much, the image is padded with zeros.

    Attributes:
        channels: C, the size of a place's features and of all hidden layers.
    """

    def __init__(self, image_shape: Sequence[int], grid: Sequence[int], channels: int) -> None:
        """Builds the layers.

        Args:
            image_shape: `(image channels, H, W)`.
            grid: Rows and columns.
            channels: C.

        Raises:
            UserError: If the grid is larger than the image, or there is no channel.
        """
        super().__init__()
        inputs, *sides = image_shape
        if channels < 1 or any(side > of for side, of in zip(grid, sides, strict=True)):
            raise UserError(
                "An ImageEncoder needs at least 1 channel and an image no smaller than the grid; "
                f"got {channels}, {tuple(sides)} and {tuple(grid)}."
            )
        self.channels = channels
        steps = max(num_doublings(side, of) for side, of in zip(grid, sides, strict=True))
        plans = [upsampling_plan(side, of, steps) for side, of in zip(grid, sides, strict=True)]
        layers: list[nn.Module] = []
        for down, right in zip(*(reversed(plan) for plan in plans), strict=True):
            kernel, stride, padding, _ = zip(down, right, strict=True)
            layers += [nn.Conv2d(inputs, channels, kernel, stride, padding), nn.ReLU()]
            inputs = channels
        layers += [ResidualBlock(channels), ResidualBlock(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        decoded = [_upsampled(side, plan) for side, plan in zip(grid, plans, strict=True)]
        self.padding = (0, decoded[1] - sides[1], 0, decoded[0] - sides[0])
        channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        """Reads images `[B, image channels, H, W]`: features of each place `[B, L, C]`."""
        # Images of one channel are channels-last as they are, but torch must be told.
        x = F.pad(x, self.padding).contiguous(memory_format=torch.channels_last)
        return self.layers(x).flatten(2).transpose(1, 2)


def _upsampled(side: int, plan: Sequence[tuple[int, int, int, int]]) -> int:
    """Computes the side of the image that a stack of transposed convolutions gives."""
    for kernel, stride, padding, more in plan:
        side = (side - 1) * stride - 2 * padding + kernel + more
    return side
