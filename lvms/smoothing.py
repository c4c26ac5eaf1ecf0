"""Probabilities of pixels from counts, never 0 or 1."""

from torch import Tensor

SMOOTHING = 0.5
"""An M-step counts so many pixels that were on, and as many that were off, beyond those seen."""


def smoothed_logit(on: Tensor, seen: Tensor) -> Tensor:
    """Estimates how often pixels are on.

    It maximises the likelihood times the density of a Beta(1 + `SMOOTHING`, 1 + `SMOOTHING`) prior.

    Args:
        on: How many were on, float; below 0 by rounding alone.
        seen: How many there were, of the same shape.

    Returns:
        The logits of the probabilities, finite, of the same shape.
    """
    share = (on.clamp_min(0.0) + SMOOTHING) / (seen.clamp_min(0.0) + 2 * SMOOTHING)
    return share.logit()
