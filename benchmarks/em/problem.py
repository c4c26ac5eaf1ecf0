"""What a method of the EM suite is given: the same for every method of one task and seed."""

from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from algorithms.e_step import EStep
from algorithms.em import EM, ModelT
from algorithms.m_step import ClosedForm, GradientAscent, MStep
from algorithms.schedule import Exponential, Schedule
from lvms.model import ClosedFormMStep, LatentVariableModel

M_LEARNING_RATE, M_STEPS = 0.05, 10
"""Adam's, and how many of its steps a gradient M-step makes."""


@dataclass(frozen=True)
class Problem(Generic[ModelT]):
    """A model at its start, and what there is to learn it with.

    Attributes:
        model: The model, to be learned in place.
        x: The training observations, `[N, ...]`: what each update sees.
        iterations: How many updates there will be, for schedules.
        m_step: Improves the model given samples.
        generator: The source of everything random, seeded for this method alone.
        e_updates: Policy updates of an E-step, for methods that train a policy.
        first_e_updates: The same of the first E-step, before which the policy is uniform.
        posterior_samples: Structures for each observation that the M-step sees, for the same.
        m_step_points: How many observations it sees then, drawn anew each time; 0: all.
        policy: A registered policy network, for the same methods.
        beta: The power of the posterior that sampling E-steps aim at first.
        beta_iterations: Over how many EM iterations it rises.
    """

    model: ModelT
    x: Tensor
    iterations: int
    m_step: MStep
    generator: torch.Generator
    e_updates: int = 20
    first_e_updates: int = 200
    posterior_samples: int = 4
    m_step_points: int = 0
    policy: str = "mlp"
    beta: float = 1.0
    beta_iterations: int = 15

    @property
    def num_structures(self) -> int:
        """How many structures an observation has."""
        return self.model.env.num_structures(self.model.context(self.x)[0])

    def annealing(self, last: float = 1.0) -> Schedule:
        """Returns the power of the posterior over EM iterations, `last` in the end."""
        return Exponential(self.beta, last, self.beta_iterations)

    def em(self, e_step: EStep, posterior_samples: int = 1, m_step_points: int = 0) -> EM[ModelT]:
        """Makes EM with an E-step of `model`; see `EM`."""
        return EM(
            self.model, e_step, self.m_step,
            posterior_samples=posterior_samples, m_step_points=m_step_points,
            generator=self.generator,
        )  # fmt: skip


def make_m_step(model: LatentVariableModel) -> MStep:
    """Makes the M-step that every method of the suite has: closed-form where the model knows it."""
    if isinstance(model, ClosedFormMStep):
        return ClosedForm(model)
    return GradientAscent(adam(model), model, steps=M_STEPS)


def adam(model: LatentVariableModel) -> torch.optim.Optimizer:
    """Makes the optimiser of every method that learns the model by gradients."""
    return torch.optim.Adam(model.parameters(), lr=M_LEARNING_RATE)
