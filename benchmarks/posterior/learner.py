"""The training of one policy at fixed theta, as the runner wants it."""

from typing import Any

from torch import Tensor

from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.learner import Learner
from algorithms.schedule import Constant
from benchmarks.posterior.training import FAST_SHARE


class PosteriorLearner(Learner):
    """Updates a policy of which the number of updates is known beforehand.

    Attributes:
        e_step: What trains the policy; each of its E-steps is one update.
        x: The observations that the policy is measured on, `[B, ...]`.
    """

    def __init__(
        self, e_step: GFlowNetEStep, x: Tensor, learning_rate: float, updates: int
    ) -> None:
        """Sets the training up.

        Args:
            e_step: What trains the policy, with a generator of its own.
            x: The observations to measure on, `[B, ...]`.
            learning_rate: The optimiser's, to begin with.
            updates: How many updates there will be.
        """
        assert e_step.generator is not None, "its state is saved"
        self.e_step = e_step
        self.x = x
        self._generator = e_step.generator
        self._learning_rate = learning_rate
        self._updates = updates

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes one update of the policy; see `Learner.update`."""
        fast = self.e_step.updates < FAST_SHARE * self._updates
        rate = self._learning_rate if fast else self._learning_rate / 10
        self.e_step.learning_rate = Constant(rate)
        return {"loss": self.e_step.fit(x, m_steps=0)["loss"]}

    def state_dict(self) -> dict[str, Any]:
        """Returns what later updates depend on; see `Learner.state_dict`."""
        return {
            "e_step": self.e_step.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.e_step.load_state_dict(state["e_step"])
        self._generator.set_state(state["generator"])

    @property
    def likelihood_evaluations(self) -> int:
        """See `Learner.likelihood_evaluations`."""
        return self.e_step.likelihood_evaluations
