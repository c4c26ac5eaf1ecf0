"""A method's learner beside what it is judged by, and its best weights so far."""

import copy
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.learner import Learner
from algorithms.minibatch_learner import MinibatchLearner


class HeldOutLearner(Learner):
    """Passes updates on to a learner, measures it, and keeps the weights that were best.

    Early stopping: what is judged in the end are the weights with the lowest validation NLL of all
    measurements, not the last ones.

    Attributes:
        learner: The method's own learner.
        measurements_since_best: How many measurements in a row, the last ones, found no lower NLL.
    """

    def __init__(self, learner: MinibatchLearner) -> None:
        """Takes the method's own learner."""
        self.learner = learner
        self.measurements_since_best = 0
        self._best: dict[str, Any] = {}
        self._judged: dict[str, Tensor] = {}

    @property
    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """What is learned, by name, as it is now."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Measures what is learned on validation data; the best weights so far are kept.

        Returns:
            What goes into the log; `minibatches`, how many there have been, is among it.
        """

    @abstractmethod
    def measure_best(self) -> dict[str, Tensor]:
        """Measures the best weights on each of T test observations.

        Returns:
            float `[T]` by the quantity's name; `nll` is among them.
        """

    @abstractmethod
    def summary(self) -> dict[str, dict[str, float]]:
        """Averages what `judge` finds: each metric's `mean`, `standard_error` and `n`."""

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes a round of the method's updates; see `Learner.update`."""
        self._judged = {}
        return self.learner.update(x)

    def state_dict(self) -> dict[str, Any]:
        """Returns the method's and the best weights; see `Learner.state_dict`."""
        return {
            "learner": self.learner.state_dict(),
            "best": self._best,
            "since_best": self.measurements_since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.learner.load_state_dict(state["learner"])
        self._best = state["best"]
        self.measurements_since_best = state["since_best"]
        self._judged = {}

    @property
    def likelihood_evaluations(self) -> int:
        """See `Learner.likelihood_evaluations`."""
        return self.learner.likelihood_evaluations

    def keep_if_best(self, nll: float) -> None:
        """Keeps the present weights if no validation NLL was as low before."""
        self.measurements_since_best += 1
        if not self._best or nll < self._best["nll"]:
            weights = {name: part.state_dict() for name, part in self.parts.items()}
            self._best = {"nll": nll, **copy.deepcopy(weights)}
            self.measurements_since_best = 0

    def copy_of_best(self) -> dict[str, nn.Module]:
        """Copies the parts as they were when they were best, or are if never measured."""
        parts = copy.deepcopy(self.parts)
        if self._best:
            for name, part in parts.items():
                part.load_state_dict(self._best[name])
        return parts

    @torch.no_grad()
    def judge(self) -> dict[str, Tensor]:
        """Measures the best weights on test data, once; see `measure_best`."""
        if not self._judged:
            self._judged = self.measure_best()
        return self._judged
