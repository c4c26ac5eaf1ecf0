"""Drawings of paths against a slow turtle and brute force over the structures."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lvms.blocks
from gfn_envs import UserError
from lvms import (
    ClosedFormMStep,
    EnumeratedPosterior,
    ExactPosterior,
    MeanField,
    PathDrawing,
    StartAtData,
    WeightedSamples,
    exact_posterior,
    gibbs_sweep,
)
from lvms.models import models
from tests.algorithms.statistics import assert_drawn_from
from tests.gfn_envs.test_turtle_path import walk_by_hand

SHAPES = st.sampled_from(
    [
        {"grid": (2, 3), "moves": 2, "side": 1},
        {"grid": (3, 2), "moves": 3, "side": 2},
        {"grid": (3, 3), "moves": 4, "side": 1},
    ]
)
BLOCKS = st.sampled_from([1, 400, 1 << 22])
ORDERS = st.sampled_from(["fixed", "any"])
SEEDS = st.integers(0, 2**32 - 1)

few = settings(max_examples=20, deadline=None)


def random_model(shape, seed, order="fixed"):
    """A model with every parameter at random, and images of zeros and ones."""
    model = PathDrawing(**shape, order=order, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randint(2, (4, *model.image_shape), generator=generator).float()
    return model, x


def structures(model):
    return list(itertools.product(*map(range, model.env.sizes)))


def hand_logits(model, shape, z):
    """The logit of every pixel, rows of numbers."""
    cells, side = set(walk_by_hand(shape["grid"], z)[0]), shape["side"]
    height, width = model.image_shape
    stamp, background = model.stamp_logits.tolist(), model.background_logit.item()
    image = [[background] * width for _ in range(height)]
    for row, column in itertools.product(range(height), range(width)):
        if row // side * shape["grid"][1] + column // side in cells:
            image[row][column] = stamp[row % side * side + column % side]
    return image


def hand_log_joint(model, shape, x, z):
    """log p(x, z) of one image and one path as the docstring says, with math alone."""
    total = -math.log(4 * math.prod(shape["grid"]))
    pi = model.initial_logits.double().softmax(-1).tolist()
    transition = model.transition_logits.double().softmax(-1).tolist()
    total += math.log(pi[z[2]])
    total += sum(math.log(transition[a][b]) for a, b in itertools.pairwise(z[2:]))
    for logits, pixels in zip(hand_logits(model, shape, z), x, strict=True):
        for logit, on in zip(logits, pixels, strict=True):
            p = 1 / (1 + math.exp(-logit))
            total += math.log(p if on else 1 - p)
    return total


def density_table(model, shape, x):
    """log p(x, z) of all images and paths, double precision `[B, Z]`."""
    return torch.tensor(
        [[hand_log_joint(model, shape, row, z) for z in structures(model)] for row in x.tolist()],
        dtype=torch.float64,
    )


def shrink_blocks(patch, elements):
    patch.setattr(lvms.blocks, "BLOCK_ELEMENTS", elements)


# -- densities ------------------------------------------------------------------------------------


@few
@given(SHAPES, ORDERS, BLOCKS, SEEDS)
def test_everything_exact_matches_brute_force(shape, order, block, seed):
    model, x = random_model(shape, seed, order)
    table, enumerated = density_table(model, shape, x), EnumeratedPosterior(model)
    close = {"rtol": 1e-4, "atol": 1e-4}
    with pytest.MonkeyPatch.context() as patch:
        shrink_blocks(patch, block)
        torch.testing.assert_close(enumerated.log_joint_table(x).double(), table, **close)
        torch.testing.assert_close(model.log_joint_table(x).double(), table, **close)
        torch.testing.assert_close(model.log_marginal(x).double(), table.logsumexp(-1), **close)
        z = torch.tensor(structures(model))[-1].expand(len(x), -1)
        got = model.posterior_log_prob(x, z)
        torch.testing.assert_close(got.double(), table.log_softmax(-1)[:, -1], **close)


@few
@given(SHAPES, SEEDS)
def test_rendering_stamps_the_cells_of_the_path(shape, seed):
    model, _ = random_model(shape, seed)
    z = torch.tensor(structures(model))[::7]
    for image, row in zip(model.render(z), z.tolist(), strict=True):
        torch.testing.assert_close(image, torch.tensor(hand_logits(model, shape, row)))


@few
@given(SHAPES, BLOCKS, SEEDS)
def test_gradient_of_the_marginal_is_the_expected_gradient_of_the_joint(shape, block, seed):
    model, x = random_model(shape, seed)
    parameters = list(model.parameters())
    with pytest.MonkeyPatch.context() as patch:
        shrink_blocks(patch, block)
        got = torch.autograd.grad(model.log_marginal(x).sum(), parameters)
    posterior = density_table(model, shape, x).softmax(-1).float()
    joint = (posterior * EnumeratedPosterior(model).log_joint_table(x)).sum()
    for a, b in zip(got, torch.autograd.grad(joint, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_hundred_thousand_paths_are_summed_in_bounded_tables(monkeypatch):
    model = models.make("paths-small")
    x, z = model.sample(60, torch.Generator().manual_seed(0))
    sizes, table = [], model._joint_with
    monkeypatch.setattr(
        model, "_joint_with", lambda *a: sizes.append(table(*a).numel()) or table(*a)
    )
    with torch.no_grad():
        marginal = model.log_marginal(x)
        assert len(sizes) > 1
        assert max(sizes) <= lvms.blocks.BLOCK_ELEMENTS
        # One image against every one of its paths, drawn.
        every = model.env.enumerate(model.env.empty_context(1)[0])
        joint = model.log_joint(x[:1].expand(len(every), -1, -1), every)
        torch.testing.assert_close(marginal[0], joint.logsumexp(0), rtol=1e-4, atol=1e-4)
        assert (model.posterior_log_prob(x, z) < 0).all()


def test_a_path_walked_backwards_is_the_same_drawing():
    model = models.make("paths-small")
    # Up twice, then right, from cell 20; and back: left, then down twice, from cell 9.
    z = torch.tensor([[20, 1, 1, 2], [9, 0, 0, 1]])
    short = PathDrawing((6, 6), 3, 3)
    assert torch.equal(short.render(z)[0], short.render(z)[1])
    assert len(model.env.sizes) == 8


# -- sampling -------------------------------------------------------------------------------------

SMALL = {"grid": (2, 2), "moves": 3, "side": 1}


@pytest.mark.parametrize("row", range(3))
def test_posterior_samples_follow_the_exact_posterior(row, monkeypatch):
    shrink_blocks(monkeypatch, 300)
    model, x = random_model(SMALL, seed=1)
    z = model.sample_posterior(x, 6000, torch.Generator().manual_seed(row))
    assert z.shape == (len(x), 6000, 4)
    assert z.dtype == torch.int64
    exact = density_table(model, SMALL, x).log_softmax(-1)
    assert_drawn_from(z[row], torch.tensor(structures(model)), exact[row])


def test_dreams_follow_the_joint():
    shape = {"grid": (2, 2), "moves": 2, "side": 1}
    model, _ = random_model(shape, seed=2)
    x, z = model.sample(40_000, torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32
    assert not x.requires_grad
    every_x = torch.tensor(list(itertools.product([0, 1], repeat=4)))
    joint = density_table(model, shape, every_x.float().view(-1, 2, 2)).flatten()
    paths = torch.tensor(structures(model))
    pairs = torch.cat([every_x.repeat_interleave(len(paths), 0), paths.repeat(16, 1)], 1)
    assert_drawn_from(torch.cat([x.flatten(1).long(), z], 1), pairs, joint)


def test_gibbs_sweeps_leave_the_posterior_invariant():
    model, x = random_model(SMALL, seed=3)
    generator = torch.Generator().manual_seed(0)
    z = model.sample_posterior(x[:1], 10_000, generator)[0]
    moved = gibbs_sweep(model, x[:1].expand(len(z), -1, -1), z, generator)
    assert (moved != z).any(0).all()
    exact = density_table(model, SMALL, x[:1]).log_softmax(-1)[0]
    assert_drawn_from(moved, torch.tensor(structures(model)), exact)


# -- M-step ---------------------------------------------------------------------------------------


def posterior_samples(shape, x, seed):
    """The whole table with weights of a posterior at other parameters."""
    exact = EnumeratedPosterior(random_model(shape, seed)[0])
    z = exact.structures(x).expand(len(x), -1, -1)
    return WeightedSamples(z, exact.log_posterior_table(x).detach())


def log_prior(model, smoothing=0.5):
    """The log-density of the Beta and Dirichlet priors, up to a constant."""
    pixels = torch.cat([model.stamp_logits, model.background_logit[None]])
    logs = [pixels.sigmoid().log(), (-pixels).sigmoid().log()]
    logs += [model.initial_logits.log_softmax(-1), model.transition_logits.log_softmax(-1)]
    return smoothing * sum(each.sum() for each in logs)


def smoothed_objective(model, x, samples):
    """The expected log joint and the log-density of the priors."""
    k = samples.z.shape[1]
    joint = model.log_joint(x.repeat_interleave(k, 0), samples.z.flatten(0, 1)).view(len(x), k)
    return (samples.log_w.exp() * joint).sum() + log_prior(model)


@few
@given(SHAPES, SEEDS)
def test_maximise_finds_the_maximum(shape, seed):
    model, x = random_model(shape, seed)
    samples = posterior_samples(shape, x, seed + 1)
    before = smoothed_objective(model, x, samples)
    model.maximise(x, samples)
    best = smoothed_objective(model, x, samples)
    assert best >= before - 1e-4
    for gradient in torch.autograd.grad(best, list(model.parameters())):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=2e-3)
    # It is concave in the logits, so a stationary point is the maximum; and so is nothing near.
    found = [p.detach().clone() for p in model.parameters()]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        with torch.no_grad():
            for p, at in zip(model.parameters(), found, strict=True):
                p.copy_(at + 0.3 * torch.randn(at.shape, generator=generator))
            assert smoothed_objective(model, x, samples) < best


def test_maximise_counts_pixels_of_visited_cells_and_turns():
    model = PathDrawing(grid=(2, 2), moves=2, side=1)
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]])
    # Both up and around the edge: cells 2, 0, 2, and of the second also then left: 2, 0, 1.
    z = torch.tensor([[[2, 1, 1]], [[2, 1, 0]]])
    model.maximise(x, WeightedSamples.equal(z))
    assert model.stamp_logits.sigmoid().tolist() == pytest.approx([(5 + 0.5) / (5 + 1)])
    assert model.background_logit.sigmoid().item() == pytest.approx(0.5 / (3 + 1))
    assert model.initial_logits.softmax(0).tolist() == pytest.approx([1.5 / 3.5, 1.5 / 3.5, 1 / 7])
    assert model.transition_logits.softmax(1).flatten().tolist() == pytest.approx([1 / 3] * 9)


def test_exact_em_never_lowers_the_smoothed_likelihood():
    truth, model = models.make("paths-tiny"), models.make("paths-tiny")
    x, _ = truth.sample(500, torch.Generator().manual_seed(0))
    model.start_at_data(x, torch.Generator().manual_seed(0))
    values = []
    for _ in range(40):
        with torch.no_grad():
            values.append((model.log_marginal(x).sum() + log_prior(model)).item())
        table = model.log_joint_table(x).detach()
        z = model.env.enumerate(model.env.empty_context(1)[0]).expand(len(x), -1, -1)
        model.maximise(x, WeightedSamples(z, table.log_softmax(-1)))
    # A sum of 500 numbers of some ninety nats in single precision.
    assert all(later > earlier - 0.1 for earlier, later in itertools.pairwise(values))
    with torch.no_grad():
        # The start knows the stamp's pattern, and finds it: better than the truth on its own data.
        assert values[-1] > (truth.log_marginal(x).sum() + log_prior(truth)).item()
        assert values[-1] > values[0] + 100


# -- mean field -----------------------------------------------------------------------------------


@few
@given(SHAPES, BLOCKS, SEEDS)
def test_the_elbo_never_falls_and_stays_below_the_marginal(shape, block, seed):
    model, x = random_model(shape, seed)
    table, bounds = density_table(model, shape, x), []
    for sweeps in range(4):
        with pytest.MonkeyPatch.context() as patch:
            shrink_blocks(patch, block)
            factors = model.mean_field(x, sweeps)
        product = torch.zeros(len(x), 1, dtype=torch.float64)
        for factor, size in zip(factors, model.env.sizes, strict=True):
            assert factor.shape == (len(x), size)
            product = (product[..., None] + factor[:, None].double()).flatten(1)
        bounds.append((product.exp() * (table - product)).sum(-1))
    for earlier, later in itertools.pairwise(bounds):
        assert (later >= earlier - 1e-4).all()
    assert (bounds[-1] <= table.logsumexp(-1) + 1e-4).all()


# -- starting, wrong arguments --------------------------------------------------------------------


def test_a_start_forgets_all_that_was_learned_and_is_the_mean_cell():
    x, _ = models.make("paths-tiny").sample(60, torch.Generator().manual_seed(0))
    mean_cell = x.view(60, 4, 3, 4, 3).mean((0, 1, 3)).flatten()
    starts = []
    for seed in (1, 1, 2):
        model, version = models.make("paths-tiny", seed), 0
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        assert model.version > version
        torch.testing.assert_close(model.stamp_logits.sigmoid(), mean_cell, rtol=0, atol=1e-3)
        assert model.background_logit.sigmoid().item() == pytest.approx(x.mean().item(), abs=1e-3)
        starts.append([p.detach().clone() for p in model.parameters()])
    assert all(map(torch.equal, starts[0], starts[1]))
    assert not torch.equal(starts[0][-1], starts[2][-1])
    assert not torch.equal(starts[0][-2], starts[2][-2])


def test_data_that_do_not_fit_are_user_errors():
    model = models.make("paths-tiny")
    with pytest.raises(UserError, match="without an image"):
        model.start_at_data(torch.zeros(0, 12, 12))
    with pytest.raises(UserError, match=r"shape \(9, 9\) do not fit drawings of \(12, 12\)"):
        model.start_at_data(torch.zeros(5, 9, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"moves": 1}, "moves of at least 2"),
        ({"side": 0}, "side of at least 1"),
        ({"grid": (1, 4)}, "at least 2 rows"),
        ({"order": "random"}, "Unknown build order"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        PathDrawing(**arguments)


def test_too_many_paths_to_sum_over_are_a_user_error():
    model = PathDrawing((6, 6), 20)
    x, z = model.sample(3)
    assert model.log_joint(x, z).shape == (3,)
    for ask in (model.log_marginal, model.log_joint_table, lambda x: model.mean_field(x, 1)):
        with pytest.raises(UserError, match="too many to enumerate"):
            ask(x)


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = PathDrawing()
    for protocol in (ExactPosterior, ClosedFormMStep, MeanField, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


def test_moves_to_another_device_with_its_environment():
    model = PathDrawing().to("meta")
    x, z = model.sample(2)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
