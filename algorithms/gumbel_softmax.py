"""Gumbel-softmax: a discrete VAE learned through relaxed codes."""

from typing import Any

import torch
from torch import Tensor

from algorithms.amortised_learner import AmortisedLearner
from algorithms.code_grid_policy import RasterPolicy
from algorithms.relaxed_elbo import RelaxedELBO
from algorithms.schedule import Exponential, Linear, Schedule
from lvms.discrete_vae import DiscreteVAE


class GumbelSoftmax(AmortisedLearner):
    """Learns model and policy by the pathwise gradient of the ELBO of relaxed codes.

    Jang, Gu, Poole: "Categorical reparameterization with Gumbel-softmax", ICLR 2017; Maddison,
    Mnih, Teh: "The Concrete distribution", ICLR 2017. See `RelaxedELBO`. The policy is a P_F as
    any other, so that log p(x) is estimated with it over codes that are not relaxed.
    """

    model: DiscreteVAE
    policy: RasterPolicy

    def __init__(
        self,
        model: DiscreteVAE,
        policy: RasterPolicy,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int = 32,
        relaxed: RelaxedELBO | None = None,
        policy_rate: Schedule | float = 1e-3,
        model_rate: Schedule | float = 1e-3,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchLearner`.

        Args:
            model: The model.
            policy: The policy; its log Z is not learned.
            num_updates: How many mini-batches there are to be.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            relaxed: What to maximise; `annealed` over all updates by default.
            policy_rate: Adam's learning rate of the policy.
            model_rate: That of the model.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers do not fit together.
        """
        super().__init__(
            model, policy, num_updates=num_updates, rounds=rounds, batch_size=batch_size,
            generator=generator,
        )  # fmt: skip
        self.relaxed = relaxed or annealed(num_updates)
        self._optimizer = self.adam(
            (policy.parameters(), policy_rate), (model.parameters(), model_rate)
        )
        self._evaluations = 0

    @property
    def likelihood_evaluations(self) -> int:
        """How many times the relaxed log p(x, w) has been evaluated."""
        return self._evaluations

    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Improves policy and model on one draw for each x; see `MinibatchLearner.step`."""
        loss, metrics = self.relaxed.loss(self.model, self.policy, x, self.updates, self.generator)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.model.mark_updated()
        self._evaluations += len(x)
        return {"loss": loss.detach(), **metrics}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {**super().state_dict(), "likelihood_evaluations": self._evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self._evaluations = state["likelihood_evaluations"]


def annealed(num_updates: int, hard: bool = False) -> RelaxedELBO:
    """Makes the ELBO whose temperature falls from 1 to 0.2, and whose KL's weight rises to 1.

    Args:
        num_updates: Over how many updates: the temperature over the first 0.6 of them, the KL's
            weight from 0.1 over the first 0.2.
        hard: Whether the weights are one-hot.
    """
    return RelaxedELBO(
        Exponential(1.0, 0.2, max(1, int(0.6 * num_updates))),
        Linear(0.1, 1.0, max(1, int(0.2 * num_updates))),
        hard,
    )
