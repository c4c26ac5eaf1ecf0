"""The hidden Markov model against brute force over its chains."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import UserError
from lvms import (
    ClosedFormMStep,
    EnumeratedPosterior,
    ExactPosterior,
    HiddenMarkovModel,
    MeanField,
    PartialJoint,
    StartAtData,
    WeightedSamples,
    exact_posterior,
)
from lvms.hidden_markov import PROBABILITY_FLOOR
from tests.algorithms.statistics import assert_drawn_from

STEPS = st.integers(1, 4)
STATES = st.integers(1, 3)
ORDERS = st.sampled_from(["fixed", "any"])
SEEDS = st.integers(0, 2**32 - 1)

few = settings(max_examples=25, deadline=None)


def random_model(steps, states, seed, order="fixed", scale=0.7):
    """A model with every parameter at random, and sequences around its means."""
    generator = torch.Generator().manual_seed(seed)
    model = HiddenMarkovModel(steps, states, scale=scale, order=order)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(5, steps, generator=generator)


def chains(model):
    return list(itertools.product(range(model.states), repeat=model.steps))


def hand_log_joint(model, x, chain):
    """log p(x, z) of one sequence and one chain as the docstring says, with math alone."""
    initial = model.initial_logits.double().softmax(-1).tolist()
    transition = model.transition_logits.double().softmax(-1).tolist()
    means, scale = model.means.tolist(), model.scale
    total = math.log(initial[chain[0]])
    for before, after in itertools.pairwise(chain):
        total += math.log(transition[before][after])
    for value, state in zip(x, chain, strict=True):
        total -= (value - means[state]) ** 2 / (2 * scale**2)
        total -= math.log(scale * math.sqrt(2 * math.pi))
    return total


def density_table(model, x):
    """log p(x, z) of all sequences and chains, double precision `[B, Z]`."""
    return torch.tensor(
        [[hand_log_joint(model, row, chain) for chain in chains(model)] for row in x.tolist()],
        dtype=torch.float64,
    )


def all_chains(model, x):
    """Every chain for each observation, weighted by its exact posterior."""
    z = torch.tensor(chains(model)).expand(len(x), -1, -1)
    return WeightedSamples(z, density_table(model, x).log_softmax(-1).float())


def expected_log_joint(model, x, samples):
    k = samples.z.shape[1]
    joint = model.log_joint(x.repeat_interleave(k, 0), samples.z.flatten(0, 1)).view(len(x), k)
    return (samples.log_w.exp() * joint).sum()


# -- densities ------------------------------------------------------------------------------------


@few
@given(STEPS, STATES, ORDERS, SEEDS)
def test_everything_exact_matches_brute_force(steps, states, order, seed):
    model, x = random_model(steps, states, seed, order)
    table, enumerated = density_table(model, x), EnumeratedPosterior(model)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(enumerated.log_joint_table(x).double(), table, **close)
    torch.testing.assert_close(model.log_marginal(x).double(), table.logsumexp(-1), **close)
    for k, chain in enumerate(chains(model)):
        z = torch.tensor(chain).expand(len(x), -1)
        got = model.posterior_log_prob(x, z)
        torch.testing.assert_close(got.double(), table.log_softmax(-1)[:, k], **close)


@few
@given(STEPS, STATES, SEEDS)
def test_gradient_of_the_marginal_is_the_expected_gradient_of_the_joint(steps, states, seed):
    model, x = random_model(steps, states, seed)
    parameters = list(model.parameters())
    marginal = model.log_marginal(x).sum()
    got = torch.autograd.grad(marginal, parameters, materialize_grads=True)
    joint = expected_log_joint(model, x, all_chains(model, x))
    # A chain of one step has no transition in its joint.
    expected = torch.autograd.grad(joint, parameters, materialize_grads=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@few
@given(STEPS, STATES, SEEDS)
def test_partial_joint_of_a_prefix_is_the_joint_of_a_shorter_model(steps, states, seed):
    model, x = random_model(steps, states, seed)
    _, z = model.sample(len(x), torch.Generator().manual_seed(seed))
    torch.testing.assert_close(model.log_partial(x, z), model.log_joint(x, z))
    for length in range(1, steps):
        shorter, _ = random_model(length, states, seed)
        shorter.load_state_dict(model.state_dict())
        prefix = z.clone()
        prefix[:, length:] = -1
        expected = shorter.log_joint(x[:, :length], z[:, :length])
        torch.testing.assert_close(model.log_partial(x, prefix), expected)
    assert model.log_partial(x, torch.full_like(z, -1)).tolist() == [0.0] * len(x)


def test_partial_joint_leaves_out_what_a_gap_touches():
    model, x = random_model(4, 3, seed=7, order="any")
    state = torch.tensor([[-1, 2, -1, 1]]).expand(len(x), -1)
    away = (x[:, [1, 3]] - model.means[[2, 1]]) / model.scale
    expected = (-away.square() / 2 - math.log(model.scale * math.sqrt(2 * math.pi))).sum(-1)
    torch.testing.assert_close(model.log_partial(x, state), expected)


@pytest.mark.parametrize("order", ["fixed", "any"])
def test_partial_joint_is_finite_on_every_state_and_the_joint_on_complete_ones(order):
    model, x = random_model(3, 3, seed=2, order=order)
    for state in model.env.enumerate_states(model.env.empty_context(1)[0]):
        pair = x, state.expand(len(x), -1)
        assert model.log_partial(*pair).isfinite().all()
        if (state >= 0).all():
            torch.testing.assert_close(model.log_partial(*pair), model.log_joint(*pair))


# -- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(3))
def test_posterior_samples_follow_the_exact_posterior(row):
    model, x = random_model(3, 3, seed=1)
    z = model.sample_posterior(x, 6000, torch.Generator().manual_seed(row))
    assert z.shape == (len(x), 6000, 3)
    exact = density_table(model, x).log_softmax(-1)
    assert_drawn_from(z[row], torch.tensor(chains(model)), exact[row])


def test_dreams_follow_the_prior_and_the_emissions():
    model, _ = random_model(3, 2, seed=2, scale=0.3)
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    assert not x.requires_grad
    zero = torch.zeros(1, 3)
    emission = model._log_gaussian(zero[..., None] - model.means).double()
    everything = torch.tensor(chains(model))
    prior = density_table(model, zero)[0]
    prior = prior - emission[0, torch.arange(3), everything].sum(-1).detach()
    assert_drawn_from(z, everything, prior)
    away = ((x - model.means[z]) / model.scale).detach()
    assert away.mean(0).abs().max() < 4 / 20_000**0.5
    assert away.std(0).tolist() == pytest.approx([1.0] * 3, rel=0.03)


# -- M-step ---------------------------------------------------------------------------------------


@few
@given(st.integers(2, 4), STATES, SEEDS)
def test_maximise_finds_the_maximum(steps, states, seed):
    model, x = random_model(steps, states, seed)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(states, (len(x), 4, steps), generator=generator)
    samples = WeightedSamples(z, torch.rand(len(x), 4, generator=generator).log_softmax(-1))
    model.maximise(x, samples)
    best = expected_log_joint(model, x, samples)
    for gradient in torch.autograd.grad(best, list(model.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-3, rtol=0)
    found = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for parameter, at in zip(model.parameters(), found, strict=True):
                parameter.copy_(at + 0.3 * torch.randn(at.shape, generator=generator))
            assert expected_log_joint(model, x, samples) < best + 1e-3


@few
@given(STEPS, STATES, SEEDS)
def test_exact_em_raises_the_likelihood(steps, states, seed):
    model, x = random_model(steps, states, seed)
    likelihoods = [model.log_marginal(x).sum().item()]
    for _ in range(3):
        model.maximise(x, all_chains(model, x))
        likelihoods.append(model.log_marginal(x).sum().item())
    for before, after in itertools.pairwise(likelihoods):
        assert after > before - 1e-3
    # A random start is not a fixed point, but for one state whose mean is all there is to learn.
    assert likelihoods[-1] > likelihoods[0]


def test_maximise_counts():
    model = HiddenMarkovModel(steps=3, states=2)
    x = torch.tensor([[1.0, 2.0, 5.0]])
    z = torch.tensor([[[0, 0, 1], [1, 0, 1]]])
    model.maximise(x, WeightedSamples(z, torch.tensor([[0.25, 0.75]]).log()))
    assert model.initial_logits.softmax(-1).tolist() == pytest.approx([0.25, 0.75])
    # From 0: to 0 with weight 0.25, to 1 with weight 1; from 1: to 0 with weight 0.75.
    expected = [0.2, 0.8, 1 - PROBABILITY_FLOOR, PROBABILITY_FLOOR]
    got = model.transition_logits.softmax(-1).flatten().tolist()
    assert got == pytest.approx(expected, rel=1e-3)
    mean_of_0 = (0.25 * 1.0 + 2.0) / 1.25
    mean_of_1 = (0.75 * 1.0 + 5.0) / 1.75
    assert model.means.tolist() == pytest.approx([mean_of_0, mean_of_1])


def test_maximise_leaves_an_unused_state_where_it_is_and_every_number_finite():
    model, x = random_model(4, 3, seed=3)
    means, rows = model.means.detach().clone(), model.transition_logits.detach().clone()
    z = torch.tensor([0, 1, 0, 1]).expand(len(x), 1, -1)
    model.maximise(x, WeightedSamples.equal(z))
    assert torch.equal(model.means[2], means[2])
    assert torch.equal(model.transition_logits[2], rows[2])
    assert not torch.allclose(model.means[:2], means[:2])
    loss = model.log_marginal(x).sum() + model.log_joint(x, torch.full_like(z[:, 0], 2)).sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(model.parameters())))


# -- mean field -----------------------------------------------------------------------------------


def factor_product(log_q):
    """log q(z | x) of every chain, double precision `[B, Z]`."""
    total = torch.zeros(len(log_q[0]), 1, dtype=torch.float64)
    for factor in log_q:
        total = (total[..., None] + factor[:, None].double()).flatten(1)
    return total


def elbo(log_q, table):
    product = factor_product(log_q)
    return (product.exp() * (table - product)).sum(-1)


@few
@given(STEPS, STATES, SEEDS)
def test_the_elbo_never_falls_and_stays_below_the_marginal(steps, states, seed):
    model, x = random_model(steps, states, seed)
    table = density_table(model, x)
    bounds = [elbo(model.mean_field(x, sweeps), table) for sweeps in range(5)]
    for earlier, later in itertools.pairwise(bounds):
        assert (later >= earlier - 1e-4).all()
    assert (bounds[-1] <= table.logsumexp(-1) + 1e-4).all()


def test_mean_field_converges_to_a_point_where_no_factor_can_be_bettered():
    model, x = random_model(3, 3, seed=5)
    table = density_table(model, x)
    log_q = model.mean_field(x, 60)
    for t in range(3):
        others = [q.double() if s != t else torch.zeros(5, 3).double() for s, q in enumerate(log_q)]
        mean = (factor_product(others).exp() * table).view(5, 3, 3, 3)
        best = mean.movedim(t + 1, 1).flatten(2).sum(-1).softmax(-1)
        torch.testing.assert_close(log_q[t].double().exp(), best, rtol=0, atol=1e-4)


def test_mean_field_is_exact_for_a_chain_of_one():
    model, x = random_model(1, 4, seed=4)
    (factor,) = model.mean_field(x, 1)
    torch.testing.assert_close(factor, EnumeratedPosterior(model).log_posterior_table(x).detach())


# -- starting, saving, wrong arguments ------------------------------------------------------------


def test_starts_at_distinct_values_of_the_data():
    model, x = HiddenMarkovModel(4, 3), torch.arange(20.0).view(5, 4)
    starts = set()
    for seed in range(4):
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        starts.add(frozenset(model.means.tolist()))
    assert model.version == 4
    assert len(starts) == 4
    assert all(len(start) == 3 and start <= set(range(20)) for start in starts)
    with pytest.raises(UserError, match="2 values are too few to start 3 states"):
        model.start_at_data(torch.zeros(1, 2))


def test_a_start_forgets_all_that_was_learned():
    x = torch.arange(20.0).view(5, 4)
    learned, new = random_model(4, 3, seed=0)[0], HiddenMarkovModel(4, 3)
    for model in (learned, new):
        model.start_at_data(x, torch.Generator().manual_seed(0))
    for name, parameter in learned.named_parameters():
        assert torch.equal(parameter, new.get_parameter(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"states": 0}, "at least 1"),
        ({"scale": 0.0}, "must be positive"),
        ({"scale": math.nan}, "must be positive"),
        ({"order": "random"}, "Unknown build order"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        HiddenMarkovModel(**arguments)


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = HiddenMarkovModel()
    for protocol in (ExactPosterior, ClosedFormMStep, MeanField, PartialJoint, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


def test_moves_to_another_device_with_its_environment():
    model = HiddenMarkovModel(4, 3).to("meta")
    x, z = model.sample(2)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
