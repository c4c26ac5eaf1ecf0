"""What policies that read images have in common."""

import math
from collections.abc import Sequence

from torch import Tensor

from algorithms.image_encoder import ImageEncoder
from algorithms.log_partition import make_partition
from algorithms.policy import Memory, Policy
from gfn_envs.code_grid import CodeGrid


class ImagePolicy(Policy):
    """A policy over grids of codes that encodes an image once, by convolutions.

    Attributes:
        encoder: From an image to features of each place, `[B, L, C]`.
        partition: log Z(x), or one number for all x; see `algorithms.log_partition`.
    """

    def __init__(
        self, env: CodeGrid, image_shape: Sequence[int], channels: int, partition: str
    ) -> None:
        """Builds the encoder and log Z.

        Args:
            env: The environment.
            image_shape: `(image channels, H, W)`.
            channels: C, the channels of the encoder.
            partition: `per-image` or `global`.

        Raises:
            UserError: If there are no channels, the image is smaller than the grid, or the kind of
                log Z is unknown.
        """
        super().__init__()
        self.encoder = ImageEncoder(image_shape, env.grid, channels)
        self.partition = make_partition(partition, math.prod(image_shape))

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x), float `[B]`, nats; see `HasLogPartition`. x comes last in memory."""
        return self.partition(memory[-1])
