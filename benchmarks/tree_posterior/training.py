"""How a policy over trees is trained on a grammar's posterior at fixed theta."""

import functools
from dataclasses import dataclass

import torch

from algorithms.alternation import FixedUpdates
from algorithms.exploration import EpsilonUniform
from algorithms.forward_kl import ForwardKL
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.residual_loss import Huber
from algorithms.sleep import Sleep
from algorithms.sleep_phase import SleepPhase
from algorithms.tree_policies import tree_order, tree_policies
from benchmarks.posterior.training import make_objective
from benchmarks.provenance import derive_seed
from benchmarks.tree_posterior.problem import TreeProblem, tree_problems

TREES = 8
"""For each sentence of an update. Of dreams there are as many, one tree each."""

EPSILON = 0.05
"""The share of actions drawn uniformly."""

SLEEP = "sleep"
"""Maximum likelihood on dreams: alone, or behind a `+` beside another objective."""

SLEEP_PHASE = SleepPhase(probability=1.0, weight=1.0)
"""Beside another objective: as many dreams as an update has sentences."""


def make_problem(task: str, policy: str) -> TreeProblem:
    """Gives a registered tree problem whose trees are built as a policy builds them."""
    return _problem(task, tree_order(policy))


@functools.cache
def _problem(task: str, tree: str) -> TreeProblem:
    """Makes a tree problem, once: nobody changes it."""
    problem: TreeProblem = tree_problems.make(task, tree=tree)
    return problem


@dataclass(frozen=True)
class Training:
    """How updates are made, the same for all policies and objectives.

    Attributes:
        learning_rate: The optimiser's, to begin with.
        batch_size: Sentences of an update.
        optimizer: See `GFlowNetEStep`.
    """

    learning_rate: float = 1e-2
    batch_size: int = 32
    optimizer: str = "adam"


def make_e_step(
    task: str, policy: str, objective: str, seed: int, training: Training | None = None
) -> GFlowNetEStep:
    """Makes the training of one policy on one grammar's posterior, one update a `fit`.

    Args:
        task: A registered tree problem.
        policy: A registered tree policy.
        objective: A registered objective, behind which `+sleep` adds dreams, or `sleep`.
        seed: Of everything random; other tasks, policies and objectives draw other numbers.
        training: How updates are made.

    Raises:
        UserError: If a name is unknown, or policy and objective do not fit together.
    """
    training = training or Training()
    model = make_problem(task, policy).model
    generator = torch.Generator().manual_seed(derive_seed(seed, task, policy, objective))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        made = tree_policies.make(policy, model)
    name = objective.removesuffix(f"+{SLEEP}")
    return GFlowNetEStep(
        model,
        made,
        ForwardKL() if name == SLEEP else make_objective(name, model, residual_loss=Huber()),
        exploration=Sleep() if name == SLEEP else EpsilonUniform(EPSILON),
        alternation=FixedUpdates(1),
        batch_size=training.batch_size,
        samples_per_x=TREES,
        learning_rate=training.learning_rate,
        optimizer=training.optimizer,
        sleep=None if name == objective else SLEEP_PHASE,
        generator=generator,
    )
