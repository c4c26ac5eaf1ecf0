"""Black and white images to learn from, from installed packages or directories."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gfn_envs.errors import UserError
from lvms.data.image_sources import read_images

FEWEST_IMAGES = 10


@dataclass(frozen=True)
class Images:
    """Images of zeros and ones.

    Attributes:
        train: float `[N, 1, H, W]`, to learn from.
        validation: float `[M, 1, H, W]`, to choose settings by.
        test: float `[M, 1, H, W]`, to be judged by.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def load_images(source: str | Path = "digits", threshold: float = 0.5, seed: int = 0) -> Images:
    """Loads images, each pixel turned to 1 where it is above the threshold, once and for all.

    Images that were published in one piece are shuffled and a tenth each is kept for validation
    and for testing. Where test images were published apart, validation images are drawn from the
    training images: as many as there are test images, but no more than a fifth. A published
    split into three is kept.

    Args:
        source: `digits` (1797 of 8 x 8), `mnist-5k`, `mnist`, `fashion-mnist` (28 x 28), or a
            directory of IDX files, gzipped or not.
        threshold: The share of the largest grey level, 0 to below 1.
        seed: Of the split.

    Returns:
        The images.

    Raises:
        UserError: If the source is unknown, its package is not installed, a file is damaged, or
            there are fewer than 10 images to learn from.
    """
    if not 0 <= threshold < 1:
        raise UserError(f"threshold must lie in 0 to below 1; got {threshold}.")
    grey = read_images(source)
    parts = [_binarise(part, threshold * grey.white) for part in grey.parts]
    if len(parts[0]) < FEWEST_IMAGES or 0 in map(len, parts):
        counts = " + ".join(str(len(part)) for part in parts)
        raise UserError(
            f"{source} holds {counts} images; at least {FEWEST_IMAGES} to learn from are needed."
        )
    generator = torch.Generator().manual_seed(seed)
    match parts:
        case [everything]:
            tenth = len(everything) // 10
            test, rest = _draw(everything, tenth, generator)
            validation, train = _draw(rest, tenth, generator)
        case [rest, test]:
            validation, train = _draw(rest, min(len(test), len(rest) // 5), generator)
        case _:
            train, validation, test = parts
    return Images(train, validation, test)


def _binarise(grey: np.ndarray, above: float) -> Tensor:
    """Turns grey levels `[N, H, W]` into zeros and ones, float `[N, 1, H, W]`."""
    return torch.from_numpy(grey > above)[:, None].float()


def _draw(images: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws so many images without replacement; returns them and the others."""
    shuffled = images[torch.randperm(len(images), generator=generator)]
    return shuffled[:size], shuffled[size:]
