"""Large tables, computed a block of rows at a time."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

BLOCK_ELEMENTS = 1 << 22
"""Exact inference holds tables of about this many numbers at a time (16 MB in float32)."""


def in_blocks(function: Callable[[Tensor], Tensor], rows: Tensor, width: int) -> Tensor:
    """Applies a function of rows that needs `width` numbers for each, a block at a time.

    Under autograd each block is computed again in the backward pass, so that no table is kept.

    Args:
        function: Maps `[n, ...]` to `[n, ...]`, each row by itself.
        rows: `[N, ...]`.
        width: How many numbers the function holds for each row.

    Returns:
        The results of all rows, `[N, ...]`.
    """
    blocks = rows.split(max(1, BLOCK_ELEMENTS // width))
    if torch.is_grad_enabled() and len(blocks) > 1:
        return torch.cat([checkpoint(function, block, use_reentrant=False) for block in blocks])
    return torch.cat([function(block) for block in blocks])
