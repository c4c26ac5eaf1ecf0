"""Learning without an E-step, on mini-batches."""

from typing import Any

from torch import Tensor

from algorithms.model_learner import ModelLearner
from lvms.enumeration import exact_posterior
from lvms.model import LatentVariableModel


class MinibatchMarginalisation(ModelLearner):
    """Raises the mean of log p(x) itself, z summed out by the model's own exact inference.

    `Marginalisation` on mini-batches. Neural grammars are commonly trained so, with the inside
    algorithm (Kim, Dyer, Rush: "Compound probabilistic context-free grammars", ACL 2019).
    """

    def __init__(self, model: LatentVariableModel, **settings: Any) -> None:
        """Takes the model.

        Args:
            model: One with exact inference, or with few structures.
            **settings: See `ModelLearner`.
        """
        super().__init__(model, **settings)
        self.exact = exact_posterior(model)

    def loss(self, x: Tensor, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the mean of -log p(x), nats; see `ModelLearner.loss`."""
        self._evaluations += len(x)
        return -self.exact.log_marginal(x).mean(), {}
