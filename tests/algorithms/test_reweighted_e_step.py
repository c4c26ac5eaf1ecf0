import math

import pytest
import torch

from algorithms.metropolis import UniformPolicy
from algorithms.mlp_policy import MLPPolicy
from algorithms.reweighted_e_step import ReweightedEStep
from algorithms.reweighted_wake import ReweightedWake
from gfn_envs import FactoredCategorical
from tests.algorithms.models import PosteriorPolicy, TableModel

ENVS = {order: FactoredCategorical((2, 3), order=order) for order in ("fixed", "any")}


class UniformWithParameters(UniformPolicy):
    """Uniform over legal actions; an optimiser wants something to move."""

    def __init__(self, env):
        super().__init__(env)
        self.unused = torch.nn.Parameter(torch.zeros(()))


def make(model, policy):
    generator = torch.Generator().manual_seed(0)
    return ReweightedEStep(model, policy, ReweightedWake(), generator=generator)


@pytest.mark.parametrize("order", ENVS)
def test_weighted_samples_of_a_wrong_policy_stand_for_the_posterior(order):
    model, k = TableModel(ENVS[order]), 20_000
    samples = make(model, UniformWithParameters(model.env)).posterior(model.observations(), k)
    place = (samples.z[:, :, None] == model.structures).all(-1).long().argmax(-1)
    weight = samples.log_w.exp()
    torch.testing.assert_close(weight.sum(-1), torch.ones(2))
    share = torch.zeros(2, 6).scatter_add(1, place, weight)
    p = model.log_posterior().exp()
    # The variance of a self-normalised estimate is E_q[w^2 (1[z] - p)^2] / k. Here E_q[w^2 | z] is
    # 6 p^2 in fixed order; in any, with trajectories of unequal probability, 6.25 p^2.
    variance = 6.25 * (p.square() * (1 - 2 * p) + p.square() * p.square().sum(-1, keepdim=True))
    assert ((share - p).abs() < 5 * (variance / k).sqrt()).all()


@pytest.mark.parametrize("order", ENVS)
def test_samples_of_the_posterior_weigh_alike(order):
    model = TableModel(ENVS[order])
    samples = make(model, PosteriorPolicy(model)).posterior(model.observations(), 50)
    torch.testing.assert_close(samples.log_w, torch.full((2, 50), -math.log(50)), rtol=0, atol=1e-4)


def test_weighting_is_a_cost():
    model = TableModel(ENVS["fixed"])
    e_step = make(model, MLPPolicy(model.env, x_size=2))
    x = model.observations()
    e_step.fit(x, m_steps=0)
    assert e_step.likelihood_evaluations == 20 * 2 * 4
    e_step.posterior(x, 10)
    assert e_step.likelihood_evaluations == 20 * 2 * 4 + 2 * 10
    again = make(model, MLPPolicy(model.env, x_size=2))
    again.load_state_dict(e_step.state_dict())
    again.posterior(x, 10)
    assert again.likelihood_evaluations == 20 * 2 * 4 + 4 * 10
