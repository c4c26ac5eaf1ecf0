"""Learners on mini-batches without a policy: marginalisation, exact sampling, Monte Carlo EM."""

from copy import deepcopy

import pytest
import torch

from algorithms.batch_sampler import SimilarSizes
from algorithms.exact_sampling_em import ExactSamplingEM
from algorithms.markov_kernel import SymmetricMetropolis
from algorithms.minibatch_learner import ScheduledAdam
from algorithms.minibatch_marginalisation import MinibatchMarginalisation
from algorithms.monte_carlo_em import MonteCarloEM
from algorithms.schedule import Exponential
from gfn_envs import FactoredCategorical, UserError
from lvms import EnumeratedPosterior, HiddenMarkovModel
from tests.algorithms.models import TableModel
from tests.algorithms.statistics import assert_drawn_from


def flip(states):
    """Proposes another value for one variable: symmetric."""

    def propose(z, generator):
        z = z.clone()
        where = torch.randint(z.shape[1], (len(z),), generator=generator)
        value = torch.randint(states, (len(z),), generator=generator)
        z[torch.arange(len(z)), where] = value
        return z

    return propose


def truth(steps=3):
    model = HiddenMarkovModel(steps, 3, scale=0.5)
    with torch.no_grad():
        model.means.copy_(torch.tensor([-2.0, 0.5, 2.5]))
        model.transition_logits.copy_(torch.tensor([[2.0, 0, 0], [0, 0, 2], [0, 2, 0]]))
    return model


def data(n=300):
    return truth().sample(n, torch.Generator().manual_seed(0))[0]


def make(kind, moves=4, model=None, **settings):
    model = model or HiddenMarkovModel(3, 3, scale=0.5)
    generator = torch.Generator().manual_seed(1)
    settings = {
        "num_updates": 12,
        "rounds": 4,
        "batch_size": 16,
        "generator": generator,
        **settings,
    }
    if kind is MonteCarloEM:
        return MonteCarloEM(model, SymmetricMetropolis(flip(3), moves), **settings)
    return kind(model, **settings)


KINDS = [MinibatchMarginalisation, ExactSamplingEM, MonteCarloEM]


def gradient(learner, x, ids):
    learner.model.zero_grad()
    learner.loss(x, ids)[0].backward()
    return torch.cat([p.grad.flatten() for p in learner.model.parameters()])


def test_marginalisation_climbs_log_p():
    x = data()
    learner = make(MinibatchMarginalisation)
    ids = torch.arange(20)
    ours = gradient(learner, x[ids], ids)
    learner.model.zero_grad()
    (-EnumeratedPosterior(learner.model).log_marginal(x[ids]).mean()).backward()
    theirs = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert learner.likelihood_evaluations == 20


@pytest.mark.parametrize("kind", [ExactSamplingEM, MonteCarloEM])
def test_samples_of_the_posterior_give_the_gradient_of_log_p_on_average(kind):
    x = data()[:4]
    ids = torch.tensor([0, 1, 2, 3, 3, 0])  # drawn twice, an observation counts twice
    learner = make(MinibatchMarginalisation)
    exact = gradient(learner, x[ids], ids)
    if kind is ExactSamplingEM:
        other = make(kind, model=learner.model, samples_per_x=4000)
    else:
        other = make(kind, model=learner.model, chains=4000, moves=60)
        other.z = learner.model.env.initial_state.repeat(4, 4000, 1)
    error = (gradient(other, x[ids], ids) - exact).norm()
    # 4000 independent samples of each: a hundredth of a gradient's spread of about 1.
    assert error < 0.05 * max(1.0, exact.norm().item())


def test_chains_are_kept_for_each_observation_and_reach_the_posterior():
    model = TableModel(FactoredCategorical((3, 3)), num_x=2)
    x = model.observations()[torch.arange(2).repeat(1500)]
    learner = MonteCarloEM(
        model, SymmetricMetropolis(flip(3), 5), chains=2, num_updates=60, rounds=2,
        batch_size=3000, model_rate=1e-9, sampler=SimilarSizes(lambda x: x[:, 0]),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert len(learner.z) == 0
    learner.update(x)
    before = learner.z.clone()
    ids = torch.tensor([5, 7, 5])
    learner.loss(x[ids], ids)
    assert (before != learner.z).any(-1).any(-1).nonzero().squeeze(1).tolist() in ([5], [7], [5, 7])
    for row in range(2):
        assert_drawn_from(
            before[row::2].flatten(0, 1), model.structures, model.log_posterior()[row]
        )
    # Every visit of every chain evaluates its state and five proposals.
    assert learner.likelihood_evaluations == 30 * 3000 * 2 * 6 + 2 * 2 * 6


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns(kind):
    x, held_out = data(600), truth().sample(400, torch.Generator().manual_seed(5))[0]
    learner = make(
        kind, num_updates=300, rounds=2, batch_size=32, model_rate=Exponential(3e-2, 3e-3, 300)
    )
    nll = -learner.model.log_marginal(held_out).mean().item()
    for _ in range(2):
        metrics = learner.update(x)
    assert "acceptance" not in metrics or 0.05 < metrics["acceptance"] < 0.95
    after, best = (-m.log_marginal(held_out).mean().item() for m in (learner.model, truth()))
    # The same entropy is left, up to a tenth of a nat for 600 observations and small steps.
    assert best - 0.1 < after < best + 0.15
    assert nll > best + 0.5
    assert learner.model.version == 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("similar", [False, True])
def test_an_interrupted_run_ends_as_an_undisturbed_one(kind, similar):
    def start():
        sampler = SimilarSizes(lambda x: x[:, 0]) if similar else None
        rate = Exponential(1e-2, 1e-3, 12)
        return make(kind, sampler=sampler, max_norm=0.5, betas=(0.75, 0.999), model_rate=rate)

    x = data(40)
    whole, first, second = start(), start(), start()
    logged = [whole.update(x) for _ in range(4)]
    assert [first.update(x) for _ in range(2)] == logged[:2]
    saved = deepcopy(first.state_dict())
    second.load_state_dict(saved)
    assert [second.update(x) for _ in range(2)] == logged[2:]
    assert second.likelihood_evaluations == whole.likelihood_evaluations > 0
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, second.model.get_parameter(name)), name


def test_long_gradients_are_clipped():
    parameter = torch.nn.Parameter(torch.zeros(2))
    free = torch.nn.Parameter(torch.zeros(2))
    slope = torch.tensor([30.0, 40.0])
    optimizer = ScheduledAdam([([parameter], 1e-3)], max_norm=3.0)
    optimizer.descend(parameter @ slope)
    torch.testing.assert_close(parameter.grad, torch.tensor([1.8, 2.4]))
    optimizer.descend(parameter @ slope / 50)  # shorter ones are not
    torch.testing.assert_close(parameter.grad, slope / 50)
    optimizer = ScheduledAdam([([free], 1e-3)], betas=(0.75, 0.999))
    optimizer.descend(free @ slope)
    torch.testing.assert_close(free.grad, slope)
    assert optimizer.param_groups[0]["betas"] == (0.75, 0.999)


def test_batches_of_similar_sizes_choose_each_observation_as_often():
    generator = torch.Generator().manual_seed(0)
    size = torch.randint(2, 9, (50,), generator=generator)
    sampler = SimilarSizes(lambda x: x)
    count, spread = torch.zeros(50), []
    for _ in range(40):
        sampler.begin_round(size, generator)
        for _ in range(100):
            ids = sampler.draw(size, 8, generator)
            assert len(ids.unique()) == 8
            count[ids] += 1
            spread.append((size[ids].max() - size[ids].min()).item())
    # Each count has mean 640 and is a sum of 4000 draws of probability 8 / 50: 5 deviations.
    assert (count - 640).abs().max() < 5 * (4000 * 0.16 * 0.84) ** 0.5
    assert sorted(spread)[len(spread) // 2] <= 2


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (ExactSamplingEM, {"samples_per_x": 0}, "samples_per_x must be at least 1"),
        (MonteCarloEM, {"chains": 0}, "at least 1 chain"),
        (MonteCarloEM, {"moves": 0}, "at least 1 move"),
        (MinibatchMarginalisation, {"max_norm": 0.0}, "max_norm must be positive"),
        (MinibatchMarginalisation, {"num_updates": 3}, "as many updates as rounds"),
    ],
)
def test_wrong_settings_are_refused(kind, settings, says):
    with pytest.raises(UserError, match=says):
        make(kind, **settings)
