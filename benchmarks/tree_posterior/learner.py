"""The training of a tree policy at fixed theta, in rounds of as many updates each."""

from torch import Tensor

from algorithms.gflownet_e_step import GFlowNetEStep
from benchmarks.posterior.learner import PosteriorLearner


class TreePosteriorLearner(PosteriorLearner):
    """Makes many updates of a policy between two measurements."""

    def __init__(
        self, e_step: GFlowNetEStep, x: Tensor, learning_rate: float, updates: int, rounds: int
    ) -> None:
        """Sets the training up.

        Args:
            e_step: What trains the policy, with a generator of its own.
            x: The observations to measure on, `[B, ...]`.
            learning_rate: The optimiser's, to begin with.
            updates: How many updates there will be, at least one a round.
            rounds: How many `update`s they are spread over.
        """
        super().__init__(e_step, x, learning_rate, updates)
        self._ends = [updates * done // rounds for done in range(1, rounds + 1)]

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes a round of updates; see `Learner.update`."""
        first, update = self.e_step.updates, super().update
        end = next(end for end in self._ends if end > first)
        losses = [update(x)["loss"] for _ in range(first, end)]
        return {"loss": sum(losses) / len(losses)}
