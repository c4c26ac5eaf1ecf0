"""The hierarchical Gaussian mixture against plain loops over its leaves."""

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
    HierarchicalGaussianMixture,
    MeanField,
    PartialJoint,
    StartAtData,
    WeightedSamples,
    exact_posterior,
)
from lvms.data.points import synthetic_square

BRANCHINGS = st.lists(st.integers(1, 3), min_size=1, max_size=3)
ORDERS = st.sampled_from(["fixed", "any"])
SEEDS = st.integers(0, 2**32 - 1)

few = settings(max_examples=25, deadline=None)


def random_model(branching, seed, order="fixed", scale=0.4):
    """A model with super-means at random, and points around it."""
    generator = torch.Generator().manual_seed(seed)
    model = HierarchicalGaussianMixture(branching, scale=scale, order=order)
    with torch.no_grad():
        model.means.copy_(torch.randn(model.means.shape, generator=generator))
    return model, torch.randn(5, 2, generator=generator)


def leaves(model):
    return list(itertools.product(*map(range, model.branching)))


def leaf_mean(model, leaf):
    """The mean of a leaf as the class's docstring says, with math alone."""
    mean = model.means[leaf[0]].tolist()
    for level, k in enumerate(leaf[1:]):
        angle = (k + 0.5) * 2 * math.pi / model.branching[level + 1]
        size = model.radius / 2**level
        mean = [mean[0] + size * math.cos(angle), mean[1] + size * math.sin(angle)]
    return mean


def density_table(model, x):
    """log p(x, z) for all points and leaves by hand, double precision `[B, Z]`."""
    prior = 1 / len(leaves(model))
    means = [leaf_mean(model, leaf) for leaf in leaves(model)]
    return torch.tensor(
        [
            [
                math.log(prior / (2 * math.pi * model.scale**2))
                - math.dist(point, mean) ** 2 / (2 * model.scale**2)
                for mean in means
            ]
            for point in x.tolist()
        ],
        dtype=torch.float64,
    )


def weighted(z, weight):
    return WeightedSamples(z, weight.log())


# -- densities ------------------------------------------------------------------------------------


@few
@given(BRANCHINGS, ORDERS, SEEDS)
def test_log_joint_is_a_normal_density_times_a_uniform_prior(branching, order, seed):
    model, x = random_model(branching, seed, order)
    expected = density_table(model, x)
    z = torch.tensor(leaves(model))
    for k in range(len(z)):
        got = model.log_joint(x, z[k].expand(len(x), -1))
        torch.testing.assert_close(got.double(), expected[:, k], rtol=1e-4, atol=1e-4)


@few
@given(BRANCHINGS, ORDERS, SEEDS)
def test_marginal_and_posterior_match_a_sum_over_leaves_and_the_enumeration(branching, order, seed):
    model, x = random_model(branching, seed, order)
    table, enumerated = density_table(model, x), EnumeratedPosterior(model)
    marginal = table.logsumexp(-1)
    torch.testing.assert_close(model.log_marginal(x).double(), marginal, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.log_marginal(x), enumerated.log_marginal(x))
    torch.testing.assert_close(model.log_leaf_joint(x), enumerated.log_joint_table(x))
    for k, leaf in enumerate(leaves(model)):
        z = torch.tensor(leaf).expand(len(x), -1)
        got = model.posterior_log_prob(x, z)
        torch.testing.assert_close(got.double(), table[:, k] - marginal, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got, enumerated.posterior_log_prob(x, z))


@few
@given(BRANCHINGS, SEEDS)
def test_both_build_orders_give_the_same_numbers(branching, seed):
    (fixed, x), (any_order, _) = (random_model(branching, seed, o) for o in ("fixed", "any"))
    assert torch.equal(fixed.log_leaf_joint(x), any_order.log_leaf_joint(x))
    z = torch.tensor(leaves(fixed))[torch.arange(len(x)) % len(leaves(fixed))]
    assert torch.equal(fixed.log_joint(x, z), any_order.log_joint(x, z))
    draws = [m.sample(7, torch.Generator().manual_seed(seed)) for m in (fixed, any_order)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


@few
@given(BRANCHINGS, SEEDS)
def test_log_marginal_is_differentiable(branching, seed):
    model, x = random_model(branching, seed)
    model.log_marginal(x).sum().backward()
    # Fisher's identity: the gradient of log p(x) is the posterior mean of that of log p(x, z).
    posterior = density_table(model, x).softmax(-1)
    expected = torch.zeros_like(model.means, dtype=torch.float64)
    for b, k in itertools.product(range(len(x)), range(posterior.shape[1])):
        leaf = leaves(model)[k]
        away = x[b].double() - torch.tensor(leaf_mean(model, leaf), dtype=torch.float64)
        expected[leaf[0]] += posterior[b, k] * away / model.scale**2
    torch.testing.assert_close(model.means.grad.double(), expected, rtol=1e-3, atol=1e-3)


def test_the_papers_data_has_the_log_likelihood_of_its_model():
    data = synthetic_square(4000, seed=0)
    with torch.no_grad():
        for points in (data.train, data.test):
            assert -2.85 < HierarchicalGaussianMixture().log_marginal(points).mean() < -2.79


# -- partial structures ---------------------------------------------------------------------------


def all_states(model):
    return model.env.enumerate_states(model.env.empty_context(1)[0])


@few
@given(BRANCHINGS, ORDERS, SEEDS)
def test_partial_joint_is_a_gaussian_with_the_moments_of_the_leaves_that_are_left(
    branching, order, seed
):
    model, x = random_model(branching, seed, order)
    all_leaves = torch.tensor(leaves(model))
    means = torch.tensor([leaf_mean(model, leaf) for leaf in leaves(model)], dtype=torch.float64)
    noise = model.scale**2 * torch.eye(2, dtype=torch.float64)
    for state in all_states(model):
        left = means[((state == all_leaves) | (state < 0)).all(-1)]
        covariance = noise + torch.cov(left.T, correction=0)
        gaussian = torch.distributions.MultivariateNormal(left.mean(0), covariance)
        log_prior = -sum(
            math.log(k) for k, z in zip(branching, state.tolist(), strict=True) if z >= 0
        )
        got = model.log_partial(x, state.expand(len(x), -1))
        expected = log_prior + gaussian.log_prob(x.double())
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


@few
@given(BRANCHINGS, ORDERS, SEEDS)
def test_partial_joint_of_a_leaf_is_the_joint(branching, order, seed):
    model, x = random_model(branching, seed, order)
    for z in all_states(model)[(all_states(model) >= 0).all(-1)]:
        pair = x, z.expand(len(x), -1)
        torch.testing.assert_close(model.log_partial(*pair), model.log_joint(*pair))


def test_partial_joint_stays_finite_where_offsets_lie_on_a_line():
    model, x = random_model((2, 2, 2), seed=0, order="any", scale=1e-3)
    for state in all_states(model):
        assert model.log_partial(x, state.expand(len(x), -1)).isfinite().all()


# -- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["model", "enumeration"])
def test_posterior_samples_follow_the_exact_posterior(sampler):
    model, x = random_model([2, 3], seed=1, scale=1.0)
    source = model if sampler == "model" else EnumeratedPosterior(model)
    draws = 4000
    z = source.sample_posterior(x, draws, torch.Generator().manual_seed(0))
    assert z.shape == (len(x), draws, 2)
    observed = torch.stack([(z == torch.tensor(leaf)).all(-1).sum(-1) for leaf in leaves(model)], 1)
    assert observed.sum(-1).tolist() == [draws] * len(x)
    expected = density_table(model, x).softmax(-1) * draws
    assert expected.min() > 5
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < 52.6  # the 99.9 % quantile at 5 * 5 degrees of freedom


def test_dreams_have_the_moments_of_the_model():
    model, _ = random_model([3, 2], seed=2, scale=0.3)
    draws = 30_000
    x, z = model.sample(draws, torch.Generator().manual_seed(0))
    assert not x.requires_grad
    for leaf in leaves(model):
        here = x[(z == torch.tensor(leaf)).all(-1)]
        assert len(here) == pytest.approx(draws / 6, rel=0.06)
        error = model.scale / len(here) ** 0.5
        away = (here.mean(0) - torch.tensor(leaf_mean(model, leaf))).abs()
        assert away.max() < 4 * error
        assert here.std(0).tolist() == pytest.approx([model.scale] * 2, rel=0.05)


# -- M-step ---------------------------------------------------------------------------------------


def expected_log_joint(model, x, samples):
    k = samples.z.shape[1]
    joint = model.log_joint(x.repeat_interleave(k, 0), samples.z.flatten(0, 1)).view(len(x), k)
    return (samples.log_w.exp() * joint).sum()


@few
@given(BRANCHINGS, SEEDS)
def test_maximise_finds_the_maximum(branching, seed):
    model, x = random_model(branching, seed)
    generator = torch.Generator().manual_seed(seed)
    z = torch.stack([torch.randint(k, (len(x), 4), generator=generator) for k in branching], -1)
    samples = weighted(z, torch.rand(len(x), 4, generator=generator).add(0.1).softmax(-1))
    model.maximise(x, samples)
    model.zero_grad()
    best = expected_log_joint(model, x, samples)
    best.backward()
    torch.testing.assert_close(model.means.grad, torch.zeros_like(model.means), atol=1e-3, rtol=0)
    found = model.means.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            model.means.copy_(found + 0.3 * torch.randn(found.shape, generator=generator))
            assert expected_log_joint(model, x, samples) < best


def test_maximise_moves_to_the_weighted_mean_less_the_offset():
    model = HierarchicalGaussianMixture([1, 2])
    first, second = (leaf_mean(model, (0, k)) for k in range(2))
    base = model.means[0].tolist()
    x = torch.tensor([[1.0, 2.0]])
    model.maximise(x, weighted(torch.tensor([[[0, 0], [0, 1]]]), torch.tensor([[0.25, 0.75]])))
    expected = [
        x[0, i].item() - 0.25 * (first[i] - base[i]) - 0.75 * (second[i] - base[i]) for i in (0, 1)
    ]
    assert model.means[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_maximise_leaves_an_unused_component_where_it_is():
    model, x = random_model([3, 2], seed=3)
    before = model.means.detach().clone()
    z = torch.tensor([[[0, 1], [2, 0]]]).repeat(len(x), 1, 1)
    weight = torch.tensor([[1.0, 0.0]]).repeat(len(x), 1)  # component 2 has no weight, 1 no sample
    model.maximise(x, weighted(z, weight))
    assert torch.equal(model.means[1:], before[1:])
    assert not torch.allclose(model.means[0], before[0])


# -- mean field -----------------------------------------------------------------------------------


def factor_product(log_q):
    """log q(z | x) as a table `[B, K_1, ..., K_D]`."""
    total = torch.zeros(len(log_q[0]), dtype=torch.float64)
    for d, factor in enumerate(log_q):
        total = total[..., None] + factor.double().view(len(factor), *[1] * d, -1)
    return total


def elbo(log_q, table):
    product = factor_product(log_q).flatten(1)
    return (product.exp() * (table - product)).sum(-1)


def ascend(model, table, sweeps):
    """Coordinate ascent on the enumerated table: log q_d = E over the others of log p(x, z)."""
    batch, depth = len(table), len(model.branching)
    joint = table.view(batch, *model.branching)
    log_q = [torch.full((batch, k), -math.log(k), dtype=torch.float64) for k in model.branching]
    for _, d in itertools.product(range(sweeps), range(depth)):
        others = [q if c != d else torch.zeros_like(q) for c, q in enumerate(log_q)]
        mean = (factor_product(others).exp() * joint).movedim(d + 1, 1)
        log_q[d] = mean.flatten(2).sum(2).log_softmax(-1) if depth > 1 else mean.log_softmax(-1)
    return log_q


@few
@given(BRANCHINGS, SEEDS, st.integers(0, 3))
def test_mean_field_is_coordinate_ascent_on_the_table(branching, seed, sweeps):
    model, x = random_model(branching, seed)
    got = model.mean_field(x, sweeps)
    expected = ascend(model, density_table(model, x), sweeps)
    for factor, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(factor.double().exp(), reference.exp(), rtol=0, atol=1e-3)
        torch.testing.assert_close(factor.exp().sum(-1), torch.ones(len(x)))


@few
@given(BRANCHINGS, SEEDS)
def test_the_elbo_never_falls_and_stays_below_the_marginal(branching, seed):
    model, x = random_model(branching, seed)
    table = density_table(model, x)
    bounds = [elbo(model.mean_field(x, sweeps), table) for sweeps in range(5)]
    for earlier, later in itertools.pairwise(bounds):
        assert (later >= earlier - 1e-3).all()
    assert (bounds[-1] <= table.logsumexp(-1) + 1e-3).all()


def test_mean_field_is_exact_at_depth_one():
    model, x = random_model([4], seed=4)
    (factor,) = model.mean_field(x, 1)
    torch.testing.assert_close(factor, EnumeratedPosterior(model).log_posterior_table(x).detach())


# -- starting, saving, wrong arguments ------------------------------------------------------------


@few
@given(SEEDS, st.integers(3, 8))
def test_starts_at_distinct_data_points(seed, num_points):
    model = HierarchicalGaussianMixture([3, 2])
    x = torch.arange(2.0 * num_points).view(-1, 2)
    version = model.version
    model.start_at_data(x, torch.Generator().manual_seed(seed))
    chosen = {tuple(mean) for mean in model.means.tolist()}
    assert len(chosen) == 3
    assert chosen <= {tuple(point) for point in x.tolist()}
    assert model.version > version


def test_starts_differ_between_seeds():
    x = torch.arange(200.0).view(-1, 2)
    starts = set()
    for seed in range(4):
        model = HierarchicalGaussianMixture([3, 2])
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        starts.add(tuple(model.means.flatten().tolist()))
    assert len(starts) == 4


def test_too_few_points_to_start_at_is_a_user_error():
    with pytest.raises(UserError, match="2 points are too few to start 3 super-components"):
        HierarchicalGaussianMixture([3, 2]).start_at_data(torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branching": ()}, "at least one variable"),
        ({"branching": (2, 0)}, "1 or more values"),
        ({"scale": 0.0}, "must be positive"),
        ({"scale": math.nan}, "must be positive"),
        ({"radius": -1.0}, "must be positive"),
        ({"radius": math.inf}, "must be positive"),
        ({"order": "random"}, "Unknown build order"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        HierarchicalGaussianMixture(**arguments)


def test_state_dict_carries_parameters_and_version():
    model, x = random_model([2, 2], seed=5)
    model.mark_updated()
    model.mark_updated()
    other = HierarchicalGaussianMixture([2, 2], scale=0.4)
    other.load_state_dict(model.state_dict())
    assert other.version == model.version == 2
    assert torch.equal(other.log_marginal(x), model.log_marginal(x))


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = HierarchicalGaussianMixture()
    for protocol in (ExactPosterior, ClosedFormMStep, MeanField, PartialJoint, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


def test_moves_to_another_device_with_its_environment():
    model = HierarchicalGaussianMixture([2, 3, 2]).to("meta")
    x, z = model.sample(4)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
