"""The sigmoid belief network against brute force over its structures."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lvms.blocks
from gfn_envs import UserError
from lvms import (
    EnumeratedPosterior,
    ExactPosterior,
    MeanField,
    PartialJoint,
    SigmoidBeliefNet,
    StartAtData,
    exact_posterior,
)
from tests.algorithms.statistics import assert_drawn_from

HIDDEN = st.integers(1, 5)
VISIBLE = st.integers(1, 4)
BLOCKS = st.sampled_from([1, 7, 40, 1 << 22])
ORDERS = st.sampled_from(["fixed", "any"])
SEEDS = st.integers(0, 2**32 - 1)

few = settings(max_examples=25, deadline=None)


def random_model(hidden, visible, seed, order="fixed"):
    """A model with every parameter at random, and observations of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    model = SigmoidBeliefNet(hidden, visible, order=order)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(1.5 * torch.randn(parameter.shape, generator=generator))
    return model, torch.randint(2, (5, visible), generator=generator).float()


def structures(model):
    return list(itertools.product([0, 1], repeat=model.hidden))


def hand_log_joint(model, x, z):
    """log p(x, z) of one observation and one structure as the docstring says, with math alone."""
    probability = [1 / (1 + math.exp(-a)) for a in model.prior_logits.tolist()]
    total = sum(math.log(p if on else 1 - p) for p, on in zip(probability, z, strict=True))
    for value, bias, weights in zip(x, model.bias.tolist(), model.weight.tolist(), strict=True):
        logit = bias + sum(w * on for w, on in zip(weights, z, strict=True))
        p = 1 / (1 + math.exp(-logit))
        total += math.log(p if value else 1 - p)
    return total


def density_table(model, x):
    """log p(x, z) of all observations and structures, double precision `[B, Z]`."""
    return torch.tensor(
        [[hand_log_joint(model, row, z) for z in structures(model)] for row in x.tolist()],
        dtype=torch.float64,
    )


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(lvms.blocks, "BLOCK_ELEMENTS", 24)


# -- densities ------------------------------------------------------------------------------------


@few
@given(HIDDEN, VISIBLE, ORDERS, BLOCKS, SEEDS)
def test_everything_exact_matches_brute_force(hidden, visible, order, block, seed):
    model, x = random_model(hidden, visible, seed, order)
    table, enumerated = density_table(model, x), EnumeratedPosterior(model)
    close = {"rtol": 1e-4, "atol": 1e-4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lvms.blocks, "BLOCK_ELEMENTS", block)
        torch.testing.assert_close(enumerated.log_joint_table(x).double(), table, **close)
        torch.testing.assert_close(model.log_joint_table(x).double(), table, **close)
        torch.testing.assert_close(model.log_marginal(x).double(), table.logsumexp(-1), **close)
        for k, z in enumerate(structures(model)):
            got = model.posterior_log_prob(x, torch.tensor(z).expand(len(x), -1))
            torch.testing.assert_close(got.double(), table.log_softmax(-1)[:, k], **close)


@few
@given(HIDDEN, VISIBLE, BLOCKS, SEEDS)
def test_gradient_of_the_marginal_is_the_expected_gradient_of_the_joint(
    hidden, visible, block, seed
):
    model, x = random_model(hidden, visible, seed)
    parameters = list(model.parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lvms.blocks, "BLOCK_ELEMENTS", block)
        got = torch.autograd.grad(model.log_marginal(x).sum(), parameters)
    posterior = density_table(model, x).softmax(-1).float()
    joint = (posterior * EnumeratedPosterior(model).log_joint_table(x)).sum()
    for a, b in zip(got, torch.autograd.grad(joint, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_sixteen_latents_are_summed_in_bounded_tables(monkeypatch):
    model = SigmoidBeliefNet(16, 12, seed=3)
    x, z = model.sample(70, torch.Generator().manual_seed(0))
    sizes, table = [], model._table
    monkeypatch.setattr(model, "_table", lambda *a: sizes.append(table(*a).numel()) or table(*a))
    marginal = model.log_marginal(x)
    assert len(sizes) == 2
    assert max(sizes) <= lvms.blocks.BLOCK_ELEMENTS
    assert marginal.shape == (70,)
    # One observation against all 65,536 pairs.
    expected = EnumeratedPosterior(model).log_marginal(x[-1:])
    torch.testing.assert_close(marginal[-1:], expected, rtol=1e-4, atol=1e-4)
    assert (model.posterior_log_prob(x, z) < 0).all()


# -- partial structures ---------------------------------------------------------------------------


@few
@given(HIDDEN, VISIBLE, ORDERS, SEEDS)
def test_partial_joint_puts_the_prior_mean_where_nothing_is_assigned(hidden, visible, order, seed):
    model, x = random_model(hidden, visible, seed, order)
    prior_mean = [1 / (1 + math.exp(-a)) for a in model.prior_logits.tolist()]
    for state in model.env.enumerate_states(model.env.empty_context(1)[0]):
        units = torch.tensor(
            [p if z < 0 else float(z) for p, z in zip(prior_mean, state.tolist(), strict=True)]
        )
        log_prior = sum(
            math.log(p if z else 1 - p)
            for p, z in zip(prior_mean, state.tolist(), strict=True)
            if z >= 0
        )
        on = torch.distributions.Bernoulli(logits=model.weight @ units + model.bias)
        got = model.log_partial(x, state.expand(len(x), -1))
        assert got.isfinite().all()
        torch.testing.assert_close(got, log_prior + on.log_prob(x).sum(-1), rtol=1e-4, atol=1e-4)
        if (state >= 0).all():
            joint = model.log_joint(x, state.expand(len(x), -1))
            torch.testing.assert_close(got, joint)


# -- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(3))
def test_posterior_samples_follow_the_exact_posterior(row, small_blocks):
    model, x = random_model(4, 3, seed=1)
    z = model.sample_posterior(x, 6000, torch.Generator().manual_seed(row))
    assert z.shape == (len(x), 6000, 4)
    assert z.dtype == torch.int64
    exact = density_table(model, x).log_softmax(-1)
    assert_drawn_from(z[row], torch.tensor(structures(model)), exact[row])


def test_dreams_follow_the_joint():
    model, _ = random_model(2, 2, seed=2)
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32
    assert not x.requires_grad
    every_x = torch.tensor(list(itertools.product([0, 1], repeat=2)))
    joint = density_table(model, every_x.float()).flatten()
    pairs = torch.cat(
        [every_x.repeat_interleave(4, 0), torch.tensor(structures(model)).repeat(4, 1)], 1
    )
    assert_drawn_from(torch.cat([x.long(), z], 1), pairs, joint)


# -- mean field -----------------------------------------------------------------------------------


def factor_product(log_q):
    """log q(z | x) of every structure, double precision `[B, Z]`."""
    total = torch.zeros(len(log_q[0]), 1, dtype=torch.float64)
    for factor in log_q:
        total = (total[..., None] + factor[:, None].double()).flatten(1)
    return total


def elbo(log_q, table):
    product = factor_product(log_q)
    return (product.exp() * (table - product)).sum(-1)


def ascend(model, table, sweeps):
    """Coordinate ascent on the enumerated table: log q_h = E over the others of log p(x, z)."""
    joint = table.view(len(table), *[2] * model.hidden)
    log_q = [torch.full((len(table), 2), -math.log(2), dtype=torch.float64)] * model.hidden
    for _, h in itertools.product(range(sweeps), range(model.hidden)):
        others = [q if i != h else torch.zeros_like(q) for i, q in enumerate(log_q)]
        mean = (factor_product(others).exp().view(joint.shape) * joint).movedim(h + 1, 1)
        log_q[h] = mean.reshape(len(table), 2, -1).sum(-1).log_softmax(-1)
    return log_q


@few
@given(HIDDEN, VISIBLE, BLOCKS, st.integers(0, 3), SEEDS)
def test_mean_field_is_coordinate_ascent_on_the_table(hidden, visible, block, sweeps, seed):
    model, x = random_model(hidden, visible, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lvms.blocks, "BLOCK_ELEMENTS", block)
        got = model.mean_field(x, sweeps)
    expected = ascend(model, density_table(model, x), sweeps)
    assert len(got) == hidden
    for factor, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(factor.double().exp(), reference.exp(), rtol=0, atol=1e-3)


@few
@given(HIDDEN, VISIBLE, SEEDS)
def test_the_elbo_never_falls_and_stays_below_the_marginal(hidden, visible, seed):
    model, x = random_model(hidden, visible, seed)
    table = density_table(model, x)
    bounds = [elbo(model.mean_field(x, sweeps), table) for sweeps in range(5)]
    for earlier, later in itertools.pairwise(bounds):
        assert (later >= earlier - 1e-4).all()
    assert (bounds[-1] <= table.logsumexp(-1) + 1e-4).all()


# -- starting, wrong arguments --------------------------------------------------------------------


def test_weights_differ_between_seeds_and_latents():
    first, again, other = (SigmoidBeliefNet(3, 4, seed=s).weight for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_a_start_forgets_all_that_was_learned_and_matches_the_units():
    x = (torch.rand(400, 6, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    starts = []
    for seed in (1, 1, 2):
        model, _ = random_model(3, 6, seed=seed)
        version = model.version
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        assert model.version > version
        assert not model.prior_logits.any()
        middle = (model.bias + model.weight.sum(1) / 2).sigmoid()
        torch.testing.assert_close(middle, x.mean(0), rtol=0, atol=2e-3)
        starts.append(model.weight.detach().clone())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert len(starts[0].unique()) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 0}, "at least 1"),
        ({"visible": 0}, "at least 1"),
        ({"order": "random"}, "Unknown build order"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        SigmoidBeliefNet(**arguments)


def test_too_many_latents_to_sum_over_are_a_user_error():
    model = SigmoidBeliefNet(hidden=24, visible=2)
    x, z = model.sample(3)
    assert model.log_joint(x, z).shape == (3,)
    for ask in (model.log_marginal, lambda x: model.mean_field(x, 1)):
        with pytest.raises(UserError, match="too many to enumerate"):
            ask(x)


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = SigmoidBeliefNet()
    for protocol in (ExactPosterior, MeanField, PartialJoint, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


def test_moves_to_another_device_with_its_environment():
    model = SigmoidBeliefNet(3, 4).to("meta")
    x, z = model.sample(2)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
