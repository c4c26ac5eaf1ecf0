"""GFlowNet-EM on mini-batches: who learns from what, turns, and resumption."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.alternation import FixedUpdates, LossThreshold
from algorithms.back_and_forth import BackAndForth
from algorithms.code_grid_policy import RasterPolicy
from algorithms.exploration import EpsilonUniform
from algorithms.forward_kl import ForwardKL
from algorithms.image_mlp_policy import ImageMLPPolicy
from algorithms.markov_kernel import BackAndForthMoves, SymmetricMetropolis
from algorithms.minibatch_em import M_STEPS, MinibatchEM
from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.reverse_kl import ReverseKL
from algorithms.reweighted_wake import ReweightedWake
from algorithms.schedule import Constant, Delayed, Exponential, Linear
from algorithms.sleep import Sleep
from algorithms.sleep_phase import SleepPhase
from algorithms.tempered_reward import TemperedReward
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.trajectory_batch import TrajectoryBatch
from algorithms.vargrad import VarGrad
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv
from lvms.data.images import load_images
from lvms.discrete_vae import DiscreteVAE
from lvms.models import models, observations

IMAGE = (1, 8, 8)


def start(prior: str = "uniform", n: int = 40) -> tuple[DiscreteVAE, Tensor]:
    """A model that has learned nothing, and images to learn from."""
    x = observations(models.make("dvae-tiny"), n)
    model = DiscreteVAE(IMAGE, (2, 2), 4, 8, 16, prior=prior)
    model.start_at_data(x, torch.Generator().manual_seed(0))
    return model, x


def make(
    objective: Callable[[], Objective] = VarGrad, *, prior: str = "uniform", **settings: Any
) -> tuple[MinibatchEM, Tensor]:
    model, x = start(prior)
    torch.manual_seed(1)
    policy = RasterPolicy(model.env, IMAGE, 8, 16)
    settings = {"num_updates": 20, "rounds": 4, "batch_size": 8, **settings}
    generator = torch.Generator().manual_seed(2)
    return MinibatchEM(model, policy, objective(), generator=generator, **settings), x


def change_one_code(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws one of the four codes of each structure anew: symmetric."""
    place = torch.randint(4, (len(z), 1), generator=generator)
    return z.scatter(1, place, torch.randint(4, place.shape, generator=generator))


def m_step_settings(name: str) -> dict[str, Any]:
    kernel = SymmetricMetropolis(change_one_code, 5) if name == "improved" else None
    return {"m_step": name, "kernel": kernel}


def changed(module: torch.nn.Module, before: dict[str, Any]) -> set[str]:
    return {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


# -- what an update reaches ------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [VarGrad, TrajectoryBalance, ReverseKL, ReweightedWake])
def test_a_policy_update_leaves_the_model_and_a_model_update_the_policy(objective) -> None:
    learner, x = make(objective)
    ids = torch.arange(8)
    # The first update moves the zero heads, the second all that stands before them.
    for _ in range(2):
        before, model_before = state(learner.policy), state(learner.model)
        learner.policy_update(x[ids], ids)
    assert changed(learner.model, model_before) == set()
    moved = changed(learner.policy, before)
    balance = objective is TrajectoryBalance
    assert moved == {n for n in before if balance or not n.startswith("partition.")}
    before, version = state(learner.policy), learner.model.version
    learner.model_update(x[ids])
    assert changed(learner.policy, before) == set()
    assert changed(learner.model, model_before) == set(model_before)
    assert learner.model.version == version + 1


@pytest.mark.parametrize("m_step", M_STEPS)
def test_a_joint_update_is_both_on_the_same_trajectories(m_step) -> None:
    settings = {**m_step_settings(m_step), "samples_per_x": 3, "prior": "pixel-cnn"}
    joint, x = make(**settings)
    apart, _ = make(**settings)
    ids = torch.arange(8)
    before = state(joint.model)
    joint.joint_update(x[ids], ids)
    apart.policy_update(x[ids], ids)
    for name, parameter in joint.policy.named_parameters():
        torch.testing.assert_close(parameter, dict(apart.policy.named_parameters())[name])
    assert "embedding.weight" in changed(joint.model, before)
    more = {"all": 0, "reweighted": 0, "improved": 8 * (1 + 5 + 1)}.get(m_step, 8)
    assert joint.likelihood_evaluations == 8 * 3 + more


@pytest.mark.parametrize("alternation", [None, FixedUpdates(1)])
def test_a_part_of_the_model_may_learn_later(alternation) -> None:
    learner, x = make(prior="pixel-cnn", alternation=alternation, rounds=20, late_from=6)
    learner.late = learner.model.prior
    of_prior = {name for name in state(learner.model) if name.startswith("prior.")}
    for _ in range(3):  # two updates each time: in turns, one of the model
        before = state(learner.model)
        learner.update(x)
        learner.update(x)
        assert changed(learner.model, before) & of_prior == set()
        assert "embedding.weight" in changed(learner.model, before)
    for _ in range(3):  # the zero head first, then all that stands before it
        before = state(learner.model)
        learner.update(x)
        learner.update(x)
    assert changed(learner.model, before) >= of_prior


@pytest.mark.parametrize("m_step", ["reweighted", "resampled"])
def test_the_models_gradient_is_the_weighted_mean_of_log_joint(m_step) -> None:
    """With structures from the exact posterior it is that of log p(x): Fisher's identity."""
    learner, x = make(m_step=m_step, samples_per_x=4000, m_samples_per_x=4000, batch_size=2)
    x = x[:2]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a model that has something to learn from z
        for parameter in learner.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    learner.model.zero_grad()
    learner.model.log_marginal(x).mean().backward()
    exact = {n: p.grad.clone() for n, p in learner.model.named_parameters()}
    learner.model.zero_grad()
    (-learner._model_loss(x)).backward()
    for name, parameter in learner.model.named_parameters():
        error = (parameter.grad - exact[name]).norm()
        # 4000 self-normalised samples of 256 structures: a few per cent.
        assert error < 0.1 * exact[name].norm() + 1e-5, name


def test_structures_are_resampled_as_often_as_they_weigh() -> None:
    """Within one draw of it, where no part of the weights is passed over."""
    learner, x = make(m_step="resampled", samples_per_x=3, m_samples_per_x=100)
    with torch.no_grad():
        learner.model.embedding.weight.mul_(10)  # weights that differ
    step = learner._training_step(x[:5], torch.arange(5))
    batch = learner.exploration.sample(step)
    batch.ensure_log_reward(learner.reward)
    drawn = []
    loss = learner.m_step_loss

    def watched(log_joint: Tensor, z: Tensor, weight: Tensor) -> Tensor:
        drawn.append((log_joint, z, weight))
        return loss(log_joint, z, weight)

    learner.m_step_loss = watched
    learner._resampled_loss(batch)
    ((log_joint, z, weight),) = drawn
    assert weight.tolist() == pytest.approx([1 / 500] * 500)
    # Part by part in the order of the batch, so that each x has a hundred.
    torch.testing.assert_close(
        log_joint, learner.model.log_joint(x[:5].repeat_interleave(100, 0), z)
    )
    share = learner._weights(batch).view(5, 3) * 5
    assert share.min() < 0.1 < 0.6 < share.max()
    for i, (own, among) in enumerate(zip(z.split(100), batch.z.split(3), strict=True)):
        for structure in among.unique(dim=0):
            expected = 100 * share[i][(among == structure).all(-1)].sum()
            # Each of up to three runs of points may gain or lose one.
            assert abs((own == structure).all(-1).sum() - expected) <= 3


@pytest.mark.parametrize("kernel", ["symmetric", "back-and-forth"])
def test_structures_that_chains_improve_become_samples_of_the_posterior(kernel) -> None:
    """Far from it as the policy is: so the M-step climbs log p(x)."""
    learner, x = make(m_step="reweighted", m_samples_per_x=3000)
    with torch.no_grad():  # a posterior and a policy that say something, and not the same
        generator = torch.Generator().manual_seed(0)
        for parameter in learner.model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        learner.policy.head.weight.normal_(0, 0.2, generator=generator)
    x = x[:2]
    learner.model.zero_grad()
    learner.model.log_marginal(x).mean().backward()
    exact = torch.cat([p.grad.flatten() for p in learner.model.parameters()])

    def error() -> float:
        learner.model.zero_grad()
        (-learner._model_loss(x)).backward()
        ours = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
        return ((ours - exact).norm() / exact.norm()).item()

    learner.m_step = "sampled"
    unimproved = error()
    learner.m_step = "improved"
    if kernel == "symmetric":
        learner.kernel = SymmetricMetropolis(change_one_code, 60)
    else:
        learner.kernel = BackAndForthMoves(learner.policy, 20)
    # 3000 samples of each x leave a few per cent.
    assert error() < 0.1 < unimproved


def test_equal_weights_sum_to_one_and_greedy_draws_once() -> None:
    for m_step, evaluations in (("all", 8 * 3), ("sampled", 8), ("greedy", 8)):
        learner, x = make(m_step=m_step, samples_per_x=3)
        learner.model_update(x[:8])
        assert learner.likelihood_evaluations == evaluations
    learner, x = make(m_step="sampled", m_samples_per_x=5, samples_per_x=3)
    learner.model_update(x[:8])
    assert learner.likelihood_evaluations == 8 * 5
    learner, x = make(m_step="greedy")
    with torch.no_grad():  # no two actions as likely
        learner.policy.head.weight.normal_(generator=torch.Generator().manual_seed(3))
    first = learner._model_loss(x[:8]).item()
    assert learner._model_loss(x[:8]).item() == first  # nothing is random about it


def test_chains_of_trajectories_are_kept_by_observation() -> None:
    exploration = BackAndForth(2)
    learner, x = make(TrajectoryBalance, exploration=exploration, samples_per_x=3)
    ids = torch.tensor([5, 7, 5])
    learner.step(x[ids], ids)
    filled = exploration.chains.filled
    assert filled.sum(1).nonzero().squeeze(1).tolist() == [5, 7]
    assert filled[5].sum() == 6
    assert filled[7].sum() == 3
    before = exploration.chains.z.clone()
    learner.step(x[7:9], torch.arange(7, 9))
    assert torch.equal(exploration.chains.z[5], before[5])
    assert (exploration.chains.z[7, :3] != before[7, :3]).any()
    assert filled.shape[1] == 6
    # To begin with a chain evaluates its state, then each move; then the model's own log-joint.
    assert learner.likelihood_evaluations == (9 + 6) * (1 + 2 + 1)


# -- log Z, dreams ---------------------------------------------------------------------------------


def test_log_z_starts_at_its_mean_estimate() -> None:
    learner, x = make(TrajectoryBalance, partition_rate=1e-9)
    metrics = learner.policy_update(x[:8], torch.arange(8))
    level = learner.policy.partition.level.item()
    assert level == pytest.approx(metrics["elbo"].item(), abs=0.01)
    assert level < -20
    # What is left is the spread of the estimates, not their level of tens of nats.
    assert metrics["loss"] < 0.1 * level**2
    uncentred, _ = make(TrajectoryBalance, centre=False, partition_rate=1e-9)
    assert uncentred.policy_update(x[:8], torch.arange(8))["loss"] > 0.9 * level**2


def test_the_sleep_phase_trains_the_policy_on_dreams() -> None:
    plain, x = make()
    asleep, _ = make(sleep=SleepPhase(1.0, 10.0))
    ids = torch.arange(8)
    model_before = state(asleep.model)
    for learner in (plain, asleep):
        learner.policy_update(x[ids], ids)
    assert changed(asleep.model, model_before) == set()
    assert changed(plain.policy, state(asleep.policy)) != set()


def test_the_share_of_updates_that_dream() -> None:
    learner, x = make(sleep=SleepPhase(0.3, 1.0))
    step = learner._training_step(x[:2], torch.arange(2))
    dreamt = sum(learner.sleep.loss(step) is not None for _ in range(400))
    assert abs(dreamt - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5


@pytest.mark.parametrize("numbers", [(1.1, 1.0), (-0.1, 1.0), (0.5, -1.0), (0.5, float("inf"))])
def test_a_sleep_phase_needs_sensible_numbers(numbers) -> None:
    with pytest.raises(UserError, match="sleep phase"):
        SleepPhase(*numbers)


def test_gradients_are_clipped_apart() -> None:
    """Of the model, and of policy and log Z together."""
    tight, x = make(TrajectoryBalance, max_norm=0.5, policy_max_norm=2.0, betas=(0.75, 0.999))
    assert tight.model_optimizer.param_groups[0]["betas"] == (0.75, 0.999)
    assert tight.policy_optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    for update in (tight.joint_update, tight.policy_update, lambda x, ids: tight.model_update(x)):
        tight.policy.zero_grad()
        tight.model.zero_grad()
        update(x[:8], torch.arange(8))
        for module, limit in ((tight.model, 0.5), (tight.policy, 2.0)):
            gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            assert not gradients or torch.cat(gradients).norm() < 1.0001 * limit


# -- turns -----------------------------------------------------------------------------------------


def turns(learner: MinibatchEM, x: Tensor, steps: int) -> str:
    made = ""
    for _ in range(steps):
        version = learner.model.version
        learner.step(x[:8], torch.arange(8))
        made += "M" if learner.model.version > version else "E"
    return made


def test_fixed_turns() -> None:
    learner, x = make(alternation=FixedUpdates(3, first=5), m_updates=2)
    assert turns(learner, x, 15) == "EEEEEMMEEEMMEEE"


def test_adaptive_turns_end_when_the_loss_is_low_enough() -> None:
    learner, x = make(alternation=LossThreshold(1e9, max_updates=4), m_updates=1)
    assert turns(learner, x, 4) == "EMEM"
    learner, x = make(alternation=LossThreshold(-1.0, max_updates=4), m_updates=1)
    assert turns(learner, x, 6) == "EEEEME"


@pytest.mark.parametrize(
    "alternation", [lambda: FixedUpdates(2, first=5), lambda: LossThreshold(Linear(1e9, 1.0, 2), 3)]
)
@pytest.mark.parametrize("steps", [1, 3, 6, 7, 8])
def test_turns_go_on_in_the_middle_of_one(alternation, steps) -> None:
    whole, x = make(alternation=alternation(), m_updates=2)
    expected = turns(whole, x, 14)
    first, _ = make(alternation=alternation(), m_updates=2)
    made = turns(first, x, steps)
    second, _ = make(alternation=alternation(), m_updates=2)
    second.load_state_dict(deepcopy(first.state_dict()))
    assert made + turns(second, x, 14 - steps) == expected
    assert expected in ("EEEEEMMEEMMEEM", "EMMEEEMMEEEMME")


# -- rounds, schedules, resumption -----------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": VarGrad, "exploration": EpsilonUniform(0.1), "sleep": SleepPhase(0.5, 1.0)},
        {
            "objective": TrajectoryBalance,
            "alternation": lambda: LossThreshold(1e-9, 3),
            "m_updates": 2,
        },
        {"objective": ReweightedWake, "m_step": "reweighted", "prior": "transformer"},
        {"objective": VarGrad, "m_step": "resampled"},
        {"objective": VarGrad, "exploration": BackAndForth, "m_step": "improved"},
    ],
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(settings) -> None:
    rate = Delayed(Exponential(1e-3, 1e-4, 10), 5)

    def begin() -> tuple[MinibatchEM, Tensor]:
        fresh = {**settings, **m_step_settings(settings.get("m_step", "all"))}
        for name in ("alternation", "exploration"):  # these have state of their own
            if callable(settings.get(name)):
                fresh[name] = settings[name]()
        return make(policy_rate=rate, model_rate=rate, **fresh)

    whole, x = begin()
    logged = [whole.update(x) for _ in range(4)]
    first, _ = begin()
    assert [first.update(x) for _ in range(2)] == logged[:2]
    saved = deepcopy(first.state_dict())
    second, _ = begin()
    second.load_state_dict(saved)
    assert [second.update(x) for _ in range(2)] == logged[2:]
    assert second.likelihood_evaluations == whole.likelihood_evaluations
    for name, value in whole.model.state_dict().items():
        same = second.model.state_dict()[name]
        assert value == same if isinstance(value, int) else torch.equal(value, same)


def test_rounds_share_the_updates_out() -> None:
    learner, x = make(num_updates=10, rounds=4)
    made = []
    for _ in range(4):
        learner.update(x)
        made.append(learner.updates)
    assert made == [2, 5, 7, 10]


def test_rates_follow_their_schedules() -> None:
    learner, x = make(policy_rate=Exponential(1e-2, 1e-4, 20), model_rate=Constant(3e-3))
    learner.update(x)
    last = Exponential(1e-2, 1e-4, 20).at(learner.updates - 1)
    assert learner.policy_optimizer.param_groups[0]["lr"] == pytest.approx(last)
    assert learner.model_optimizer.param_groups[0]["lr"] == pytest.approx(3e-3)


def test_a_delayed_schedule_waits() -> None:
    schedule = Delayed(Exponential(1.0, 0.01, 2), 3)
    assert [schedule.at(step) for step in (0, 3, 5, 9)] == pytest.approx([1.0, 1.0, 0.01, 0.01])


def test_it_learns() -> None:
    x = load_images("digits").train
    model = DiscreteVAE(IMAGE, (2, 2), 4, 8, 16)
    model.start_at_data(x, torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    policy = RasterPolicy(model.env, IMAGE, 8, 16)
    learner = MinibatchEM(
        model, policy, VarGrad(), num_updates=150, rounds=1, policy_rate=3e-3, model_rate=3e-3,
        m_step="reweighted", generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    learner.update(x)
    gain = model.pixel_marginal_nll(x).mean() + model.log_marginal(x).mean()
    assert gain > 2  # nats an image


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "settings", "says"),
    [
        (ReverseKL, {"exploration": EpsilonUniform(0.1)}, "drawn from the policy"),
        (ForwardKL, {}, "samples of the posterior"),
        (VarGrad, {"samples_per_x": 1}, "at least 2 samples"),
        (VarGrad, {"m_updates": 0}, "1 update"),
        (VarGrad, {"m_step": "gready"}, "greedy"),
        (VarGrad, {"m_step": "improved"}, "needs a kernel"),
        (VarGrad, {"kernel": SymmetricMetropolis(change_one_code, 1)}, "needs a kernel"),
        (VarGrad, {"m_samples_per_x": 0}, "m_samples_per_x must be at least 1"),
        (VarGrad, {"num_updates": 3}, "as many updates as rounds"),
        (VarGrad, {"batch_size": 0}, "batch_size of at least 1"),
        (VarGrad, {"policy_rate": 0.0}, "learning_rate must be a positive"),
    ],
)
def test_wrong_settings_are_refused(objective, settings, says) -> None:
    with pytest.raises(UserError, match=says):
        make(objective, **settings)


@pytest.mark.parametrize("alternation", [None, FixedUpdates(1)])
def test_a_tempered_reward_is_the_policys_whoever_learns_beside_it(alternation) -> None:
    class Recorded(VarGrad):
        def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
            log_joint = learner.model.log_joint(batch.x[batch.rows], batch.z).detach()
            ratios.append((batch.log_reward / log_joint).mean().item())
            return super().loss(env, policy, batch)

    ratios: list[float] = []
    exploration = TemperedReward(beta=Linear(0.5, 1.0, steps=2))
    learner, x = make(Recorded, exploration=exploration, alternation=alternation)
    for _ in range(5):
        learner.step(x[:8], torch.arange(8))
    expected = [0.5, 0.75, 1.0, 1.0, 1.0] if alternation is None else [0.5, 0.75, 1.0]
    assert ratios == pytest.approx(expected)


def test_a_loss_that_reads_no_reward_is_not_tempered() -> None:
    class OwnScores(VarGrad):
        reads_reward = False

    with pytest.raises(UserError, match="OwnScores reads scores of the model's own"):
        make(OwnScores, exploration=TemperedReward())


def test_joint_updates_need_trajectories_for_the_data() -> None:
    learner, x = make(TrajectoryBalance, exploration=Sleep())
    with pytest.raises(ValueError, match="other x"):
        learner.joint_update(x[:8], torch.arange(8))


def test_the_papers_policy_learns_too() -> None:
    model, x = start()
    torch.manual_seed(1)
    policy = ImageMLPPolicy(model.env, IMAGE, 8, 16, partition="global")
    learner = MinibatchEM(
        model, policy, TrajectoryBalance(), num_updates=4, rounds=1, batch_size=8,
        samples_per_x=1, m_step="sampled", alternation=FixedUpdates(2), m_updates=2,
    )  # fmt: skip
    assert learner.update(x)["elbo"] < 0
