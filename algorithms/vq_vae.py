"""VQ-VAE: a discrete VAE learned through the codes nearest to an encoder's features."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.code_grid_policy import RasterPolicy
from algorithms.exploration import EpsilonUniform, Exploration
from algorithms.minibatch_em import MinibatchEM
from algorithms.moving_codebook import MovingCodebook
from algorithms.objective import Objective
from algorithms.schedule import Schedule, falling
from algorithms.sleep_phase import SleepPhase
from gfn_envs.errors import UserError
from lvms.discrete_vae import DiscreteVAE


class VQVAE(MinibatchEM):
    """Learns a decoder of the nearest codes, then the prior and the posterior that belong to it.

    van den Oord, Vinyals, Kavukcuoglu: "Neural discrete representation learning", NeurIPS 2017.
    The features of each place are mapped to a vector, and the nearest code is decoded; gradients
    pass it straight through, and the vector is drawn to its code. The codes are the model's
    embeddings and follow moving averages; see `MovingCodebook`.

    After a share of the updates all that is kept fixed. The rest fits the prior to the codes z*(x)
    of the data, as the paper does, and the policy to the posterior by E-updates of GFlowNet-EM, so
    that log p(x) can be estimated with it. Until then the policy knows nothing, and `own_bound`
    says how learning goes.

    Attributes:
        encoder: Reads images for z*(x). The policy's, of the same size, starts from its weights.
        to_vector: A linear map of a place's features.
        codebook: Finds and moves codes.
        decoder_updates: How many updates learn the decoder.
    """

    model: DiscreteVAE
    policy: RasterPolicy

    def __init__(
        self,
        model: DiscreteVAE,
        policy: RasterPolicy,
        objective: Objective,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int = 32,
        samples_per_x: int = 4,
        decoder_share: float = 0.7,
        decay: float = 0.99,
        commitment: float = 0.25,
        model_rate: Schedule | float | None = None,
        policy_rate: Schedule | float | None = None,
        partition_rate: Schedule | float = 1e-2,
        exploration: Exploration | None = None,
        sleep: SleepPhase | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchEM`.

        Args:
            model: The model.
            policy: The policy.
            objective: Its loss.
            num_updates: How many mini-batches there are to be, for both parts.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            samples_per_x: Trajectories for each, in the second part.
            decoder_share: The share of the updates that learn the decoder.
            decay: What share of its averages the codebook keeps; see `MovingCodebook`.
            commitment: What the squared distance of vectors from their codes costs, beside nats.
            model_rate: Adam's learning rate of decoder and encoder; 1e-3, falling to a twentieth
                of it over the last 40 % of the first part, by default.
            policy_rate: That of policy and prior; 2e-3, falling to a twentieth of it over the last
                60 % of the second part, by default.
            partition_rate: That of log Z.
            exploration: Where trajectories come from; 2 % uniform actions by default.
            sleep: Maximum likelihood on dreams beside the objective; none by default.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers do not fit together.
        """
        if not 0 < decoder_share < 1 or not 0 <= commitment < float("inf"):
            raise UserError(
                "A VQVAE needs a decoder_share between 0 and 1 and a commitment of at least 0; "
                f"got {decoder_share} and {commitment}."
            )
        self.decoder_updates = max(1, round(decoder_share * num_updates))
        if model_rate is None:
            model_rate = falling(1e-3, round(0.6 * self.decoder_updates), self.decoder_updates)
        if policy_rate is None:
            begin = round(0.6 * self.decoder_updates + 0.4 * num_updates)
            policy_rate = falling(2e-3, begin, num_updates)
        super().__init__(
            model, policy, objective, num_updates=num_updates, rounds=rounds,
            batch_size=batch_size, samples_per_x=samples_per_x, policy_rate=policy_rate,
            partition_rate=partition_rate, model_rate=model_rate,
            exploration=exploration or EpsilonUniform(0.02), sleep=sleep, generator=generator,
        )  # fmt: skip
        self.commitment = commitment
        self.encoder = deepcopy(policy.encoder)
        self.to_vector = nn.Linear(self.encoder.channels, model.embedding.embedding_dim)
        self.to_vector.to(model.embedding.weight.device)
        self.codebook = MovingCodebook(model.embedding, decay)
        encoder = [*self.encoder.parameters(), *self.to_vector.parameters()]
        # Neither part has a gradient while the other learns.
        self._optimizer = self.adam((encoder, model_rate), (model.prior.parameters(), policy_rate))

    def policy_is_learned(self) -> bool:
        """Says whether the first part is over; see `HasOwnBound`."""
        return self.updates > self.decoder_updates

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Reads z*(x), the nearest codes, int64 `[B, L]`, from images `[B, C, H, W]`."""
        return self.codebook.nearest(self._vectors(x))

    @torch.no_grad()
    def own_bound(self, x: Tensor) -> Tensor:
        """Computes log p(x, z*(x)), float `[B]`, nats: no more than log p(x)."""
        return self.model.log_joint(x, self.codes(x))

    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Makes an update of the part whose turn it is; see `MinibatchLearner.step`."""
        if self.updates < self.decoder_updates:
            return self.decoder_update(x)
        if self.updates == self.decoder_updates:
            self.policy.encoder.load_state_dict(self.encoder.state_dict())
        prior_loss = self.prior_update(x)
        return {**self.policy_update(x, ids), "prior_loss": prior_loss}

    def decoder_update(self, x: Tensor) -> dict[str, Tensor]:
        """Improves encoder, codes and decoder on images `[B, C, H, W]`."""
        vectors = self._vectors(x)
        if self.updates == 0:
            self.codebook.start(vectors.detach().flatten(0, 1), self.generator)
        nearest = self.codebook.nearest(vectors)
        codes = F.embedding(nearest, self.codebook.codes)
        pixels = self.model.decode_embedded(vectors + (codes - vectors).detach())
        cost = F.binary_cross_entropy_with_logits(pixels, x, reduction="sum") / len(x)
        distance = (vectors - codes).square().sum() / len(x)
        loss = cost + self.commitment * distance
        self._optimizer.zero_grad()
        self.model_optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.model_optimizer.step()
        self.codebook.follow(vectors.detach().flatten(0, 1), nearest.flatten(), self.generator)
        self.model.mark_updated()
        self.reward.evaluations += len(x)
        return {"loss": loss.detach(), "cost": cost.detach(), "distance": distance.detach()}

    def prior_update(self, x: Tensor) -> Tensor:
        """Improves the prior, if there is anything to learn, on z*(x); returns -log p(z*(x))."""
        loss = -self.model.prior.log_prob(self.codes(x)).mean()
        if loss.requires_grad:
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self.model.mark_updated()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        parts = (self.encoder, self.to_vector, self.codebook)
        return {**super().state_dict(), "vectors": [part.state_dict() for part in parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        parts = (self.encoder, self.to_vector, self.codebook)
        for part, saved in zip(parts, state["vectors"], strict=True):
            part.load_state_dict(saved)

    def _vectors(self, x: Tensor) -> Tensor:
        """Reads images `[B, C, H, W]` into a vector for each place, `[B, L, D]`."""
        return self.to_vector(self.encoder(x))
