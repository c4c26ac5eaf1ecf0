"""The pickle in which MNIST has been passed on since the Theano tutorials."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from gfn_envs.errors import UserError
from lvms.data.data_file import open_data

# A pickle may call whatever it names: only what rebuilds an array may be named.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays in built-in containers and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up among the allowed ones; see `pickle.Unpickler.find_class`."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _ALLOWED[module, name]


def read_mnist_pickle(path: Path) -> list[np.ndarray]:
    """Reads the training, validation and test images.

    Args:
        path: A pickle, gzipped or not, of three pairs of images, float `[N, 784]` with values
            x / 256 of grey levels x, and labels.

    Returns:
        Three arrays of grey levels, uint8 `[N, 28, 28]`.

    Raises:
        UserError: If it cannot be read, or holds anything else.
    """
    with open_data(path) as file:
        try:
            # Written by Python 2: its byte strings are the arrays' content.
            splits = _ArrayUnpickler(file, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise UserError(
                f"{path} is not the MNIST pickle, or damaged ({error}); fetch it again."
            ) from error
    try:
        images = [pair[0] for pair in splits]
        if len(images) != 3 or any(part.shape[1:] != (784,) for part in images):
            raise TypeError
        if not all(((part >= 0) & (part < 1)).all() for part in images):
            raise TypeError
        levels = [np.rint(256 * part).astype(np.uint8) for part in images]
    except (AttributeError, IndexError, KeyError, TypeError):
        raise UserError(
            f"{path} is not the MNIST pickle: it must hold three pairs of images, 784 values from "
            "0 to 1 each, and labels."
        ) from None
    return [part.reshape(-1, 28, 28) for part in levels]
