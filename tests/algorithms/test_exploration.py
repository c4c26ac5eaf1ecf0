"""What every exploration keeps to, and those that only change a temperature."""

import io
from dataclasses import replace

import pytest
import torch

from algorithms.alternation import FixedUpdates
from algorithms.exploration import EpsilonUniform, OnPolicy
from algorithms.explorations import explorations
from algorithms.flow_matching import FlowMatching
from algorithms.forward_kl import ForwardKL
from algorithms.forward_looking import (
    ForwardLookingDetailedBalance,
    ForwardLookingSubTrajectoryBalance,
)
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.mixture import Mixture
from algorithms.policy_distribution import policy_log_probs
from algorithms.replay import Replay
from algorithms.schedule import Exponential, Linear
from algorithms.sleep import Sleep
from algorithms.tempered import Tempered
from algorithms.tempered_reward import TemperedReward
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from gfn_envs import UserError
from tests.algorithms.exploration_cases import (
    ENVS,
    DreamingTable,
    LengthModel,
    assert_right_batch,
    assert_same_batch,
    generator,
    random_policy,
    step_for,
    total_variation_after,
)
from tests.algorithms.statistics import assert_drawn_from

MODELS = {name: lambda env=env: DreamingTable(env) for name, env in ENVS.items()}
MODELS["context"] = LengthModel


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", explorations)
def test_batches_are_legal_scored_and_reproducible(name, model):
    """Three updates, so that what is stored in one is used in the next."""

    def updates(exploration):
        step = step_for(model())
        for _ in range(3):
            yield step, exploration.sample(step)

    for (step, one), (_, other) in zip(
        updates(explorations.make(name)), updates(explorations.make(name)), strict=True
    ):
        assert_right_batch(step, one)
        assert_same_batch(one, other)
        assert len(one) == len(step.rows)
        if one.x is step.x:
            assert torch.equal(one.rows.bincount(), step.rows.bincount())
        known = one.log_reward is not None and one.reward_version == step.reward.version
        if known and name != "tempered-reward":
            torch.testing.assert_close(one.log_reward, step.reward(one.x[one.rows], one.z))


@pytest.mark.parametrize("name", explorations)
def test_state_resumes_exactly(name):
    model = DreamingTable(ENVS["any"])
    policy = random_policy(model.env)
    exploration, resumed = explorations.make(name), explorations.make(name)
    for seed in range(3):
        exploration.sample(step_for(model, policy, seed=seed))
    state = exploration.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    expected = exploration.sample(step_for(model, policy, seed=3))
    resumed.load_state_dict(state)
    assert_same_batch(resumed.sample(step_for(model, policy, seed=3)), expected)
    # What was loaded is not shared, so it can be loaded again; from a checkpoint too.
    file.seek(0)
    for saved in (state, torch.load(file, weights_only=True)):
        again = explorations.make(name)
        again.load_state_dict(saved)
        assert_same_batch(again.sample(step_for(model, policy, seed=3)), expected)


def partial_score(x, state):
    """Any will do, tempered or not."""
    return 0.7 * state.sum(-1) + x[:, 0]


class OnPolicyOnly(VarGrad):
    on_policy_only = True


@pytest.mark.parametrize("name", explorations)
def test_objectives_that_need_the_policy_itself_refuse_the_others(name):
    model = DreamingTable(ENVS["fixed"])
    exploration = explorations.make(name)
    own = name in ("on-policy", "tempered-reward")
    assert exploration.on_policy == own
    arguments = (model, random_policy(model.env), OnPolicyOnly())
    if own:
        GFlowNetEStep(*arguments, exploration=exploration)
    else:
        with pytest.raises(UserError, match="only for trajectories drawn from the policy itself"):
            GFlowNetEStep(*arguments, exploration=exploration)


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_tempered_draws_from_the_tempered_policy(env, temperature):
    model = DreamingTable(env)
    policy = random_policy(env)
    batch = Tempered(temperature).sample(step_for(model, policy, samples=10_000))

    class Flattened(type(policy)):
        def logits(self, state, memory, rows):
            return policy.logits(state, memory, rows) / temperature

    flattened = Flattened(env, 2)
    flattened.encode = policy.encode
    expected = policy_log_probs(env, flattened, model.observations())
    for row in range(2):
        assert_drawn_from(batch.z[batch.rows == row], model.structures, expected[row])
    own = policy_log_probs(env, policy, model.observations())
    with pytest.raises(AssertionError):
        assert_drawn_from(batch.z[batch.rows == 0], model.structures, own[0])


def test_tempered_follows_its_schedule():
    model = DreamingTable(ENVS["fixed"])
    policy = random_policy(model.env)
    scheduled = Tempered(Exponential(4.0, 1.0, steps=2))
    for update, temperature in enumerate([4.0, 2.0, 1.0, 1.0]):
        batch = scheduled.sample(step_for(model, policy, samples=50, update=update))
        expected = Tempered(temperature).sample(step_for(model, policy, samples=50))
        assert_same_batch(batch, expected)


def test_tempered_reward_scales_the_log_reward_and_keeps_the_stamp():
    model = DreamingTable(ENVS["any"])
    exploration = TemperedReward(OnPolicy(), Linear(0.5, 1.0, steps=10))
    for update, beta in [(0, 0.5), (5, 0.75), (20, 1.0)]:
        step = step_for(model, update=update)
        batch = exploration.sample(step)
        assert step.reward.evaluations == len(batch)
        expected = beta * model.log_joint(batch.x[batch.rows], batch.z).detach()
        torch.testing.assert_close(batch.ensure_log_reward(step.reward), expected)
        assert step.reward.evaluations == len(batch)


@pytest.mark.parametrize("per_m_step", [False, True])
def test_a_tempered_reward_follows_updates_or_m_steps(per_m_step):
    model = DreamingTable(ENVS["any"])
    exploration = TemperedReward(OnPolicy(), Linear(0.5, 1.0, steps=10), per_m_step=per_m_step)
    for update, m_steps in [(0, 0), (0, 5), (5, 0), (20, 2), (2, 20)]:
        beta = {0: 0.5, 2: 0.6, 5: 0.75, 20: 1.0}[m_steps if per_m_step else update]
        step = replace(step_for(model, update=update), m_steps=m_steps)
        batch = exploration.sample(step)
        expected = beta * model.log_joint(batch.x[batch.rows], batch.z).detach()
        torch.testing.assert_close(batch.log_reward, expected)


def test_a_tempered_reward_stays_the_same_within_an_e_step():
    """As the E-step passes its M-steps on: beta 0.5 in the first, 0.75 in the second."""
    model = DreamingTable(ENVS["any"])
    ratios = []

    class Recorded(VarGrad):
        def loss(self, env, policy, batch):
            log_joint = model.log_joint(batch.x[batch.rows], batch.z).detach()
            ratios.append((batch.log_reward / log_joint).mean().item())
            return super().loss(env, policy, batch)

    e_step = GFlowNetEStep(
        model,
        random_policy(model.env),
        Recorded(),
        exploration=TemperedReward(beta=Linear(0.5, 1.0, steps=2), per_m_step=True),
        alternation=FixedUpdates(3),
        generator=generator(),
    )
    for m_steps in (0, 1):
        e_step.fit(model.observations(), m_steps)
    assert ratios == pytest.approx([0.5] * 3 + [0.75] * 3)


def test_posterior_samples_are_none_of_a_tempered_posterior():
    """Maximum likelihood on them reads no reward, so beta would be ignored."""
    model = DreamingTable(ENVS["any"])
    arguments = (model, random_policy(model.env), ForwardKL())
    GFlowNetEStep(*arguments, exploration=Sleep())
    with pytest.raises(UserError, match="those of TemperedReward are not"):
        GFlowNetEStep(*arguments, exploration=TemperedReward(Sleep(), 0.5))


@pytest.mark.parametrize(
    "dreams", [Sleep(), Mixture([OnPolicy(), Sleep()]), TemperedReward(Sleep(), 0.5)]
)
def test_objectives_that_compare_trajectories_of_one_x_learn_from_no_dreams(dreams):
    model = DreamingTable(ENVS["any"])
    with pytest.raises(UserError, match="VarGrad needs several samples per x"):
        GFlowNetEStep(model, random_policy(model.env), VarGrad(), exploration=dreams)


def test_tempered_reward_must_be_outermost():
    with pytest.raises(UserError, match="must be the outermost"):
        TemperedReward(TemperedReward())
    with pytest.raises(UserError, match="must be the outermost"):
        Replay(TemperedReward())


@pytest.mark.parametrize(
    "objective",
    [
        TrajectoryBalance,
        VarGrad,
        FlowMatching,
        lambda: ForwardLookingDetailedBalance(partial_score),
        lambda: ForwardLookingSubTrajectoryBalance(partial_score),
    ],
    ids=["tb", "vargrad", "fm", "fl-db", "fl-subtb"],
)
def test_a_tempered_reward_is_what_is_learned(objective):
    model = DreamingTable(ENVS["any"])
    target = (0.4 * model.log_posterior()).softmax(-1)
    assert (target - model.log_posterior().exp()).abs().sum(-1).min() / 2 > 0.1
    tempered = TemperedReward(EpsilonUniform(0.1), 0.4)
    assert total_variation_after(model, objective(), tempered, 15, target) < 0.02


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), Linear(1.0, 0.0, 5)])
def test_temperatures_and_powers_are_positive(value):
    with pytest.raises(UserError, match="temperature must be a positive number"):
        Tempered(value)
    with pytest.raises(UserError, match="beta must be a positive number"):
        TemperedReward(OnPolicy(), value)


def test_exponential_schedules_go_by_a_constant_factor():
    schedule = Exponential(8.0, 1.0, steps=3)
    assert [schedule.at(step) for step in (0, 1, 2, 3, 99)] == pytest.approx([8, 4, 2, 1, 1])
    rising = Exponential(0.1, 10.0, steps=2)
    assert rising.at(1) == pytest.approx(1.0)
    for arguments in [(0.0, 1.0, 3), (1.0, -1.0, 3), (1.0, 2.0, 0), (1.0, float("inf"), 2)]:
        with pytest.raises(UserError, match="Exponential"):
            Exponential(*arguments)


def test_explorations_differ_by_seed():
    model = DreamingTable(ENVS["fixed"])
    one, other = (Tempered(2.0).sample(step_for(model, samples=50, seed=s)) for s in (0, 1))
    assert not torch.equal(one.z, other.z)
