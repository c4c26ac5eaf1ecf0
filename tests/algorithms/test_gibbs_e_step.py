import pytest
import torch

from algorithms.e_step import MetropolisEStep
from algorithms.em import EM
from algorithms.gibbs_e_step import GibbsEStep
from algorithms.m_step import ClosedForm
from algorithms.schedule import Linear
from gfn_envs import FactoredCategorical, UserError
from lvms import HierarchicalGaussianMixture
from tests.algorithms.models import TableModel
from tests.algorithms.statistics import assert_drawn_from
from tests.envs import Stairs


def e_step_of(model, seed=0, **settings):
    return GibbsEStep(model, generator=torch.Generator().manual_seed(seed), **settings)


def test_chains_reach_the_posterior_and_stay_with_their_observations():
    model = TableModel(FactoredCategorical((2, 3, 2)), spread=1.0)
    e_step, x = e_step_of(model, sweeps=30, chains=5000), model.observations()
    e_step.fit(x, m_steps=0)
    samples = e_step.posterior(x, k=7)
    assert samples.z.shape == (2, 5000, 3)
    assert torch.allclose(samples.log_w.exp().sum(1), torch.ones(2), atol=1e-4)
    for row in range(2):
        assert_drawn_from(samples.z[row], model.structures, model.log_posterior()[row])


def test_a_sweep_costs_one_evaluation_for_every_value():
    model = TableModel(FactoredCategorical((2, 3, 2)))
    e_step, x = e_step_of(model, sweeps=4, chains=3), model.observations()
    e_step.fit(x, m_steps=0)
    assert e_step.likelihood_evaluations == 4 * (2 + 3 + 2) * 3 * len(x)


def test_it_goes_on_from_a_saved_state_exactly():
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))

    def make():
        model, generator = HierarchicalGaussianMixture(), torch.Generator().manual_seed(1)
        model.start_at_data(points, generator)
        e_step = GibbsEStep(model, generator=generator)
        return EM(model, e_step, ClosedForm(model), generator=generator)

    straight, first, second = make(), make(), make()
    for _ in range(4):
        straight.update(points)
    for em in (first, second):
        if em is second:
            em.load_state_dict(first.state_dict())
        for _ in range(2):
            em.update(points)
    assert torch.equal(second.model.means, straight.model.means)
    assert second.likelihood_evaluations == straight.likelihood_evaluations


def test_latents_of_another_kind_are_a_user_error_before_any_work():
    with pytest.raises(UserError, match="TableModel builds its own in Stairs"):
        GibbsEStep(TableModel(Stairs()))


@pytest.mark.parametrize("make", [GibbsEStep, MetropolisEStep])
def test_chains_may_sample_a_power_of_the_posterior_that_rises(make):
    model = TableModel(FactoredCategorical((2, 3)), spread=1.5)
    x, beta = model.observations(), Linear(0.3, 1.0, 10)
    for m_steps, power in ((0, 0.3), (10, 1.0)):
        e_step = make(model, 60, chains=5000, generator=torch.Generator().manual_seed(0), beta=beta)
        e_step.fit(x, m_steps)
        expected = (power * model.table.detach()).log_softmax(-1)
        for row, z in enumerate(e_step.posterior(x, k=1).z):
            assert_drawn_from(z, model.structures, expected[row])
    with pytest.raises(UserError, match="beta must be a positive number"):
        make(model, beta=0.0)
