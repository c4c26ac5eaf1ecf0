"""Categorical samples that carry a gradient: the Gumbel-softmax, or Concrete, distribution."""

import torch
from torch import Tensor


def gumbel_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws standard Gumbel numbers, with the type and on the device of another tensor."""
    return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_(
        generator=generator
    ).log().neg()  # fmt: skip


def relaxed_categorical(
    logits: Tensor, noise: Tensor, temperature: float, hard: bool = False
) -> Tensor:
    """Draws weights of K categories, which a low temperature makes nearly one-hot.

    softmax((logits + noise) / temperature): Jang, Gu, Poole: "Categorical reparameterization with
    Gumbel-softmax", ICLR 2017; Maddison, Mnih, Teh: "The Concrete distribution", ICLR 2017. The
    largest weight is that of an exact sample of softmax(logits), at every temperature.

    Args:
        logits: float `[..., K]`.
        noise: Standard Gumbel numbers, `[..., K]`.
        temperature: Positive.
        hard: Whether the weights are that sample, one-hot, with the gradient of the soft ones:
            the straight-through estimator.

    Returns:
        float `[..., K]`, summing to 1.
    """
    weights = ((logits + noise) / temperature).softmax(-1)
    if not hard:
        return weights
    sample = torch.zeros_like(weights).scatter_(-1, weights.argmax(-1, keepdim=True), 1.0)
    return sample + weights - weights.detach()
