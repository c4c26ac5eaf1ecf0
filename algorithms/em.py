"""Expectation maximisation as a choice of parts."""

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from algorithms.e_step import EStep
from algorithms.learner import Learner
from algorithms.m_step import MStep
from lvms.model import LatentVariableModel

ModelT = TypeVar("ModelT", bound=LatentVariableModel)


class EM(Learner, Generic[ModelT]):
    """Alternates an E-step, which approximates p(z | x), with an M-step on what it found.

    GFlowNet-EM, exact EM, mean-field EM and Monte Carlo EM differ in the E-step alone.
    """

    def __init__(
        self,
        model: ModelT,
        e_step: EStep,
        m_step: MStep,
        *,
        posterior_samples: int = 1,
        m_step_points: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Takes the parts.

        Args:
            model: The model being learned.
            e_step: How p(z | x) is approximated.
            m_step: How the parameters are improved.
            posterior_samples: Structures for each observation that the M-step sees, where the
                E-step draws them.
            m_step_points: How many observations the M-step sees, drawn anew each time; 0: all, as
                it must where the E-step's samples belong to the observations it was fitted on.
            generator: The parts' source of randomness, kept here to be saved and restored.
        """
        self.model = model
        self.e_step = e_step
        self.m_step = m_step
        self.posterior_samples = posterior_samples
        self.m_step_points = m_step_points
        self.generator = generator
        self.updates = 0

    @property
    def likelihood_evaluations(self) -> int:
        """How many times log p(x, z) has been evaluated by E-steps so far."""
        return self.e_step.likelihood_evaluations

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes one E-step and one M-step on x `[N, ...]`; see `Learner.update`."""
        metrics = self.e_step.fit(x, self.updates)
        seen = x
        if 0 < self.m_step_points < len(x):
            order = torch.randperm(len(x), generator=self.generator, device=x.device)
            seen = x[order[: self.m_step_points]]
        self.m_step.step(seen, self.e_step.posterior(seen, self.posterior_samples))
        self.model.mark_updated()
        self.updates += 1
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {
            "model": self.model.state_dict(),
            "e_step": self.e_step.state_dict(),
            "m_step": self.m_step.state_dict(),
            "updates": self.updates,
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.e_step.load_state_dict(state["e_step"])
        self.m_step.load_state_dict(state["m_step"])
        self.updates = state["updates"]
        if self.generator is not None:
            self.generator.set_state(state["generator"])
