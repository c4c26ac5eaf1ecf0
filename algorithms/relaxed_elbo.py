"""The ELBO of relaxed codes, whose gradient goes through the decoder to the policy."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.code_grid_policy import RasterPolicy
from algorithms.schedule import Schedule, as_schedule, require_positive
from lvms.discrete_vae import DiscreteVAE


@dataclass(frozen=True)
class RelaxedELBO:
    """E[log p(x | w)] - weight KL, with weights w of codes in place of codes.

    w is drawn by the Gumbel-softmax (see `relaxed_categorical`), and the decoder reads mean
    embeddings. The KL is exact at each place, given the weights before it:

        sum_l sum_k q_l(k) (log q_l(k) - log p_l(k | w_<l)).

    So it is the ELBO of the codes themselves in the limit of temperature 0, and no bound on
    log p(x) elsewhere. Policy and model learn from one backward pass.

    Attributes:
        temperature: That of the weights, a schedule over updates.
        kl_weight: What the KL counts, a schedule too: rising from a small one, it lets the decoder
            find a use for the codes first.
        hard: Whether the weights are one-hot, with the gradient of the relaxed ones.
    """

    temperature: Schedule
    kl_weight: Schedule | float = 1.0
    hard: bool = False

    def __post_init__(self) -> None:
        """Checks the schedules."""
        require_positive("temperature", self.temperature)

    def loss(
        self,
        model: DiscreteVAE,
        policy: RasterPolicy,
        x: Tensor,
        update: int,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Draws weights once for each x.

        Args:
            model: The model.
            policy: The policy.
            x: Zeros and ones, `[B, C, H, W]`.
            update: How many updates there have been.
            generator: Source of randomness.

        Returns:
            The loss, a mean over x in nats, and the `relaxed_elbo` (its KL in full) and `kl`.
        """
        weights, logits = policy.relaxed_sample(
            policy.encode(x), self.temperature.at(update), self.hard, generator
        )
        log_q, log_p = logits.log_softmax(-1), model.prior.relaxed_logits(weights).log_softmax(-1)
        kl = (log_q.exp() * (log_q - log_p)).sum() / len(x)
        pixels = model.decode_relaxed(weights)
        cost = F.binary_cross_entropy_with_logits(pixels, x, reduction="sum") / len(x)
        loss = cost + as_schedule(self.kl_weight).at(update) * kl
        return loss, {"relaxed_elbo": -(cost + kl).detach(), "kl": kl.detach()}
