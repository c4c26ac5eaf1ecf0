"""Explorations of exact samples, and mixtures of explorations."""

import pytest
import torch

from algorithms.backward_trajectories import trajectories_to
from algorithms.exact_oracle import ExactOracle
from algorithms.exploration import EpsilonUniform, Exploration, OnPolicy
from algorithms.mixture import Mixture
from algorithms.policy_distribution import policy_log_probs
from algorithms.replay import Replay
from algorithms.schedule import Linear
from algorithms.sleep import Sleep
from algorithms.tempered_reward import TemperedReward
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from gfn_envs import UserError
from lvms import HierarchicalGaussianMixture
from lvms.enumeration import EnumeratedPosterior
from tests.algorithms.exploration_cases import (
    ENVS,
    DreamingTable,
    LengthModel,
    assert_right_batch,
    random_policy,
    step_for,
)
from tests.algorithms.statistics import assert_drawn_from


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
def test_sleep_draws_from_the_joint_distribution(env):
    model = DreamingTable(env)
    step = step_for(model, samples=10_000)
    batch = Sleep().sample(step)
    assert len(batch.x) == len(batch) == 20_000
    pairs = torch.cat([batch.x[batch.rows].long(), batch.z], 1)
    table = torch.cat(
        [
            torch.cat([x.long().expand(len(model.structures), -1), model.structures], 1)
            for x in model.observations()
        ]
    )
    assert_drawn_from(pairs, table, model.table.detach().flatten())
    expected = model.log_joint(batch.x, batch.z).detach()
    torch.testing.assert_close(batch.ensure_log_reward(step.reward), expected)


def test_a_dream_has_one_trajectory():
    model = DreamingTable(ENVS["fixed"])
    step = step_for(model)
    batch = Sleep().sample(step)
    batch.ensure_log_reward(step.reward)
    assert TrajectoryBalance().loss(model.env, step.policy, batch).loss > 0
    with pytest.raises(UserError, match="at least two trajectories"):
        VarGrad().loss(model.env, step.policy, batch)


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
def test_the_oracle_draws_from_the_posterior(env):
    model = DreamingTable(env)
    batch = ExactOracle().sample(step_for(model, samples=10_000))
    for row in range(2):
        assert_drawn_from(batch.z[batch.rows == row], model.structures, model.log_posterior()[row])


def test_the_oracle_enumerates_each_context_apart():
    model = LengthModel()
    step = step_for(model, samples=3_000, ids=[2, 1, 3, 1])
    batch = ExactOracle().sample(step)
    posterior = EnumeratedPosterior(model)
    for row in range(4):
        x = step.x[row : row + 1]
        log_prob = posterior.log_posterior_table(x)[0].detach()
        assert_drawn_from(batch.z[batch.rows == row], posterior.structures(x), log_prob)
    twins = [batch.z[batch.rows == row] for row in (1, 3)]
    assert not torch.equal(*twins)


def test_the_oracle_uses_the_models_own_inference(monkeypatch):
    model = HierarchicalGaussianMixture((2, 3))
    monkeypatch.setattr(model, "observations", lambda: torch.zeros(1, 2), raising=False)
    monkeypatch.setattr(
        model, "sample_posterior", lambda x, k, generator: torch.ones(len(x), k, 2).long()
    )
    batch = ExactOracle().sample(step_for(model))
    assert batch.z.tolist() == [[1, 1]] * 3


class Only(Exploration):
    """Draws one structure again and again."""

    def __init__(self, index, model):
        self.index, self.model = index, model

    def sample(self, step):
        z = self.model.structures[self.index].expand(len(step.rows), -1)
        return trajectories_to(step, step.rows, z)


def test_parts_draw_in_proportion_to_their_weights_for_each_x():
    model = DreamingTable(ENVS["optional exit"])
    parts = [Only(index, model) for index in range(3)]
    mixture = Mixture(parts, [1.0, Linear(4.0, 0.0, 10), 3.0])
    for update, counts in [(0, [10, 40, 30]), (10, [20, 0, 60])]:
        batch = mixture.sample(step_for(model, samples=80, update=update))
        assert torch.equal(batch.rows.bincount(), torch.tensor([80, 80]))
        for row in range(2):
            for part, count in zip(parts, counts, strict=True):
                z = batch.z[batch.rows == row]
                assert (z == model.structures[part.index]).all(-1).sum() == count


def test_a_mixture_draws_from_the_mixture_of_distributions():
    model = DreamingTable(ENVS["any"])
    step = step_for(model, samples=20_000)
    batch = Mixture([OnPolicy(), ExactOracle()], [1, 3]).sample(step)
    own = policy_log_probs(model.env, step.policy, model.observations()).exp()
    expected = (0.25 * own + 0.75 * model.log_posterior().exp()).log()
    for row in range(2):
        assert_drawn_from(batch.z[batch.rows == row], model.structures, expected[row])


def test_dreams_and_data_go_together():
    model = LengthModel()
    step = step_for(model, samples=4)
    batch = Mixture([Sleep(), OnPolicy()]).sample(step)
    assert_right_batch(step, batch)
    assert len(batch.x) == 8 + 4
    torch.testing.assert_close(batch.log_reward, step.reward(batch.x[batch.rows], batch.z))


def test_rewards_are_computed_once():
    model = DreamingTable(ENVS["fixed"])
    step = step_for(model, samples=10)
    batch = Mixture(["on-policy", "back-and-forth"]).sample(step)
    assert step.reward.evaluations == 10 + 2 * 10
    batch.ensure_log_reward(step.reward)
    assert step.reward.evaluations == 10 + 2 * 10


def test_a_mixture_is_what_all_its_parts_are():
    assert Mixture([OnPolicy(), OnPolicy()]).on_policy
    assert not Mixture([OnPolicy(), EpsilonUniform(0.1)]).on_policy
    assert Mixture([Sleep(), ExactOracle()]).posterior_samples
    assert not Mixture([Sleep(), OnPolicy()]).posterior_samples
    assert Mixture([Sleep(), OnPolicy()]).one_per_x
    assert not Mixture([ExactOracle(), OnPolicy()]).one_per_x


def test_the_state_of_every_part_is_kept():
    model = DreamingTable(ENVS["fixed"])
    policy = random_policy(model.env)

    def made():
        return Mixture([Replay(capacity=2), "back-and-forth", Replay(capacity=5)], [1, 1, 2])

    mixture, resumed = made(), made()
    mixture.sample(step_for(model, policy, samples=8))
    resumed.load_state_dict(mixture.state_dict())
    one, other = (m.sample(step_for(model, policy, samples=8, seed=1)) for m in (mixture, resumed))
    assert torch.equal(one.z, other.z)
    for part, again in zip(mixture.parts[::2], resumed.parts[::2], strict=True):
        assert part.table.filled.any()
        assert torch.equal(part.table.z, again.table.z)


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="got 0 parts and 0 weights"):
        Mixture([])
    with pytest.raises(UserError, match="got 2 parts and 1 weights"):
        Mixture([OnPolicy(), Sleep()], [1.0])
    for weights in ([0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [Linear(1, 0, 5), 0]):
        with pytest.raises(UserError, match="must be at least 0 and not all 0"):
            Mixture([OnPolicy(), Sleep()], weights)
    with pytest.raises(UserError, match=r"no exploration 'sleeep'. Did you mean sleep"):
        Mixture(["sleeep"])
    with pytest.raises(UserError, match="must be the outermost"):
        Mixture([OnPolicy(), TemperedReward()])
