"""Priors over grids of codes against enumeration."""

import math

import pytest
import torch
from torch.nn import functional as F

from gfn_envs import CodeGrid, UserError
from lvms import TransformerPrior, code_priors
from tests.algorithms.statistics import assert_drawn_from

NAMES = sorted(code_priors)
LEARNED = [name for name in NAMES if name != "uniform"]
SHAPES = [((2, 2), 3), ((1, 4), 3), ((3, 1), 4), ((2, 3), 2), ((1, 1), 5)]


def random_prior(name, grid, num_codes, seed=0):
    """A prior with every parameter at random, so that each code depends on those before it."""
    prior = code_priors.make(name, grid, num_codes, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return prior


def every_grid(prior):
    env = CodeGrid(prior.grid, prior.num_codes)
    return env.enumerate(env.empty_context(1)[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("grid", "num_codes"), SHAPES)
def test_probabilities_sum_to_one(name, grid, num_codes):
    prior = random_prior(name, grid, num_codes)
    log_prob = prior.log_prob(every_grid(prior))
    assert log_prob.shape == (num_codes ** math.prod(grid),)
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-4)
    assert (log_prob.std() > 0.1) == (name != "uniform")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("grid", "num_codes"), SHAPES)
def test_a_new_prior_is_uniform(name, grid, num_codes):
    prior = code_priors.make(name, grid, num_codes)
    log_prob = prior.log_prob(every_grid(prior))
    expected = torch.full_like(log_prob, -math.prod(grid) * math.log(num_codes))
    torch.testing.assert_close(log_prob, expected)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(("grid", "num_codes"), [((3, 4), 3), ((4, 4), 8)])
def test_a_code_changes_every_later_conditional_and_no_earlier_one(name, grid, num_codes):
    prior = random_prior(name, grid, num_codes)
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(num_codes, (6, math.prod(grid)), generator=generator)
    before = prior.logits(z)
    for place in range(z.shape[1]):
        changed = z.clone()
        changed[:, place] = (z[:, place] + 1) % num_codes
        moved = (prior.logits(changed) - before).abs().amax((0, 2))
        assert moved[: place + 1].max() < 1e-5
        if place + 1 < z.shape[1]:
            assert moved[place + 1 :].min() > 1e-4  # no blind spot


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grid", [(2, 2), (1, 3)])
def test_samples_have_the_stated_frequencies(name, grid):
    prior = random_prior(name, grid, 3)
    z = prior.sample(20_000, torch.Generator().manual_seed(0))
    assert z.dtype == torch.int64
    structures = every_grid(prior)
    assert_drawn_from(z, structures, prior.log_prob(structures).detach())


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_fixed_by_the_generator(name):
    prior = random_prior(name, (2, 2), 4)
    first, again, other = (prior.sample(50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_transformer_s_cache_changes_nothing():
    prior = random_prior("transformer", (3, 3), 5)
    cached = prior.sample(64, torch.Generator().manual_seed(0))
    plain = super(TransformerPrior, prior).sample(64, torch.Generator().manual_seed(0))
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("name", LEARNED)
def test_gradient_reaches_every_parameter(name):
    prior = random_prior(name, (2, 3), 4)
    z = torch.randint(4, (200, 6), generator=torch.Generator().manual_seed(0))
    prior.log_prob(z).sum().backward()
    for label, parameter in prior.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, label


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("grid", "num_codes"), [((2, 3), 4), ((4, 4), 8), ((1, 1), 5)])
def test_one_hot_weights_are_codes(name, grid, num_codes):
    prior = random_prior(name, grid, num_codes)
    generator = torch.Generator().manual_seed(0)
    z = torch.randint(num_codes, (9, math.prod(grid)), generator=generator)
    assert torch.equal(prior.relaxed_logits(F.one_hot(z, num_codes).float()), prior.logits(z))


@pytest.mark.parametrize("name", LEARNED)
def test_weights_reach_every_later_place_and_no_earlier_one(name):
    prior = random_prior(name, (2, 3), 4)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 6, 4, generator=generator).softmax(-1)

    def scores(weights):
        return prior.relaxed_logits(weights).square().sum((0, 2))

    reached = torch.autograd.functional.jacobian(scores, weights).abs().amax((1, 3))
    later = torch.ones(6, 6).tril(-1).bool()
    assert reached[later].min() > 1e-5
    assert reached[~later].max() == 0


@pytest.mark.parametrize("name", LEARNED)
def test_a_start_forgets_all_that_was_learned(name):
    prior = random_prior(name, (2, 2), 3)
    learned = {label: parameter.clone() for label, parameter in prior.named_parameters()}
    prior.start(torch.Generator().manual_seed(7))
    for label, parameter in prior.named_parameters():
        assert not torch.equal(parameter, learned[label]), label
    again = random_prior(name, (2, 2), 3, seed=5)
    again.start(torch.Generator().manual_seed(7))
    assert all(map(torch.equal, prior.parameters(), again.parameters()))
    assert prior.log_prob(every_grid(prior)).std() < 1e-6


@pytest.mark.parametrize("name", LEARNED)
def test_a_prior_learns_codes_that_depend_on_each_other(name):
    # The second row repeats the first: 9 of 81 grids, so the best is log 9 nats.
    row = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    z = torch.cat([row, row], 1)
    prior = code_priors.make(name, (2, 2), 3)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.01)
    for _ in range(150):
        loss = -prior.log_prob(z).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(9), abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_another_device(name):
    prior = code_priors.make(name, (2, 2), 3).to("meta")
    z = prior.sample(5)
    assert (z.device.type, z.shape) == ("meta", (5, 4))
    assert prior.log_prob(z).shape == (5,)
    assert prior.relaxed_logits(torch.zeros(5, 4, 3, device="meta")).shape == (5, 4, 3)


def test_wrong_arguments_are_user_errors():
    with pytest.raises(UserError, match="width must be a multiple of heads; got 30 and 4"):
        TransformerPrior((2, 2), 3, width=30)
    with pytest.raises(UserError, match=r"no prior over codes 'pixelcnn'. Did you mean pixel-cnn"):
        code_priors.make("pixelcnn", (2, 2), 3)
