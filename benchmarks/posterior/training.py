"""How every comparison of this package trains a policy at fixed theta."""

from typing import Any

import torch
from torch import Tensor

from algorithms.alternation import FixedUpdates
from algorithms.explorations import explorations
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.metropolis import UniformPolicy
from algorithms.objective import Objective
from algorithms.objectives import objectives
from algorithms.policies import policies
from algorithms.policy import Policy
from algorithms.tree_policies import tree_policies
from benchmarks.provenance import derive_seed
from gfn_envs.errors import UserError
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.model import LatentVariableModel, PartialJoint
from lvms.models import models, observations

NUM_X, SAMPLES_PER_X = 32, 16

POLICY, TREE_POLICY = "mlp-2", "chart"
"""What is trained by default; trees of words need a policy that reads words."""

LEARNING_RATE = 1e-2
"""Adam's, to begin with."""

FAST_SHARE = 2 / 3
"""The share of a training before the learning rate falls to a tenth."""


def make_data(task: str) -> Tensor:
    """Draws the observations that a comparison on a registered model trains on, `[NUM_X, ...]`."""
    return observations(models.make(task), NUM_X)


def make_e_step(
    task: str,
    objective: str,
    exploration: str,
    x: Tensor,
    seed: int,
    learning_rate: float = LEARNING_RATE,
) -> GFlowNetEStep:
    """Makes the training of one policy on one model's posterior, one update a `fit`.

    Args:
        task: A registered model.
        objective: A registered objective.
        exploration: A registered exploration.
        x: What `make_data` returned for the task.
        seed: Of everything random; other tasks, objectives and explorations draw other numbers.
        learning_rate: Adam's.

    Returns:
        The E-step.

    Raises:
        UserError: If a name is unknown, or objective, exploration and model do not fit together.
    """
    model = models.make(task)
    generator = torch.Generator().manual_seed(derive_seed(seed, task, objective, exploration))
    return GFlowNetEStep(
        model,
        make_policy(model, x, generator.initial_seed()),
        make_objective(objective, model),
        exploration=explorations.make(exploration),
        alternation=FixedUpdates(1),
        batch_size=NUM_X,
        samples_per_x=SAMPLES_PER_X,
        learning_rate=learning_rate,
        generator=generator,
    )


def make_policy(
    model: LatentVariableModel, x: Tensor, seed: int, name: str | None = None, **settings: Any
) -> Policy:
    """Makes the policy of a comparison.

    Args:
        model: The model whose posterior it samples.
        x: Observations, `[B, ...]`.
        seed: Of its weights.
        name: A registered policy, or tree policy where the model is a grammar; by default `POLICY`
            or `TREE_POLICY`.
        **settings: Of its network.

    Raises:
        UserError: If there is no such policy, or it cannot build the model's structures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_grammar(model):
            return tree_policies.make(name or TREE_POLICY, model, **settings)
        return policies.make(name or POLICY, model.env, x_size=x[0].numel(), **settings)


def make_objective(name: str, model: LatentVariableModel, **settings: Any) -> Objective:
    """Makes an objective with what it needs of the model.

    Args:
        name: A registered objective.
        model: The model.
        **settings: Further arguments of the objective.

    Raises:
        UserError: If the model does not have what it needs.
    """
    if name.startswith("fl-"):
        if not isinstance(model, PartialJoint):
            raise UserError(f"{type(model).__name__} has no log_partial, which {name} needs.")
        return objectives.make(name, model.log_partial, **settings)
    if name == "span-db":
        if not isinstance(model, Grammar):
            raise UserError(f"{type(model).__name__} has no node_scores, which {name} needs.")
        return objectives.make(name, model.node_scores, **settings)
    if name.startswith("rtb"):
        if is_grammar(model):
            raise UserError(
                f"{name} weighs structures against uniform actions, which build some trees more "
                "often than others."
            )
        return objectives.make(name, UniformPolicy(model.env), **settings)
    return objectives.make(name, **settings)


def is_grammar(model: LatentVariableModel) -> bool:
    """Says whether a model's structures are trees over words, to be built by a tree policy."""
    return isinstance(model, Grammar | EnergyGrammar)
