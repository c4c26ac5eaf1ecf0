"""The IDX format, in which MNIST and its relatives are published."""

import struct
from pathlib import Path

import numpy as np

from gfn_envs.errors import UserError
from lvms.data.data_file import list_folder, open_data

UINT8_CUBE = b"\x00\x00\x08\x03"
"""How a file of images begins: two zeros, the type (uint8) and the number of dimensions."""


def read_idx_images(path: Path) -> np.ndarray:
    """Reads a file of grey images: the magic number, three sizes, then the pixels.

    Args:
        path: The file, gzipped or not.

    Returns:
        uint8 `[N, H, W]`.

    Raises:
        UserError: If it cannot be read, is of another format, or its length is not what its
            sizes say.
    """
    with open_data(path) as file:
        content = file.read()
    if content[:4] != UINT8_CUBE or len(content) < 16:
        raise UserError(
            f"{path} is not an IDX file of grey images: it begins with {content[:4].hex() or '-'}, "
            f"not {UINT8_CUBE.hex()}."
        )
    shape = struct.unpack(">3I", content[4:16])
    expected = shape[0] * shape[1] * shape[2]
    if len(content) - 16 != expected:
        raise UserError(
            f"{path} is damaged: {len(content) - 16:,} bytes of pixels where its header says "
            f"{expected:,}; fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(shape)


def find_idx_images(folder: Path) -> list[Path]:
    """Finds the files of images in a directory by their names.

    Args:
        folder: A directory with files whose names contain `idx3`.

    Returns:
        The file named as training images (`train`) and the one named as test images (`t10k` or
        `test`), or the only file that there is.

    Raises:
        UserError: If it is not clear which they are, or the directory cannot be listed.
    """
    found = [path for path in list_folder(folder) if "idx3" in path.name and path.is_file()]
    train = [path for path in found if "train" in path.name]
    test = [path for path in found if "t10k" in path.name or "test" in path.name]
    if len(train) == len(test) == 1:
        return train + test
    if len(found) == 1:
        return found
    names = ", ".join(path.name for path in found) or "none"
    raise UserError(
        f"{folder} must hold one IDX file of images, or one for training and one for testing "
        f"(train-images-idx3-ubyte, t10k-images-idx3-ubyte, gzipped or not); found: {names}."
    )
