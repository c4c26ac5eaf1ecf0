"""The catalogue of models: every one is a task whose posterior is exact and worth sampling."""

import math
import re

import pytest
import torch

from gfn_envs import UserError
from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.testing import check_latent_env
from gfn_envs.top_down_tree import TopDownTree
from lvms import (
    EnumeratedPosterior,
    ExactPosterior,
    HierarchicalGaussianMixture,
    MeanField,
    PartialJoint,
    exact_posterior,
)
from lvms.models import models, observations

# The scenes of sprites-small and the paths of paths-small are enumerated in tests of their own.
MANY = ("sprites-small", "paths-small")
GRAMMARS = ("pcfg-tiny", "pcfg-small", "ncfg-tiny", "energy-tiny")
ENUMERABLE = [name for name in models if not name.endswith("medium") and name not in MANY]


@torch.no_grad()
def posterior_log_probs(model, x, z):
    """log p(z | x) of structures `[B, k, S]`, `[B, k]`; each p(x) is computed once."""
    log_joint = model.log_joint(x.repeat_interleave(z.shape[1], 0), z.flatten(0, 1))
    return log_joint.view(z.shape[:2]) - exact_posterior(model).log_marginal(x)[:, None]


def posterior_entropy(model, x, draws=100):
    """The mean over observations of -E log p(z | x), estimated from exact samples, nats."""
    z = exact_posterior(model).sample_posterior(x, draws, torch.Generator().manual_seed(0))
    return -posterior_log_probs(model, x, z).mean().item()


def stated_entropy(name):
    """The lowest, the highest and the largest possible entropy that the description states."""
    found = re.search(r"([\d.]+) to ([\d.]+) of ([\d.]+) nats\.$", models[name].description)
    return tuple(map(float, found.groups()))


def test_which_models_there_are_in_which_sizes():
    kinds, sizes = ("mixture", "hmm", "sbn"), ("tiny", "small", "medium")
    expected = {f"{kind}-{size}" for kind in kinds for size in sizes}
    assert set(models) == expected | {
        "dvae-tiny",
        "dvae-small",
        "paths-tiny",
        "paths-small",
        "sprites-tiny",
        "sprites-small",
        "pcfg-tiny",
        "pcfg-small",
        "ncfg-tiny",
        "energy-tiny",
    }
    depths = [models.make(f"mixture-{size}").env.max_steps for size in sizes]
    assert depths == [2, 4, 8]


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize("name", models)
def test_environments_keep_the_contract(name, order):
    env = models.make(name, order=order).env
    if name in GRAMMARS:
        assert isinstance(env, TopDownTree if order == "fixed" else BottomUpTree)
    else:
        assert env.order == order
    report = check_latent_env(env)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", [name for name in ENUMERABLE if name != "energy-tiny"])
def test_exact_inference_agrees_with_enumeration(name):
    model = models.make(name, 1)
    x, z = model.sample(8, torch.Generator().manual_seed(0))
    exact = EnumeratedPosterior(model)
    torch.testing.assert_close(model.log_marginal(x), exact.log_marginal(x), rtol=1e-4, atol=1e-4)
    got, expected = (source.posterior_log_prob(x, z) for source in (model, exact))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)
    # Sampled structures are as likely as the table says that they are on average.
    draws = model.sample_posterior(x, 4000, torch.Generator().manual_seed(1))
    table = exact.log_posterior_table(x).detach()
    sampled = posterior_log_probs(model, x, draws)
    entropy = -(table.exp() * table).sum(-1)
    error = sampled.std(-1) / 4000**0.5
    assert ((-sampled.mean(-1) - entropy).abs() < 5 * error + 1e-3).all()


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize(
    "name", ["mixture-tiny", "mixture-small", "hmm-tiny", "sbn-tiny", "dvae-tiny", "sprites-tiny"]
)
def test_partial_joints_tell_good_partial_structures_from_bad_ones(name, order):
    model = models.make(name, order=order)
    assert isinstance(model, PartialJoint)
    x = observations(model, 8)
    table = EnumeratedPosterior(model).log_joint_table(x).detach()
    context_row = model.env.empty_context(1)[0]
    structures, states = model.env.enumerate(context_row), model.env.enumerate_states(context_row)
    error, spread = 0.0, 0.0
    # All states with the same variables assigned, as their constants cancel in what is learned.
    for assigned in (states >= 0).unique(dim=0)[1:-1]:
        alike = states[((states >= 0) == assigned).all(-1)]
        fits = ((alike[:, None] == structures) | (alike[:, None] < 0)).all(-1)
        exact = torch.stack([table[:, which].logsumexp(-1) for which in fits], 1)
        pairs = x.repeat_interleave(len(alike), 0), alike.repeat(len(x), 1)
        away = exact - model.log_partial(*pairs).detach().view_as(exact)
        error += (away - away.mean(1, keepdim=True)).square().mean()
        spread += (exact - exact.mean(1, keepdim=True)).square().mean()
    assert error < 0.5 * spread


@pytest.mark.parametrize("name", models)
@pytest.mark.parametrize("seed", [0, 1])
def test_posteriors_are_as_uncertain_as_stated_and_no_product_of_factors(name, seed):
    model = models.make(name, seed)
    assert isinstance(model, ExactPosterior) == (name != "energy-tiny")
    x = observations(model, 200, seed=1)
    low, high, uniform = stated_entropy(name)
    assert uniform == pytest.approx(
        math.log(model.env.num_structures(model.context(x)[0])), abs=0.05
    )
    # Of the many scenes of sprites-small, what is hidden leaves a smaller share.
    least = 0.13 if name == "sprites-small" else 0.15
    assert least * uniform < low < high < 0.6 * uniform
    # The stated figures are rounded, and were measured on 200 observations too.
    assert low - 0.1 < posterior_entropy(model, x) < high + 0.1

    if name in GRAMMARS:  # which factors of a tree would be independent?
        return
    assert isinstance(model, MeanField)
    x = x[:30]
    log_q = model.mean_field(x, 20)
    generator = torch.Generator().manual_seed(0)
    z = torch.stack([torch.multinomial(q.exp(), 100, True, generator=generator) for q in log_q], -1)
    log_q_z = sum(q.gather(1, z[..., d]) for d, q in enumerate(log_q))
    assert (log_q_z - posterior_log_probs(model, x, z)).mean() > 0.05


@pytest.mark.parametrize("name", models)
def test_parameters_and_observations_are_fixed_by_their_seeds(name):
    first, again, other = (models.make(name, seed) for seed in (3, 3, 4))
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not any(map(torch.equal, first.parameters(), other.parameters()))
    assert torch.equal(observations(first, 4, seed=5), observations(again, 4, seed=5))
    assert not torch.equal(observations(first, 4, seed=5), observations(first, 4, seed=6))
    assert len(observations(first, 4)) == 4


def test_deep_mixtures_spread_their_leaves_over_the_plane():
    straight = HierarchicalGaussianMixture((2,) * 8)
    turned = models.make("mixture-medium")
    z = turned.env.enumerate(torch.zeros(0))
    assert straight.offset(z)[:, 0].abs().max() < 1e-5
    assert torch.linalg.svdvals(turned.offset(z))[1] > 8
    # The third level: the offset turned by two twists, its radius that of the second by the decay.
    model = HierarchicalGaussianMixture((1, 1, 1), radius=2.0, decay=0.7, twist=0.3)
    second, third = (math.pi + 0.3, math.pi + 0.6)
    expected = [2 * f(second) + 1.4 * f(third) for f in (math.cos, math.sin)]
    got = model.offset(torch.zeros(1, 3, dtype=torch.int64))[0].tolist()
    assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("arguments", [{"decay": 0.0}, {"decay": math.nan}, {"twist": math.inf}])
def test_wrong_shapes_of_a_mixture_are_user_errors(arguments):
    with pytest.raises(UserError, match="decay must be positive, twist finite"):
        HierarchicalGaussianMixture(**arguments)


def test_an_unknown_model_gets_a_clear_line():
    with pytest.raises(UserError, match=r"no model 'hmm-tin'. Did you mean hmm-tiny"):
        models.make("hmm-tin")
