"""How a policy over trees is trained on a grammar's posterior at fixed theta."""

import functools

import torch

from algorithms.alternation import FixedUpdates
from algorithms.exploration import EpsilonUniform
from algorithms.forward_kl import ForwardKL
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.objective import Objective
from algorithms.objectives import objectives
from algorithms.policy import HasLogPartition, HasStateFlow, Policy
from algorithms.residual_loss import Huber
from algorithms.sleep import Sleep
from algorithms.sleep_phase import SleepPhase
from algorithms.span_policy import SpanPolicy
from algorithms.tree_policies import tree_policies
from benchmarks.provenance import derive_seed
from benchmarks.tree_posterior.problem import TreeProblem, tree_problems
from gfn_envs.errors import UserError, unknown_name
from lvms.model import LatentVariableModel

BOTTOM_UP = ("forest",)
"""Policies that merge trees; the others split spans."""

SENTENCES, TREES = 32, 8
"""Of an update: sentences, and trees for each. Of dreams there are as many, one tree each."""

LEARNING_RATE = 1e-2
"""Adam's, to begin with."""

EPSILON = 0.05
"""The share of actions drawn uniformly."""

SLEEP = "sleep"
"""Maximum likelihood on dreams: alone, or behind a `+` beside another objective."""

SLEEP_PHASE = SleepPhase(probability=1.0, weight=1.0)
"""Beside another objective: as many dreams as an update has sentences."""

NEEDED = {
    "span-db": (SpanPolicy, "an expansion of spans"),
    "tb": (HasLogPartition, "a log_partition"),
    "vargrad": (Policy, "a policy"),
    "fl-subtb": (HasStateFlow, "a state_flow"),
}
"""The objectives, and what they need of a policy."""

OF_MODEL = {"span-db": "node_scores", "fl-subtb": "log_partial"}
"""What some objectives need of the model."""


def make_problem(task: str, policy: str) -> TreeProblem:
    """Gives a registered tree problem whose trees are built as a policy builds them."""
    return _problem(task, "bottom-up" if policy in BOTTOM_UP else "top-down")


@functools.cache
def _problem(task: str, tree: str) -> TreeProblem:
    """Makes a tree problem, once: nobody changes it."""
    problem: TreeProblem = tree_problems.make(task, tree=tree)
    return problem


def make_e_step(task: str, policy: str, objective: str, seed: int, rate: float) -> GFlowNetEStep:
    """Makes the training of one policy on one grammar's posterior, one update a `fit`.

    Args:
        task: A registered tree problem.
        policy: A registered tree policy.
        objective: One of `NEEDED`, behind which `+sleep` adds dreams, or `sleep`.
        seed: Of everything random; other tasks, policies and objectives draw other numbers.
        rate: Adam's.

    Raises:
        UserError: If a name is unknown, or policy and objective do not fit together.
    """
    model = make_problem(task, policy).model
    generator = torch.Generator().manual_seed(derive_seed(seed, task, policy, objective))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        made = tree_policies.make(policy, model)
    name = objective.removesuffix(f"+{SLEEP}")
    return GFlowNetEStep(
        model,
        made,
        make_objective(name, made, model),
        exploration=Sleep() if name == SLEEP else EpsilonUniform(EPSILON),
        alternation=FixedUpdates(1),
        batch_size=SENTENCES,
        samples_per_x=TREES,
        learning_rate=rate,
        sleep=None if name == objective else SLEEP_PHASE,
        generator=generator,
    )


def make_objective(name: str, policy: Policy, model: LatentVariableModel) -> Objective:
    """Makes an objective with what it needs of the model.

    Raises:
        UserError: If it is unknown, or cannot train the policy.
    """
    if name == SLEEP:
        return ForwardKL()
    if name not in NEEDED:
        raise unknown_name("objective", name, [*NEEDED, SLEEP])
    kind, what = NEEDED[name]
    if not isinstance(policy, kind):
        raise UserError(f"{name} needs {what}; {type(policy).__name__} has none.")
    arguments = []
    if name in OF_MODEL:
        if not hasattr(model, OF_MODEL[name]):
            raise UserError(
                f"{name} needs {OF_MODEL[name]}, which {type(model).__name__} does not have."
            )
        arguments.append(getattr(model, OF_MODEL[name]))
    return objectives.make(name, *arguments, residual_loss=Huber())
