"""What a learned discrete VAE is worth on images that it has not seen."""

from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.e_step import MAX_STRUCTURES
from algorithms.image_policy import ImagePolicy
from algorithms.importance_sampling import ImportanceEstimate, importance_sample
from algorithms.rollout import rollout
from lvms.discrete_vae import DiscreteVAE

PER_IMAGE = "per-image.json"
"""What was measured on each test image, in each cell's folder."""

COLLAPSED_SHARE = 0.01
"""A model has collapsed if its NLL is less than such a share below that of independent pixels."""


def judge(
    model: DiscreteVAE,
    policy: ImagePolicy,
    x: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
    show: Callable[[int], object] | None = None,
) -> dict[str, Tensor]:
    """Measures a model and its policy on images.

    Args:
        model: The model.
        policy: What samples its posterior.
        x: The images, `[B, C, H, W]`.
        samples: M of the importance samples.
        generator: Source of randomness.
        show: Called with the number of images that were just finished.

    Returns:
        For each image, float `[B]`, in nats but for the shares: `nll` by M importance samples,
        `nll_error`, its standard error; `few_nll` and `negative_elbo`, the bounds by 50 samples
        and by one; `effective_samples`, a share of M; `marginal_nll`, that of independent pixels;
        `below_marginal`, how far `nll` is below it; and where the structures are few enough,
        `exact_nll`.
    """
    estimate: ImportanceEstimate = importance_sample(model, policy, x, samples, generator, show)
    marginal = model.pixel_marginal_nll(x)
    found = {
        "nll": -estimate.log_marginal,
        "nll_error": estimate.standard_error,
        "few_nll": -estimate.few,
        "negative_elbo": -estimate.elbo,
        "effective_samples": estimate.effective_samples,
        "marginal_nll": marginal,
        "below_marginal": marginal + estimate.log_marginal,
    }
    if model.env.num_structures(model.context(x)[0]) <= MAX_STRUCTURES:
        with torch.no_grad():
            found["exact_nll"] = -model.log_marginal(x)
    return found


@torch.no_grad()
def code_perplexity(
    model: DiscreteVAE, policy: ImagePolicy, x: Tensor, generator: torch.Generator | None = None
) -> float:
    """Computes how many codes are in use: exp of the entropy of all places' codes together.

    A posterior that ignores x and draws every code alike has the largest number: this tells unused
    codes, not collapse.

    Args:
        model: The model.
        policy: What samples a grid for each image.
        x: The images, `[B, C, H, W]`.
        generator: Source of randomness.

    Returns:
        1 to K.
    """
    batch = rollout(model.env, policy, x, context=model.context(x), generator=generator)
    share = torch.bincount(batch.z.flatten(), minlength=model.env.num_codes) / batch.z.numel()
    return torch.special.entr(share).sum().exp().item()


def is_collapsed(below_marginal: float, marginal_nll: float) -> bool:
    """Says whether a mean NLL so far below that of independent pixels is as good as none."""
    return below_marginal < COLLAPSED_SHARE * marginal_nll
