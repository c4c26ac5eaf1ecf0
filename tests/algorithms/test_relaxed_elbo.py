"""The ELBO of relaxed codes against sums over all grids of codes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms.code_grid_policy import RasterPolicy
from algorithms.policy_distribution import policy_log_probs
from algorithms.relaxed_elbo import RelaxedELBO
from algorithms.schedule import Constant, Linear
from gfn_envs import UserError
from lvms import DiscreteVAE
from tests.algorithms.statistics import assert_drawn_from


def random_parts(autoregressive, prior="pixel-cnn"):
    """A model of 81 grids and a policy with every parameter at random, and an image."""
    torch.manual_seed(0)
    model = DiscreteVAE((1, 5, 4), (2, 2), 3, code_dim=3, channels=6, prior=prior)
    policy = RasterPolicy(
        model.env, (1, 5, 4), channels=6, hidden=8, code_dim=4, autoregressive=autoregressive
    )
    for parameter in [*model.parameters(), *policy.parameters()]:
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    nn.init.normal_(policy.head.weight, std=0.5)
    return model, policy, torch.randint(2, (1, 1, 5, 4)).float()


def structures(model):
    return model.env.enumerate(model.env.empty_context(1)[0])


def many(x, count=4000):
    return x.expand(count, -1, -1, -1)


@pytest.mark.parametrize("autoregressive", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_cold_samples_and_their_logits_are_the_policy_s(autoregressive, hard):
    model, policy, x = random_parts(autoregressive)
    with torch.no_grad():
        weights, logits = policy.relaxed_sample(
            policy.encode(many(x)), 1e-3, hard, torch.Generator().manual_seed(0)
        )
    z = weights.argmax(-1)
    log_q = policy_log_probs(model.env, policy, x)[0]
    assert_drawn_from(z, structures(model), log_q)
    # Weights that are not one-hot are ties to a thousandth of a nat: one place in a thousand.
    clear = (weights.amax(-1) > 0.999).all(-1)
    assert clear.float().mean() > 0.97
    found = logits.log_softmax(-1).gather(-1, z[..., None]).sum((1, 2))
    index = (z[:, None] == structures(model)).all(-1).long().argmax(1)
    torch.testing.assert_close(found[clear], log_q[index][clear], rtol=0, atol=0.01)


@pytest.mark.parametrize("prior", ["pixel-cnn", "transformer", "uniform"])
@pytest.mark.parametrize("autoregressive", [True, False])
def test_on_hard_codes_it_is_the_elbo(autoregressive, prior):
    model, policy, x = random_parts(autoregressive, prior)
    log_q = policy_log_probs(model.env, policy, x)[0]
    with torch.no_grad():
        z = structures(model)
        expected = (log_q.exp() * (model.log_joint(x.expand(81, -1, -1, -1), z) - log_q)).sum()
        divergence = (log_q.exp() * (log_q - model.prior.log_prob(z))).sum()
        relaxed = RelaxedELBO(Constant(0.5), kl_weight=0.0, hard=True)
        losses, kls = [], []
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            loss, metrics = relaxed.loss(model, policy, many(x, 500), 0, generator)
            torch.testing.assert_close(loss, -metrics["relaxed_elbo"] - metrics["kl"])
            losses.append(metrics["relaxed_elbo"])
            kls.append(metrics["kl"])
    for found, exact in ((losses, expected), (kls, divergence)):
        found = torch.stack(found)
        assert (found.mean() - exact).abs() < 4 * found.std() / 20**0.5 + 1e-4


def test_warm_codes_give_another_value():
    """So that the test before would see weights that are not hard."""
    model, policy, x = random_parts(autoregressive=True)
    values = []
    for hard in (True, False):
        relaxed = RelaxedELBO(Constant(2.0), hard=hard)
        _, metrics = relaxed.loss(model, policy, many(x), 0, torch.Generator().manual_seed(0))
        values.append(metrics["relaxed_elbo"].item())
    assert abs(values[0] - values[1]) > 0.05


@pytest.mark.parametrize("autoregressive", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_gradient_reaches_every_parameter_but_log_z(autoregressive, hard):
    model, policy, x = random_parts(autoregressive)
    loss, metrics = RelaxedELBO(Constant(0.7), 0.5, hard).loss(
        model, policy, many(x, 50), 0, torch.Generator().manual_seed(0)
    )
    loss.backward()
    assert not any(value.requires_grad for value in metrics.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name
    blind = () if autoregressive else ("embedding", "read_codes")
    for name, parameter in policy.named_parameters():
        part = name.partition(".")[0]
        if part in ("partition", *blind):
            assert parameter.grad is None, name
        else:
            assert parameter.grad.abs().max() > 1e-6, name


def test_the_gradient_is_that_of_the_expectation_as_codes_cool():
    """REINFORCE knows the exact gradient; relaxed codes have a bias that falls with warmth."""
    model, policy, x = random_parts(autoregressive=True)
    z = structures(model)
    memory = policy.encode(x)
    rows = torch.zeros(81, dtype=torch.long)
    scored = policy.trajectory_logits(z.t(), memory, rows)[..., :-1].log_softmax(-1)
    log_q = scored.gather(-1, z.t()[..., None]).sum((0, 2))
    log_joint = model.log_joint(many(x, 81), z).detach()
    exact = -(log_q.exp() * (log_joint - log_q)).sum()
    (expected,) = torch.autograd.grad(exact, policy.head.bias)
    errors = []
    for temperature in (3.0, 0.3):
        loss, _ = RelaxedELBO(Constant(temperature)).loss(
            model, policy, many(x, 20_000), 0, torch.Generator().manual_seed(0)
        )
        (found,) = torch.autograd.grad(loss, policy.head.bias)
        errors.append(F.pairwise_distance(found, expected).item() / expected.norm().item())
    assert errors[1] < 0.15
    assert errors[1] < errors[0]


def test_schedules_are_followed():
    model, policy, x = random_parts(autoregressive=True)
    relaxed = RelaxedELBO(Linear(2.0, 0.5, 10), Linear(0.0, 1.0, 10))
    for update, temperature, weight in ((0, 2.0, 0.0), (5, 1.25, 0.5), (30, 0.5, 1.0)):
        found, metrics = relaxed.loss(model, policy, x, update, torch.Generator().manual_seed(1))
        loss, _ = RelaxedELBO(Constant(temperature), weight).loss(
            model, policy, x, 0, torch.Generator().manual_seed(1)
        )
        torch.testing.assert_close(found, loss)
        torch.testing.assert_close(found, -metrics["relaxed_elbo"] - (1 - weight) * metrics["kl"])


def test_a_temperature_of_zero_is_a_user_error():
    with pytest.raises(UserError, match="temperature must be a positive number; got 0"):
        RelaxedELBO(Linear(1.0, 0.0, 10))
