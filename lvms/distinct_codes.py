"""Finding the distinct rows among grids of codes, so that each is decoded once."""

import torch
from torch import Tensor

from gfn_envs.factored_categorical import UNSET

MOST_DISTINCT = 0.9
"""The share of distinct rows up to which it was measured that decoding them alone is cheaper."""


def distinct_rows(z: Tensor, num_codes: int) -> tuple[Tensor, Tensor | None]:
    """Finds the distinct rows, where looking for them costs less than it may save.

    Elsewhere than on the CPU nothing is looked for: how many rows are distinct decides shapes,
    and to learn it the host would have to wait for the device.

    Args:
        z: int64 `[N, L]`, -1 to `num_codes` - 1.
        num_codes: K.

    Returns:
        The rows to compute for, int64 `[U, L]`, and for each row of z its place among them,
        int64 `[N]`; z itself and None where that saves too little.
    """
    if z.device.type != "cpu" or len(z) < 2:
        return z, None
    base = num_codes + 1
    if base ** z.shape[1] >= 2**63:
        distinct, inverse = torch.unique(z, dim=0, return_inverse=True)
    else:
        # A row as one number in the base K + 1: numbers sort many times faster than rows.
        weight = base ** torch.arange(z.shape[1])
        number, inverse = torch.unique(((z - UNSET) * weight).sum(-1), return_inverse=True)
        distinct = number[:, None] // weight % base + UNSET
    if len(distinct) > MOST_DISTINCT * len(z):
        return z, None
    return distinct, inverse
