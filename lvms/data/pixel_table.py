"""Tables of pixels: a line of comma-separated numbers for each image, its label last."""

import io
import math
from pathlib import Path

import numpy as np

from gfn_envs.errors import UserError
from lvms.data.data_file import open_data


def read_pixel_table(path: Path, white: int) -> np.ndarray:
    """Reads square grey images.

    Args:
        path: The file, gzipped or not.
        white: The largest value that a pixel may have, at most 255.

    Returns:
        uint8 `[N, S, S]`, the labels left out.

    Raises:
        UserError: If it cannot be read, or is no such table.
    """
    with open_data(path) as file:
        content = file.read()
    try:
        table = np.loadtxt(io.StringIO(content.decode("ascii")), delimiter=",", ndmin=2)
    except ValueError as error:  # a line of another length, or what is no number
        reason = str(error).partition(";")[0].rstrip(".")
        raise UserError(f"{path} is damaged ({reason}); fetch it again.") from error
    pixels = table[:, :-1]
    side = math.isqrt(pixels.shape[1])
    if side < 1 or side * side != pixels.shape[1]:
        raise UserError(f"{path} has {pixels.shape[1]} pixels a line, which is no square image.")
    if not ((pixels >= 0) & (pixels <= white)).all():
        raise UserError(f"{path} has pixels outside 0 to {white}; fetch it again.")
    return pixels.astype(np.uint8).reshape(-1, side, side)
