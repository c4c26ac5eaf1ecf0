"""Drawing from tables of weights."""

import torch
from torch import Tensor


def draw(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws one index a row by inverse CDF; what has no weight is never drawn.

    Args:
        weight: Not negative, `[T, C]`; they need not add up to 1.
        generator: Source of randomness.

    Returns:
        int64 `[T]`; C - 1 where all weights are 0.
    """
    cumulative = weight.cumsum(-1)
    uniform = torch.rand(
        (len(weight), 1), generator=generator, dtype=weight.dtype, device=weight.device
    )
    # Below the total even when rounded up: the last indices may have no weight.
    passed = cumulative <= uniform * (1 - 2.0**-22) * cumulative[:, -1:]
    return passed.sum(-1).clamp_max(weight.shape[-1] - 1)
