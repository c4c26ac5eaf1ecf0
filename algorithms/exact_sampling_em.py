"""EM on mini-batches with samples of the exact posterior."""

from typing import Any

import torch
from torch import Tensor

from algorithms.model_learner import ModelLearner
from gfn_envs.errors import UserError
from lvms.enumeration import exact_posterior
from lvms.model import LatentVariableModel


class ExactSamplingEM(ModelLearner):
    """Raises the mean of log p(x, z) over fresh z drawn from p(z | x).

    By Fisher's identity its gradient is, on average over the samples, that of marginalisation. So
    it is where GFlowNet-EM would arrive with a policy that knows the posterior.

    Attributes:
        samples_per_x: How many z are drawn for each observation.
    """

    def __init__(
        self, model: LatentVariableModel, *, samples_per_x: int = 1, **settings: Any
    ) -> None:
        """Takes the model.

        Args:
            model: One with exact inference, or with few structures.
            samples_per_x: How many z are drawn for each observation.
            **settings: See `ModelLearner`.

        Raises:
            UserError: If there are to be no samples.
        """
        super().__init__(model, **settings)
        if samples_per_x < 1:
            raise UserError(f"samples_per_x must be at least 1; got {samples_per_x}.")
        self.exact = exact_posterior(model)
        self.samples_per_x = samples_per_x

    def loss(self, x: Tensor, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the mean of -log p(x, z), nats; see `ModelLearner.loss`."""
        with torch.no_grad():
            z = self.exact.sample_posterior(x, self.samples_per_x, self.generator)
        self._evaluations += len(x)
        pairs = x.repeat_interleave(self.samples_per_x, 0)
        return -self.model.log_joint(pairs, z.flatten(0, 1)).mean(), {}
