"""Reverse KL, forward KL, reweighted wake-sleep and VIMCO: expectations over every trajectory."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from algorithms.backward_policy import (
    LearnedBackward,
    TreeBackward,
    UniformActions,
    UniformTrajectories,
)
from algorithms.exploration import EpsilonUniform, Exploration, OnPolicy
from algorithms.forward_kl import ForwardKL
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.mlp_policy import MLPPolicy
from algorithms.objectives import objectives
from algorithms.policy_distribution import policy_log_probs
from algorithms.reverse_kl import ReverseKL
from algorithms.reweighted_wake import ReweightedWake
from algorithms.rollout import backward_rollout, rollout, score
from algorithms.schedule import Constant
from algorithms.trajectory_batch import select
from algorithms.vargrad import VarGrad
from algorithms.vimco import VIMCO
from gfn_envs import FactoredCategorical, UserError
from lvms import EnumeratedPosterior, LVMReward
from tests.algorithms.models import PosteriorPolicy, TableModel
from tests.algorithms.trajectories import (
    every_trajectory,
    expected_loss_of_pairs,
    generator,
    gradients,
    table_batch,
)
from tests.envs import Sequences

ENVS = {
    "fixed": FactoredCategorical((2, 3)),
    "any": FactoredCategorical((2, 3), order="any"),
    "optional exit": Sequences(2, 2),
}
BACKWARD = {"actions": UniformActions, "trajectories": UniformTrajectories}
FIXED = [(name, "actions") for name in ENVS] + [("any", "trajectories")]
OBJECTIVES = [ReverseKL, ForwardKL, ReweightedWake, VIMCO]


def random_policy(env):
    torch.manual_seed(0)
    policy = MLPPolicy(env, x_size=2, hidden=8)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.7)
    return policy


def log_joint_of_paths(env, policy, batch, backward):
    """log P_B(tau | z) R(z; x), with the gradient in P_B."""
    return backward.log_prob(env, policy, batch).sum(0) + batch.log_reward


# -- gradients, exactly ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_name", "backward"),
    [
        ("fixed", TreeBackward()),
        ("optional exit", UniformActions()),
        ("any", UniformActions()),
        ("any", UniformTrajectories()),
        ("any", LearnedBackward()),
    ],
)
def test_reverse_kl_has_the_exact_gradient_in_expectation(env_name, backward):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    batch = every_trajectory(model, policy, 0)
    log_q = batch.total_log_pf()
    assert log_q.exp().sum().item() == pytest.approx(1.0)
    target = log_joint_of_paths(env, policy, batch, backward)
    divergence = (log_q.exp() * (log_q - target)).sum()
    expected = gradients(policy, divergence)
    estimate = expected_loss_of_pairs(ReverseKL(backward), env, policy, batch)
    assert_close(estimate, divergence, rtol=1e-4, atol=1e-4)
    found = gradients(policy, estimate)
    assert max(g.abs().max() for g in expected.values()) > 0.1
    assert_close(found, {name: expected[name] for name in found}, rtol=1e-3, atol=1e-4)
    assert all((expected[name] == 0).all() for name in set(expected) - set(found))


@pytest.mark.parametrize("env_name", ENVS)
def test_reverse_kl_is_half_of_vargrad_on_the_same_trajectories(env_name):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    batch = table_batch(model, policy, samples=7)
    ours = gradients(policy, ReverseKL(UniformActions()).loss(env, policy, batch).loss)
    theirs = gradients(policy, VarGrad(UniformActions()).loss(env, policy, batch).loss)
    assert max(g.abs().max() for g in ours.values()) > 0.1
    assert_close(ours, {name: g / 2 for name, g in theirs.items()}, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("env_name", ENVS)
def test_forward_kl_has_the_exact_gradient_on_every_structure(env_name):
    """Trajectories weighted by how often they are drawn give cross-entropy, and so the KL's."""
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    batch = every_trajectory(model, policy, 1)
    target = log_joint_of_paths(env, policy, batch, UniformActions()).softmax(0)
    divergence = (target * (target.log() - batch.total_log_pf())).sum()
    drawn = torch.multinomial(target, 200_000, replacement=True, generator=generator())
    share = torch.bincount(drawn, minlength=len(batch)) / len(drawn)
    loss = sum(
        share[i] * ForwardKL().loss(env, policy, select(batch, [i])).loss for i in range(len(batch))
    )
    entropy = -(target * target.log()).sum()
    assert_close(loss - entropy, divergence, atol=0.02, rtol=0)
    assert_close(gradients(policy, loss), gradients(policy, divergence), atol=0.03, rtol=0)


@pytest.mark.parametrize("env_name", ENVS)
def test_reweighted_wake_weighs_as_plain_loops_do(env_name):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    batch = table_batch(model, policy, samples=9)
    output = ReweightedWake(UniformActions()).loss(env, policy, batch)
    target = log_joint_of_paths(env, policy, batch, UniformActions())
    total, bound, effective = 0.0, 0.0, 0.0
    for row in range(2):
        here = batch.rows == row
        log_q = batch.total_log_pf()[here]
        log_weight = (target[here] - log_q).detach()
        weight = log_weight.softmax(0)
        total = total - (weight * log_q).sum() / 2
        bound += (log_weight.logsumexp(0) - torch.tensor(9.0).log()) / 2
        effective += weight.square().sum().reciprocal() / 2
    assert_close(output.loss, total)
    assert_close(gradients(policy, output.loss), gradients(policy, total))
    assert_close(output.metrics["iwae_bound"], bound)
    assert_close(output.metrics["effective_samples"], effective)
    assert_close(output.per_trajectory.sum() / 2, total.detach())


@pytest.mark.parametrize(
    ("env_name", "backward"),
    [
        ("fixed", TreeBackward()),
        ("optional exit", UniformActions()),
        ("any", UniformTrajectories()),
        ("any", LearnedBackward()),
    ],
)
def test_vimco_has_the_exact_gradient_of_the_bound_of_pairs(env_name, backward):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    batch = every_trajectory(model, policy, 0)
    log_q = batch.total_log_pf()
    log_w = log_joint_of_paths(env, policy, batch, backward) - log_q
    bounds = torch.logaddexp(log_w[:, None], log_w[None]) - torch.tensor(2.0).log()
    expected = gradients(policy, -((log_q[:, None] + log_q[None]).exp() * bounds).sum())
    estimate = expected_loss_of_pairs(VIMCO(backward), env, policy, batch)
    found = gradients(policy, estimate)
    assert max(g.abs().max() for g in expected.values()) > 0.1
    assert_close(found, {name: expected[name] for name in found}, rtol=1e-3, atol=1e-4)
    assert all((expected[name] == 0).all() for name in set(expected) - set(found))


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_vimco_s_baseline_is_that_of_plain_loops(scale):
    """Also where one weight is nearly all of the sum."""
    env = ENVS["any"]
    model = TableModel(env)
    policy = random_policy(env)
    batch = table_batch(model, policy, samples=5)
    batch.log_reward = scale * batch.log_reward
    output = VIMCO(UniformActions()).loss(env, policy, batch)
    log_pf = batch.total_log_pf()
    ratio = log_pf - UniformActions().total(env, policy, batch) - batch.log_reward
    total, bound = 0.0, 0.0
    for row in range(2):
        here = (batch.rows == row).nonzero().squeeze(-1).tolist()
        log_w = -ratio.detach().double()[here]
        full = log_w.logsumexp(0)
        bound += (full - torch.tensor(5.0).log()) / 2
        for k, i in enumerate(here):
            others = log_w[[j for j in range(5) if j != k]]
            without = torch.logaddexp(others.logsumexp(0), others.mean())
            weight = (log_w[k] - full).exp()
            signal = full - without + 1 / 5
            total = total + (weight * ratio[i] - signal * log_pf[i]) / 2
    assert_close(output.loss.detach(), -bound.float())
    assert_close(output.metrics["iwae_bound"], bound.float())
    assert_close(
        gradients(policy, output.loss), gradients(policy, total), rtol=1e-3, atol=1e-4 * scale
    )


@pytest.fixture
def double_precision():
    """Sums over 200 000 trajectories lose three digits in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("env_name", ENVS)
def test_many_trajectories_make_reweighted_wake_the_forward_kl(env_name):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = random_policy(env)
    nn.init.normal_(policy.forward_head.weight, std=0.1)  # no trajectory so rare as to round badly
    every = every_trajectory(model, policy, 0)
    times = (every.total_log_pf().exp() * 200_000).round().long()
    batch = select(every, torch.arange(len(every)).repeat_interleave(times))
    found = gradients(policy, ReweightedWake().loss(env, policy, batch).loss)
    weight = log_joint_of_paths(env, policy, every, UniformActions()).softmax(0)
    expected = gradients(policy, -(weight * every.total_log_pf()).sum())
    assert max(g.abs().max() for g in expected.values()) > 0.3
    assert_close(found, expected, atol=2e-4, rtol=0)


# -- the exact posterior --------------------------------------------------------------------------


@pytest.mark.parametrize(("env_name", "uniform_over"), FIXED)
def test_gradients_vanish_at_the_exact_posterior(env_name, uniform_over):
    """Reverse KL's and VIMCO's on any batch, the others' in expectation."""
    env, backward = ENVS[env_name], BACKWARD[uniform_over]()
    model = TableModel(env)
    policy = PosteriorPolicy(model, uniform_over)
    some = table_batch(model, policy)
    output = VIMCO(backward).loss(env, policy, some)
    assert gradients(policy, output.loss)["shift"].abs().max() < 1e-5
    output = ReverseKL(backward).loss(env, policy, some)
    assert gradients(policy, output.loss)["shift"].abs().max() < 1e-5
    negative_elbo = -model.table.detach().logsumexp(-1).mean()
    assert_close(output.metrics["negative_elbo"], negative_elbo)
    assert_close(output.loss.detach(), negative_elbo)

    batch = every_trajectory(model, policy, 0)
    wake = expected_loss_of_pairs(ReweightedWake(backward), env, policy, batch)
    assert gradients(policy, wake)["shift"].abs().max() < 1e-5
    share = log_joint_of_paths(env, policy, batch, backward).softmax(0).detach()
    sleep = sum(
        share[i] * ForwardKL(backward).loss(env, policy, select(batch, [i])).loss
        for i in range(len(batch))
    )
    assert gradients(policy, sleep)["shift"].abs().max() < 1e-5
    bound = ReweightedWake(backward).loss(env, policy, table_batch(model, policy)).metrics
    assert_close(bound["iwae_bound"], -negative_elbo)
    assert_close(bound["effective_samples"], torch.tensor(50.0))


@pytest.mark.parametrize("env_name", ENVS)
def test_the_divergences_are_larger_away_from_the_posterior(env_name):
    env = ENVS[env_name]
    model = TableModel(env)
    policy = PosteriorPolicy(model)

    def divergences():
        batch = every_trajectory(model, policy, 0)
        reverse = expected_loss_of_pairs(ReverseKL(), env, policy, batch)
        share = log_joint_of_paths(env, policy, batch, UniformActions()).softmax(0)
        losses = torch.stack(
            [ForwardKL().loss(env, policy, select(batch, [i])).loss for i in range(len(batch))]
        )
        return torch.stack([reverse, (share * losses).sum()]).detach()

    lowest = divergences()
    for seed in range(3):
        with torch.no_grad():
            policy.shift.normal_(generator=generator(seed))
        assert (divergences() > lowest + 0.005).all()


# -- where gradients go, and what is refused ------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("backward", ["uniform", "learned"])
def test_gradient_reaches_the_right_parameters_and_never_theta(objective, backward):
    model = TableModel(ENVS["any"])
    policy = random_policy(model.env)
    learned = backward == "learned"
    made = objective(LearnedBackward() if learned else UniformActions())
    output = made.loss(model.env, policy, table_batch(model, policy))
    reached = {
        name.partition(".")[0]
        for name, gradient in gradients(policy, output.loss).items()
        if gradient.abs().sum() > 0
    }
    expected = {"read_x", "read_state", "forward_head"}
    assert reached == expected | (
        {"backward_head"} if learned and objective in (ReverseKL, VIMCO) else set()
    )
    assert not output.per_trajectory.requires_grad
    assert not any(value.requires_grad for value in output.metrics.values())
    assert model.table.grad is None


@pytest.mark.parametrize("objective", [ReverseKL, ReweightedWake, VIMCO])
def test_absent_observations_are_skipped_and_single_ones_refused(objective):
    env = ENVS["fixed"]
    model = TableModel(env)
    policy = random_policy(env)

    def loss_for(rows):
        x = model.observations()
        batch = rollout(env, policy, x, rows=torch.tensor(rows), generator=generator())
        batch.ensure_log_reward(LVMReward(model))
        return objective().loss(env, policy, batch)

    several = loss_for([1, 1, 1])
    assert several.loss.isfinite()
    assert all(value.isfinite() for value in several.metrics.values())
    if objective is ReverseKL:
        assert_close(several.loss, several.per_trajectory.mean())
    elif objective is ReweightedWake:
        assert_close(several.loss, several.per_trajectory.sum())
    else:
        bound = (-several.per_trajectory).logsumexp(0) - torch.tensor(3.0).log()
        assert_close(several.loss, -bound)
    with pytest.raises(UserError, match="two trajectories"):
        loss_for([0, 0, 1])


def test_trajectories_from_elsewhere_are_refused():
    model = TableModel(ENVS["fixed"])
    policy = random_policy(model.env)
    for objective in [ReverseKL(), ReweightedWake(), VIMCO()]:
        with pytest.raises(UserError, match="drawn from the policy itself; EpsilonUniform"):
            GFlowNetEStep(model, policy, objective, exploration=EpsilonUniform(0.1))
        with pytest.raises(UserError, match="at least 2 samples"):
            GFlowNetEStep(model, policy, objective, samples_per_x=1)
    with pytest.raises(UserError, match=r"samples of the posterior.*those of OnPolicy are not"):
        GFlowNetEStep(model, policy, ForwardKL())


# -- training -------------------------------------------------------------------------------------


class ExactSamples(Exploration):
    """Samples of the enumerated posterior and trajectories to them."""

    posterior_samples = True

    def sample(self, step):
        z = EnumeratedPosterior(step.model).sample_posterior(
            step.x[step.rows], 1, generator=step.generator
        )
        batch = backward_rollout(
            step.env, step.policy, z[:, 0], step.x, step.rows, step.backward,
            context=step.context, generator=step.generator,
        )  # fmt: skip
        return score(step.env, step.policy, batch)


TRAINED = [
    ("fixed", "reverse-kl", TreeBackward(), 16),
    ("any", "reverse-kl", UniformTrajectories(), 16),
    ("any", "reverse-kl", LearnedBackward(), 64),
    ("optional exit", "reverse-kl", UniformActions(), 16),
    ("fixed", "rws", TreeBackward(), 128),
    ("any", "rws", UniformActions(), 128),
    ("optional exit", "rws", UniformActions(), 128),
    ("fixed", "vimco", TreeBackward(), 16),
    ("any", "vimco", UniformActions(), 16),
    ("fixed", "forward-kl", TreeBackward(), 128),
    ("any", "forward-kl", UniformActions(), 128),
    ("optional exit", "forward-kl", UniformActions(), 128),
]


@pytest.mark.parametrize(("env_name", "name", "backward", "samples"), TRAINED)
def test_training_converges_to_the_posterior(env_name, name, backward, samples):
    env = ENVS[env_name]
    model = TableModel(env)
    torch.manual_seed(0)
    policy = MLPPolicy(env, x_size=2, hidden=32)
    e_step = GFlowNetEStep(
        model,
        policy,
        objectives.make(name, backward),
        exploration=ExactSamples() if name == "forward-kl" else OnPolicy(),
        samples_per_x=samples,
        generator=generator(),
    )
    x = model.observations()

    def total_variation():
        q = policy_log_probs(env, policy, x).exp()
        return (q - model.log_posterior().exp()).abs().sum(-1).mean() / 2

    assert total_variation() > 0.2
    for learning_rate in (1e-2, 1e-3):
        # Other than a balance's, sampled gradients do not vanish at the optimum.
        e_step.learning_rate = Constant(learning_rate)
        for _ in range(15):
            e_step.fit(x, m_steps=0)
    assert total_variation() < 0.02
