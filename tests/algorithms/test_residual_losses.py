"""Losses of residuals: against torchgfn's, at zero, and far out."""

import pytest
import torch
from gfn.gflownet import losses as torchgfn
from torch.testing import assert_close

from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.mlp_policy import MLPPolicy
from algorithms.policy_distribution import policy_log_probs
from algorithms.residual_loss import HalfSquared, Huber, Linex, Scaled, ShiftedCosh, Squared
from algorithms.trajectory_balance import TrajectoryBalance
from gfn_envs import FactoredCategorical, UserError
from tests.algorithms.models import TableModel

pytestmark = pytest.mark.xdist_group("torchgfn")

PAIRS = [
    (Squared(), torchgfn.SquaredLoss()),
    (HalfSquared(), torchgfn.HalfSquaredLoss()),
    (ShiftedCosh(), torchgfn.ShiftedCoshLoss()),
    (Linex(), torchgfn.LinexLoss(-1.0)),
    (Linex(1.0), torchgfn.LinexLoss(1.0)),
    (Linex(0.5), torchgfn.LinexLoss(0.5)),
    (Linex(-1.5), torchgfn.LinexLoss(-1.5)),
]
LOSSES = [ours for ours, _ in PAIRS] + [Huber(), Scaled(1 / 16), Scaled(0.5, Huber())]


def with_gradient(loss, residual):
    residual = residual.clone().requires_grad_()
    value = loss(residual)
    value.sum().backward()
    return value.detach(), residual.grad


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=repr)
def test_losses_are_torchgfns(ours, theirs):
    residual = torch.linspace(-12, 12, 97, dtype=torch.float64)
    for mine, expected in zip(
        with_gradient(ours, residual), with_gradient(theirs, residual), strict=True
    ):
        assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_losses_are_zero_and_stationary_at_zero_and_grow_from_there(loss):
    value, gradient = with_gradient(loss, torch.zeros(3))
    assert (value == 0).all()
    assert (gradient == 0).all()
    value, gradient = with_gradient(loss, torch.tensor([-60.0, -3.0, -0.1, 0.1, 3.0, 60.0]))
    assert (value > 0).all()
    assert (value[:2] > value[1:3]).all()
    assert (value[4:] > value[3:5]).all()
    assert (gradient.sign() == torch.tensor([-1.0, -1, -1, 1, 1, 1])).all()


def test_a_scaled_loss_is_the_loss_of_scaled_residuals():
    residual = torch.linspace(-12, 12, 97, dtype=torch.float64)
    value, gradient = with_gradient(Scaled(1 / 16), residual)
    assert_close(value, residual.square() / 256)
    assert_close(gradient, residual / 128)
    value, _ = with_gradient(Scaled(2.0, Linex()), residual)
    assert_close(value, Linex()(2 * residual))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_is_a_positive_number(scale):
    with pytest.raises(UserError, match="scale must be a positive number"):
        Scaled(scale)


@pytest.mark.parametrize("loss", [ShiftedCosh(), Linex(), Linex(1.5), Linex(0.5)], ids=repr)
def test_far_residuals_keep_a_finite_and_useful_gradient(loss):
    far = torch.tensor([-500.0, -100.0, 100.0, 500.0])
    value, gradient = with_gradient(loss, far)
    assert value.isfinite().all()
    assert gradient.square().isfinite().all()  # Adam's second moment
    assert (gradient.sign() == far.sign()).all()
    # No step where the line begins.
    edge = getattr(loss, "limit", 20.0) / getattr(loss, "alpha", 1.0)
    around = torch.tensor([edge * (1 - 1e-6), edge * (1 + 1e-6)], dtype=torch.float64)
    value, gradient = with_gradient(loss, around)
    assert_close(value[0], value[1], rtol=1e-4, atol=0)
    assert_close(gradient[0], gradient[1], rtol=1e-4, atol=0)


def test_linex_of_minus_one_has_the_gradient_of_the_forward_kl():
    """On samples of the policy itself, its expected gradient; with the other sign it has not."""
    draw = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = draw[0].clone().requires_grad_()
    log_q, log_p = logits.log_softmax(0), draw[1].log_softmax(0)
    expected = torch.autograd.grad(-(log_p.exp() * log_q).sum(), logits, retain_graph=True)[0]

    def gradient(alpha):
        loss = (log_q.detach().exp() * Linex(alpha)(log_q - log_p)).sum()
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    assert_close(gradient(-1.0), expected)
    assert (gradient(1.0) - expected).abs().max() > 0.05


def test_linex_refuses_zero():
    with pytest.raises(UserError, match="other than 0"):
        Linex(0.0)


@pytest.mark.parametrize("loss", [HalfSquared(), ShiftedCosh(), Linex(), Linex(-0.5)], ids=repr)
def test_training_converges_to_the_posterior(loss):
    env = FactoredCategorical((2, 3), order="any")
    model = TableModel(env)
    torch.manual_seed(0)
    policy = MLPPolicy(env, x_size=2, hidden=32)
    e_step = GFlowNetEStep(
        model,
        policy,
        TrajectoryBalance(residual_loss=loss),
        exploration=EpsilonUniform(0.1),
        samples_per_x=16,
        generator=torch.Generator().manual_seed(0),
    )
    x = model.observations()
    for _ in range(25):
        e_step.fit(x, m_steps=0)
    q = policy_log_probs(env, policy, x).exp()
    assert (q - model.log_posterior().exp()).abs().sum(-1).mean() / 2 < 0.02
