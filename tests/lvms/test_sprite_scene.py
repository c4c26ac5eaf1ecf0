"""Scenes of sprites against a slow painter and brute force over the structures."""

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
    PartialJoint,
    SpriteScene,
    StartAtData,
    WeightedSamples,
    exact_posterior,
)
from lvms.models import models
from tests.algorithms.statistics import assert_drawn_from

SHAPES = st.sampled_from(
    [
        {"pieces": 1, "sprites": 3, "side": 2, "grid": (2, 3), "stride": 1},
        {"pieces": 2, "sprites": 2, "side": 3, "grid": (2, 2), "stride": 2},
        {"pieces": 2, "sprites": 1, "side": 2, "grid": (1, 3), "stride": 3},
        {"pieces": 3, "sprites": 2, "side": 2, "grid": (2, 2), "stride": 1},
    ]
)
BLOCKS = st.sampled_from([1, 400, 1 << 22])
ORDERS = st.sampled_from(["fixed", "any"])
SEEDS = st.integers(0, 2**32 - 1)

few = settings(max_examples=20, deadline=None)


def random_model(shape, seed, order="fixed"):
    """A model with every parameter at random, and images of zeros and ones."""
    model = SpriteScene(**shape, order=order, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.background_logit.copy_(torch.randn((), generator=generator))
    x = torch.randint(2, (4, *model.layout.image_shape), generator=generator).float()
    return model, x


def structures(model):
    return list(itertools.product(*map(range, model.env.sizes)))


def paint(model, shape, z):
    """Paints a scene pixel by pixel: rows of (sprite, cell), or None for the background."""
    columns, side, stride = shape["grid"][1], shape["side"], shape["stride"]
    height, width = model.layout.image_shape
    image = [[None] * width for _ in range(height)]
    for sprite, place in zip(z[::2], z[1::2], strict=True):
        top, left = place // columns * stride, place % columns * stride
        for row, column in itertools.product(range(side), range(side)):
            image[top + row][left + column] = (sprite, row * side + column)
    return image


def hand_logit(model, thing):
    if thing is None:
        return model.background_logit.item()
    return model.sprite_logits[thing].item()


def hand_log_joint(model, shape, x, z):
    """log p(x, z) of one image and one structure as the docstring says, with math alone."""
    total = -sum(math.log(size) for size in model.env.sizes)
    for things, pixels in zip(paint(model, shape, z), x, strict=True):
        for thing, on in zip(things, pixels, strict=True):
            p = 1 / (1 + math.exp(-hand_logit(model, thing)))
            total += math.log(p if on else 1 - p)
    return total


def density_table(model, shape, x):
    """log p(x, z) of all images and structures, double precision `[B, Z]`."""
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
def test_rendering_puts_the_topmost_thing_at_each_pixel(shape, seed):
    model, _ = random_model(shape, seed)
    z = torch.tensor(structures(model))[::7]
    for image, row in zip(model.render(z).tolist(), z.tolist(), strict=True):
        expected = [[hand_logit(model, thing) for thing in line]
                    for line in paint(model, shape, row)]  # fmt: skip
        torch.testing.assert_close(torch.tensor(image), torch.tensor(expected))


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


def test_a_quarter_of_a_million_structures_are_summed_in_bounded_tables(monkeypatch):
    model = models.make("sprites-small")
    x, z = model.sample(200, torch.Generator().manual_seed(0))
    sizes, table = [], model._placed_scores
    monkeypatch.setattr(
        model, "_placed_scores", lambda *a: sizes.append(table(*a).numel()) or table(*a)
    )
    with torch.no_grad():
        marginal = model.log_marginal(x)
        assert len(sizes) > model.pieces
        assert max(sizes) <= lvms.blocks.BLOCK_ELEMENTS
        # One image against every one of its structures, painted.
        every = model.env.enumerate(model.env.empty_context(1)[0])
        parts = [model.log_joint(x[:1].expand(len(part), -1, -1), part)
                 for part in every.split(1 << 14)]  # fmt: skip
        torch.testing.assert_close(
            marginal[:1], torch.cat(parts).logsumexp(0)[None], rtol=1e-4, atol=1e-4
        )
        assert (model.posterior_log_prob(x, z) < 0).all()


# -- partial structures ---------------------------------------------------------------------------


@few
@given(SHAPES, ORDERS, SEEDS)
def test_partial_joint_is_the_scene_as_far_as_it_is_painted(shape, order, seed):
    model, x = random_model(shape, seed, order)
    for state in model.env.enumerate_states(model.env.empty_context(1)[0])[::5]:
        got = model.log_partial(x, state.expand(len(x), -1))
        pieces = state.view(-1, 2).tolist()
        assigned = sum(
            math.log(size)
            for size, value in zip(model.env.sizes, state.tolist(), strict=True)
            if value >= 0
        )
        # Brute force over the sprites of pieces that only have a place; the others are left out.
        placed = [(s, p) for s, p in pieces if p >= 0]
        choices = [range(model.sprites) if s < 0 else [s] for s, _ in placed]
        small = SpriteScene(**{**shape, "pieces": max(1, len(placed))}, seed=seed)
        small.load_state_dict(model.state_dict())
        terms = []
        for sprites in itertools.product(*choices):
            z = [v for s, (_, p) in zip(sprites, placed, strict=True) for v in (s, p)]
            joint = [hand_log_joint(small, shape, row, z) for row in x.tolist()]
            terms.append(torch.tensor(joint) + sum(map(math.log, small.env.sizes)))
        count = math.log(len(terms))
        expected = torch.stack(terms).logsumexp(0) - count - assigned
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)
        if (state >= 0).all():
            torch.testing.assert_close(got, model.log_joint(x, state.expand(len(x), -1)))


# -- sampling -------------------------------------------------------------------------------------

SMALL = {"pieces": 2, "sprites": 2, "side": 2, "grid": (1, 3), "stride": 1}


@pytest.mark.parametrize("row", range(3))
def test_posterior_samples_follow_the_exact_posterior(row, monkeypatch):
    shrink_blocks(monkeypatch, 100)
    model, x = random_model(SMALL, seed=1)
    z = model.sample_posterior(x, 6000, torch.Generator().manual_seed(row))
    assert z.shape == (len(x), 6000, 4)
    assert z.dtype == torch.int64
    exact = density_table(model, SMALL, x).log_softmax(-1)
    assert_drawn_from(z[row], torch.tensor(structures(model)), exact[row])


def test_dreams_follow_the_joint():
    shape = {"pieces": 1, "sprites": 2, "side": 1, "grid": (1, 2), "stride": 1}
    model, _ = random_model(shape, seed=2)
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32
    assert not x.requires_grad
    every_x = torch.tensor(list(itertools.product([0, 1], repeat=2)))
    joint = density_table(model, shape, every_x.float().view(-1, 1, 2)).flatten()
    pairs = torch.cat(
        [every_x.repeat_interleave(4, 0), torch.tensor(structures(model)).repeat(4, 1)], 1
    )
    assert_drawn_from(torch.cat([x.flatten(1).long(), z], 1), pairs, joint)
    dreams = model.dreams(20_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(dreams.mean(0), x.mean(0), rtol=0, atol=0.02)


# -- M-step ---------------------------------------------------------------------------------------


def posterior_samples(shape, x, seed):
    """The whole table with weights of a posterior at other parameters."""
    exact = EnumeratedPosterior(random_model(shape, seed)[0])
    z = exact.structures(x).expand(len(x), -1, -1)
    return WeightedSamples(z, exact.log_posterior_table(x).detach())


def smoothed_objective(model, x, samples, smoothing=0.5):
    """The expected log joint and the log-density of the Beta prior, up to a constant."""
    k = samples.z.shape[1]
    joint = model.log_joint(x.repeat_interleave(k, 0), samples.z.flatten(0, 1)).view(len(x), k)
    logits = torch.cat([p.flatten() for p in model.parameters()])
    prior = logits.sigmoid().log() + (-logits).sigmoid().log()
    return (samples.log_w.exp() * joint).sum() + smoothing * prior.sum()


@few
@given(SHAPES, BLOCKS, SEEDS)
def test_maximise_finds_the_maximum(shape, block, seed):
    model, x = random_model(shape, seed)
    samples = posterior_samples(shape, x, seed + 1)
    before = smoothed_objective(model, x, samples)
    with pytest.MonkeyPatch.context() as patch:
        shrink_blocks(patch, block)
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


def test_maximise_counts_visible_pixels():
    model = SpriteScene(pieces=2, sprites=2, side=1, grid=(1, 2), stride=1)
    x = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    # Both show sprite 1 at the left place, above sprite 0 in the first and beside it in the second.
    z = torch.tensor([[[0, 0, 1, 0]], [[0, 1, 1, 0]]])
    model.maximise(x, WeightedSamples.equal(z))
    shares = model.sprite_logits.sigmoid().flatten().tolist()
    assert shares == pytest.approx([(1 + 0.5) / (1 + 1), (2 + 0.5) / (2 + 1)])
    assert model.background_logit.sigmoid().item() == pytest.approx(0.5 / (1 + 1))


def test_exact_em_never_lowers_the_smoothed_likelihood():
    truth, model = models.make("sprites-tiny"), models.make("sprites-tiny")
    x, _ = truth.sample(300, torch.Generator().manual_seed(0))
    model.start_at_data(x, torch.Generator().manual_seed(0))
    values = []
    for _ in range(8):
        with torch.no_grad():
            logits = torch.cat([p.flatten() for p in model.parameters()])
            prior = logits.sigmoid().log() + (-logits).sigmoid().log()
            values.append((model.log_marginal(x).sum() + 0.5 * prior.sum()).item())
        log_joint = model.log_joint_table(x).detach()
        z = model.env.enumerate(model.env.empty_context(1)[0]).expand(len(x), -1, -1)
        model.maximise(x, WeightedSamples(z, log_joint.log_softmax(-1)))
    # A sum of 300 numbers of some forty nats in single precision.
    assert all(later > earlier - 0.05 for earlier, later in itertools.pairwise(values))
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


def test_a_start_forgets_all_that_was_learned_and_is_made_of_patches():
    truth = models.make("sprites-tiny")
    x, _ = truth.sample(60, torch.Generator().manual_seed(0))
    patches = x.unfold(1, 4, 2).unfold(2, 4, 2).reshape(-1, 16)
    starts = []
    for seed in (1, 1, 2):
        model, version = models.make("sprites-tiny", seed), truth.version
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        assert model.version > version
        assert model.background_logit.sigmoid().item() == pytest.approx(x.mean().item(), abs=1e-3)
        for sprite in model.sprite_logits:
            assert ((sprite > model.background_logit) == patches.bool()).all(1).any()
        starts.append(model.sprite_logits.detach().clone())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_data_that_do_not_fit_are_user_errors():
    model = models.make("sprites-tiny")
    with pytest.raises(UserError, match="2 images are too few to start 3 sprites"):
        model.start_at_data(torch.zeros(2, 8, 8))
    with pytest.raises(UserError, match=r"shape \(9, 9\) do not fit scenes of \(8, 8\)"):
        model.start_at_data(torch.zeros(5, 9, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pieces": 0}, "at least 1"),
        ({"sprites": 0}, "at least 1"),
        ({"side": 0}, "at least 1"),
        ({"stride": 0}, "at least 1"),
        ({"grid": (3, 0)}, "at least 1"),
        ({"order": "random"}, "Unknown build order"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        SpriteScene(**arguments)


def test_too_many_scenes_to_sum_over_are_a_user_error():
    model = SpriteScene(pieces=6, grid=(4, 4))
    x, z = model.sample(3)
    assert model.log_joint(x, z).shape == (3,)
    for ask in (model.log_marginal, model.log_joint_table, lambda x: model.mean_field(x, 1)):
        with pytest.raises(UserError, match="too many to enumerate"):
            ask(x)


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = SpriteScene()
    for protocol in (ExactPosterior, ClosedFormMStep, MeanField, PartialJoint, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


def test_moves_to_another_device_with_its_environment():
    model = SpriteScene().to("meta")
    x, z = model.sample(2)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
