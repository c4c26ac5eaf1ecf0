"""A method's learner beside what it is judged by."""

from typing import Any

import torch
from torch import Tensor

from algorithms.e_step import MAX_STRUCTURES
from algorithms.learner import Learner
from benchmarks.em.e_step_table import e_step_total_variation
from benchmarks.em.problem import Problem
from benchmarks.posterior.metrics import summarise
from gfn_envs.errors import UserError
from lvms.enumeration import exact_posterior

POSTERIORS = 200
"""The posteriors of so many test observations are compared: tables of all would take long."""

TRAIN_POINTS = 1000
"""The likelihood of so many training observations is measured, so that it does not take longer
than learning does."""


class EMLearner(Learner):
    """Passes updates on to a learner, and measures the model that it learns.

    Attributes:
        learner: The method's own learner, of the problem's model.
        problem: What it learns.
        test: The test observations, `[M, ...]`.
        has_tables: Whether the structures of these are few enough, and the same for all, to compare
            their posteriors as tables.
    """

    def __init__(
        self, learner: Learner, problem: Problem, test: Tensor, true_log_likelihood: Tensor
    ) -> None:
        """Takes the learner and the test data.

        Args:
            learner: The method's learner.
            problem: What it learns.
            test: The test observations, `[M, ...]`.
            true_log_likelihood: log p(x) of each at the true parameters, float `[M]`, nats.
        """
        self.learner = learner
        self.problem = problem
        self.test = test
        self._true_log_likelihood = true_log_likelihood
        self.has_tables = _has_tables(problem, test[:POSTERIORS])

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes one update of the method; see `Learner.update`."""
        return self.learner.update(x)

    def state_dict(self) -> dict[str, Any]:
        """Returns the method's; see `Learner.state_dict`."""
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.learner.load_state_dict(state)

    @property
    def likelihood_evaluations(self) -> int:
        """See `Learner.likelihood_evaluations`."""
        return self.learner.likelihood_evaluations

    @torch.no_grad()
    def measure(self) -> dict[str, dict[str, float]]:
        """Measures the model as it is; nothing of that counts as a cost of learning.

        Returns:
            For each metric its `mean` over observations, `standard_error` and `n`:
            `log_likelihood` of the test observations, `gap` to their log-likelihood at the true
            parameters, `train_log_likelihood` of the first `TRAIN_POINTS`, all exact and in nats a
            point; and where there are tables, `total_variation` of the E-step's distribution to
            the exact posterior.
        """
        exact = exact_posterior(self.problem.model)
        log_likelihood = exact.log_marginal(self.test)
        per_point = {
            "log_likelihood": log_likelihood,
            "gap": self._true_log_likelihood - log_likelihood,
            "train_log_likelihood": exact.log_marginal(self.problem.x[:TRAIN_POINTS]),
        }
        if self.has_tables:
            variation = e_step_total_variation(self.learner, self.test[:POSTERIORS])
            if variation is not None:
                per_point["total_variation"] = variation
        return {name: summarise(values) for name, values in per_point.items()}


def _has_tables(problem: Problem, x: Tensor) -> bool:
    """Says whether observations x `[B, ...]` share their structures and these are few enough."""
    context = problem.model.context(x)
    if (context != context[:1]).any():
        return False
    try:
        return problem.num_structures <= MAX_STRUCTURES
    except UserError:  # too many to be counted
        return False
