"""The discrete VAE against its definition and against sums over all grids of codes."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

import lvms.blocks
from algorithms.m_step import GradientAscent
from gfn_envs import UserError
from lvms import (
    DiscreteVAE,
    EnumeratedPosterior,
    ExactPosterior,
    LVMReward,
    MeanField,
    PartialJoint,
    StartAtData,
    UniformPrior,
    WeightedSamples,
    code_priors,
    exact_posterior,
)
from lvms.mean_field import ascend_on_table
from tests.algorithms.statistics import assert_drawn_from

PRIORS = sorted(code_priors)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def random_model(prior="pixel-cnn", grid=(2, 2), num_codes=3, image=(1, 5, 4), seed=0, **kwargs):
    """A model with every parameter at random, and observations of zeros and ones."""
    model = DiscreteVAE(
        image, grid, num_codes, code_dim=3, channels=6, prior=prior, seed=seed, **kwargs
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model, torch.randint(2, (6, *image), generator=generator).float()


def structures(model):
    return model.env.enumerate(model.env.empty_context(1)[0])


def density_table(model, x):
    """log p(x, z) of all observations and structures, row by row in double precision."""
    model = deepcopy(model).double()
    rows = []
    for z in structures(model):
        logits = model.decode(z[None])[0]
        log_pixel = torch.where(x > 0, F.logsigmoid(logits), F.logsigmoid(-logits))
        rows.append(log_pixel.flatten(1).sum(-1) + model.prior.log_prob(z[None]))
    return torch.stack(rows, -1).detach()


# -- densities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("image", [(1, 5, 4), (2, 2, 2)])
def test_everything_exact_matches_the_definition(prior, image):
    model, x = random_model(prior, image=image)
    table = density_table(model, x)
    enumerated = EnumeratedPosterior(model)
    torch.testing.assert_close(enumerated.log_joint_table(x).double(), table, **CLOSE)
    torch.testing.assert_close(model.log_joint_table(x).double(), table, **CLOSE)
    torch.testing.assert_close(model.log_marginal(x).double(), table.logsumexp(-1), **CLOSE)
    log_posterior = table.log_softmax(-1)
    for k, z in enumerate(structures(model)):
        got = model.posterior_log_prob(x, z.expand(len(x), -1))
        torch.testing.assert_close(got.double(), log_posterior[:, k], **CLOSE)


def test_probabilities_of_all_images_and_codes_sum_to_one():
    model, _ = random_model("transformer", image=(1, 2, 3), grid=(1, 2))
    bits = torch.cartesian_prod(*[torch.arange(2)] * 6)
    table = model.log_joint_table(bits.float().view(-1, 1, 2, 3))
    assert table.shape == (64, 9)
    assert table.logsumexp((0, 1)).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("block", [7, 200])
def test_blocks_change_neither_values_nor_gradients(monkeypatch, block):
    model, x = random_model()
    parameters = list(model.parameters())
    expected = model.log_marginal(x)
    gradients = torch.autograd.grad(expected.sum(), parameters)
    monkeypatch.setattr(lvms.blocks, "BLOCK_ELEMENTS", block)
    got = model.log_marginal(x)
    torch.testing.assert_close(got, expected)
    for a, b in zip(torch.autograd.grad(got.sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prior", PRIORS)
def test_gradient_of_the_marginal_is_the_expected_gradient_of_the_joint(prior):
    model, x = random_model(prior)
    parameters = list(model.parameters())
    got = torch.autograd.grad(model.log_marginal(x).sum(), parameters)
    posterior = density_table(model, x).softmax(-1).float()
    joint = (posterior * EnumeratedPosterior(model).log_joint_table(x)).sum()
    expected = torch.autograd.grad(joint, parameters)
    for (label, _), a, b in zip(model.named_parameters(), got, expected, strict=True):
        assert b.abs().max() > 1e-5, label
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_repeated_codes_are_decoded_once_with_the_same_values_and_gradients(monkeypatch):
    model, x = random_model()
    z = structures(model)[torch.tensor([5, 7, 5, 5, 0, 7])]
    decoded, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z: decoded.append(len(z)) or decode(z))
    together = model.log_joint(x, z)
    assert decoded == [3]
    alone = torch.cat([model.log_joint(x[i : i + 1], z[i : i + 1]) for i in range(6)])
    assert decoded == [3] + [1] * 6
    torch.testing.assert_close(together, alone)
    parameters = list(model.parameters())
    one, other = (torch.autograd.grad(value.sum(), parameters) for value in (together, alone))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_observations_may_be_bytes():
    model, x = random_model()
    z = structures(model)[: len(x)]
    torch.testing.assert_close(model.log_joint(x.byte(), z), model.log_joint(x, z))
    torch.testing.assert_close(model.log_marginal(x.byte()), model.log_marginal(x))


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize("prior", PRIORS)
def test_partial_joint_puts_the_mean_code_where_none_is_assigned(prior, order):
    model, x = random_model(prior, order=order)
    states = model.env.enumerate_states(model.env.empty_context(1)[0])
    states = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(0))[:40]]
    codes = model.embedding.weight
    for state in states:
        cells = [codes[z] if z >= 0 else codes.mean(0) for z in state.tolist()]
        embedded = torch.stack(cells, -1).view(1, -1, *model.env.grid)
        logits = model.decoder(embedded)[0] + model.pixel_bias
        conditionals = model.prior.conditionals(state[None].clamp_min(0))[0]
        log_prior = sum(c for c, z in zip(conditionals, state.tolist(), strict=True) if z >= 0)
        cost = F.binary_cross_entropy_with_logits(logits.expand_as(x), x, reduction="none")
        got = model.log_partial(x, state.expand(len(x), -1))
        torch.testing.assert_close(got, log_prior - cost.flatten(1).sum(-1), **CLOSE)


@pytest.mark.parametrize("image", [(1, 5, 4), (2, 2, 2)])
def test_one_hot_weights_are_decoded_as_codes_are(image):
    model, _ = random_model(image=image)
    z = structures(model)
    assert torch.equal(model.decode_relaxed(F.one_hot(z, 3).float()), model.decode(z))


def test_mixtures_are_decoded_from_mean_embeddings_with_a_gradient():
    model, _ = random_model()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4, 3, generator=generator).softmax(-1).requires_grad_()
    logits = model.decode_relaxed(weights)
    mean = torch.stack(
        [(w[:, None] * model.embedding.weight).sum(0) for w in weights.flatten(0, 1)]
    )
    torch.testing.assert_close(logits, model.decode_embedded(mean.view(5, 4, -1)), **CLOSE)
    even = torch.full((1, 4, 3), 1 / 3)
    unset = torch.full((1, 4), -1)
    torch.testing.assert_close(model.decode_relaxed(even), model.decode(unset), **CLOSE)
    (gradient,) = torch.autograd.grad(logits.square().sum(), weights)
    assert gradient.abs().amax((0, 2)).min() > 1e-3  # every place matters


# -- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(2))
def test_posterior_samples_follow_the_exact_posterior(monkeypatch, row):
    monkeypatch.setattr(lvms.blocks, "BLOCK_ELEMENTS", 500)
    model, x = random_model()
    z = model.sample_posterior(x, 6000, torch.Generator().manual_seed(row))
    assert (z.shape, z.dtype) == ((len(x), 6000, 4), torch.int64)
    assert_drawn_from(z[row], structures(model), density_table(model, x).log_softmax(-1)[row])


def test_dreams_follow_the_joint():
    model, _ = random_model("transformer", image=(1, 1, 2), grid=(1, 2))
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    assert x.shape == (20_000, 1, 1, 2)
    assert not x.requires_grad
    every_x = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    joint = density_table(model, every_x.view(-1, 1, 1, 2)).flatten()
    every_z = structures(model)
    pairs = torch.cat([every_x.repeat_interleave(9, 0), every_z.repeat(4, 1)], 1)
    assert_drawn_from(torch.cat([x.flatten(1).long(), z], 1), pairs, joint)


def test_pictures_of_dreams_are_probabilities_of_pixels():
    model, _ = random_model(image=(1, 5, 4))
    pictures = model.dreams(4000, torch.Generator().manual_seed(0))
    assert pictures.shape == (4000, 1, 5, 4)
    z = structures(model)
    weight = model.prior.log_prob(z).exp()
    mean = (weight[:, None] * model.decode(z).sigmoid().flatten(1)).sum(0)
    error = pictures.flatten(1).std(0) / 4000**0.5
    assert ((pictures.flatten(1).mean(0) - mean).abs() < 5 * error + 1e-6).all()


def test_mean_field_is_coordinate_ascent_on_the_table(monkeypatch):
    monkeypatch.setattr(lvms.blocks, "BLOCK_ELEMENTS", 200)
    model, x = random_model()
    table = density_table(model, x).view(len(x), *model.env.sizes)
    for got, expected in zip(model.mean_field(x, 3), ascend_on_table(table, 3), strict=True):
        torch.testing.assert_close(got.exp().double(), expected.exp(), rtol=0, atol=1e-3)


# -- learning -------------------------------------------------------------------------------------


def stripes(n, seed=0):
    """8 x 8 images of a random row and a random column, lit."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 1, 8, 8)
    row, column = torch.randint(8, (2, n), generator=generator)
    x[torch.arange(n), 0, row] = 1
    x[torch.arange(n), 0, :, column] = 1
    return x


@pytest.mark.parametrize("prior", PRIORS)
def test_a_start_forgets_all_that_was_learned_and_is_near_the_pixel_marginals(prior):
    x = (stripes(300) * (torch.arange(8) < 5)).clone()
    starts = []
    for seed in (1, 1, 2):
        model, _ = random_model(prior, image=(1, 8, 8), num_codes=4, seed=seed)
        learned = [parameter.clone() for parameter in model.parameters()]
        version = model.version
        model.start_at_data(x, torch.Generator().manual_seed(seed))
        assert model.version > version
        assert not any(map(torch.equal, model.parameters(), learned))
        starts.append(model)
    for other, expected in ((starts[1], True), (starts[2], False)):
        pairs = zip(starts[0].parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == expected

    model, marginal = starts[0], starts[0].pixel_marginal_nll(x)
    on = (x.mean(0) * 300 + 0.5) / 301
    expected = -torch.distributions.Bernoulli(on).log_prob(x).flatten(1).sum(-1)
    torch.testing.assert_close(marginal, expected, **CLOSE)
    z = structures(model)
    assert model.decode(z).std(0).square().mean().sqrt().item() == pytest.approx(0.25, rel=0.2)
    torch.testing.assert_close(model.decode(z).mean(0), on.logit(), rtol=0, atol=0.2)
    nll = -model.log_marginal(x).mean().item()
    assert nll == pytest.approx(marginal.mean().item(), abs=1.0)


@pytest.mark.parametrize("prior", ["uniform", "pixel-cnn"])
def test_gradient_ascent_on_exact_samples_leaves_the_pixel_marginals_behind(prior):
    x = stripes(64)
    model = DiscreteVAE((1, 8, 8), (2, 2), 4, code_dim=8, channels=16, prior=prior, seed=1)
    generator = torch.Generator().manual_seed(0)
    model.start_at_data(x, generator)
    m_step = GradientAscent(torch.optim.Adam(model.parameters(), lr=0.005), model)
    for _ in range(100):
        m_step.step(x, WeightedSamples.equal(model.sample_posterior(x, 4, generator)))
        model.mark_updated()
    nll = -model.log_marginal(x).mean()
    assert nll < 0.7 * model.pixel_marginal_nll(x).mean()


def test_the_reward_is_the_log_joint():
    model, x = random_model()
    z = structures(model)[: len(x)]
    torch.testing.assert_close(LVMReward(model)(x, z), model.log_joint(x, z).detach())


def test_the_state_says_everything():
    model, x = random_model("transformer")
    model.start_at_data(x, torch.Generator().manual_seed(3))
    other, _ = random_model("transformer", seed=9)
    other.load_state_dict(model.state_dict())
    assert other.version == model.version
    torch.testing.assert_close(other.log_marginal(x), model.log_marginal(x))
    torch.testing.assert_close(other.pixel_marginal_nll(x), model.pixel_marginal_nll(x))


# -- shapes, wrong arguments ----------------------------------------------------------------------


def test_the_paper_s_size():
    model = DiscreteVAE(code_dim=1, channels=128, num_codes=10, prior="pixel-cnn")
    x, z = model.sample(3, torch.Generator().manual_seed(0))
    assert (x.shape, z.shape) == ((3, 1, 28, 28), (3, 16))
    assert model.log_joint(x, z).shape == (3,)
    with pytest.raises(UserError, match="too many to enumerate"):
        model.log_marginal(x)


def test_models_are_fixed_by_their_seed():
    first, again, other = (DiscreteVAE((1, 4, 4), (2, 2), 3, seed=s) for s in (1, 1, 2))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    z = structures(first)
    assert first.decode(z).std(0).square().mean().sqrt().item() == pytest.approx(1, rel=0.2)


def test_a_single_code_leaves_the_pixel_marginals():
    model = DiscreteVAE((1, 4, 4), (2, 2), num_codes=1)
    x = torch.randint(2, (50, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    model.start_at_data(x)
    torch.testing.assert_close(-model.log_marginal(x), model.pixel_marginal_nll(x), **CLOSE)


def test_a_prior_of_one_s_own_is_taken():
    prior = UniformPrior((2, 2), 3)
    assert DiscreteVAE((1, 4, 4), (2, 2), 3, prior=prior).prior is prior
    with pytest.raises(UserError, match=r"The prior is over \(2, 2\) grids of 3 codes"):
        DiscreteVAE((1, 4, 4), (2, 2), 4, prior=prior)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (28, 28)}, "image_shape of channels, height and width"),
        ({"image_shape": (1, 0, 28)}, "at least 1"),
        ({"code_dim": 0}, "at least 1"),
        ({"channels": 0}, "at least 1"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": math.nan}, "scale must be positive"),
        ({"grid": (4, 29)}, "larger than the image"),
        ({"num_codes": 0}, "at least 1"),
        ({"order": "random"}, "Unknown build order"),
        ({"prior": "gaussian"}, "no prior over codes 'gaussian'"),
    ],
)
def test_wrong_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        DiscreteVAE(**arguments)


def test_images_of_another_shape_are_a_user_error():
    model = DiscreteVAE((1, 4, 4), (2, 2), 2)
    for shape in ((5, 1, 4, 5), (5, 16)):
        with pytest.raises(UserError, match=r"do not fit a model of \(1, 4, 4\)"):
            model.start_at_data(torch.zeros(shape))


def test_satisfies_the_protocols_and_is_its_own_exact_posterior():
    model = DiscreteVAE((1, 4, 4), (2, 2), 2)
    for protocol in (ExactPosterior, MeanField, PartialJoint, StartAtData):
        assert isinstance(model, protocol)
    assert exact_posterior(model) is model


@pytest.mark.parametrize("prior", PRIORS)
def test_moves_to_another_device_with_its_environment(prior):
    model = DiscreteVAE((1, 4, 4), (2, 2), 2, prior=prior).to("meta")
    x, z = model.sample(2)
    assert model.env.device.type == x.device.type == z.device.type == "meta"
    assert model.log_joint(x, z).device.type == model.log_marginal(x).device.type == "meta"
