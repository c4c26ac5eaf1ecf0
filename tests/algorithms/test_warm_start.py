"""GFlowNet-EM that begins with relaxed codes: which updates are of which kind."""

from copy import deepcopy

import pytest
import torch

from algorithms.gumbel_softmax import GumbelSoftmax
from algorithms.minibatch_em import MinibatchEM
from algorithms.schedule import Linear
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from algorithms.warm_start import WarmStart
from gfn_envs import UserError
from tests.algorithms.test_pathwise_learners import IMAGES, parts

RATES = {"policy_rate": Linear(3e-3, 1e-3, 10), "model_rate": 2e-3}


def warm_start(objective=None, **kwargs):
    model, policy, generator = parts("pixel-cnn")
    kwargs = {"num_updates": 10, "rounds": 10, "generator": generator, **RATES, **kwargs}
    return WarmStart(model, policy, objective or VarGrad(), **kwargs)


def assert_the_same(one, other):
    for name, parameter in one.model.named_parameters():
        assert torch.equal(parameter, other.model.get_parameter(name)), name
    for name, parameter in one.policy.named_parameters():
        assert torch.equal(parameter, other.policy.get_parameter(name)), name


def test_its_first_updates_are_those_of_relaxed_codes():
    warm = warm_start(relaxed_share=0.6)
    model, policy, generator = parts("pixel-cnn")
    relaxed = GumbelSoftmax(
        model, policy, num_updates=10, rounds=10, relaxed=warm.relaxed, generator=generator, **RATES
    )
    for _ in range(6):
        assert warm.update(IMAGES.train) == relaxed.update(IMAGES.train)
    assert_the_same(warm, relaxed)
    assert warm.likelihood_evaluations == relaxed.likelihood_evaluations == 6 * 32
    warm.update(IMAGES.train)
    assert warm.likelihood_evaluations == 6 * 32 + 8 * 32


def test_a_prior_that_learns_later_stays_as_it_is_while_codes_are_relaxed_and_after():
    warm = warm_start(relaxed_share=0.4, late_from=6)
    warm.late = warm.model.prior
    before = deepcopy(warm.model.state_dict())
    for _ in range(6):
        warm.update(IMAGES.train)
    assert not torch.equal(warm.model.embedding.weight, before["embedding.weight"])
    for name, value in warm.model.prior.state_dict().items():
        assert torch.equal(value, before[f"prior.{name}"]), name
    for _ in range(4):
        warm.update(IMAGES.train)
    for name, parameter in warm.model.prior.named_parameters():
        assert not torch.equal(parameter, before[f"prior.{name}"]), name


def test_its_last_updates_are_those_of_gflownet_em_with_the_same_optimisers():
    warm = warm_start(relaxed_share=0.6)
    for _ in range(6):
        warm.update(IMAGES.train)
    model, policy, generator = parts("pixel-cnn")
    em = MinibatchEM(
        model, policy, VarGrad(), num_updates=10, rounds=10, samples_per_x=8,
        m_step="reweighted", generator=generator, **RATES,
    )  # fmt: skip
    em.load_state_dict(deepcopy(warm.state_dict()))
    for _ in range(4):
        assert warm.update(IMAGES.train) == em.update(IMAGES.train)
    assert_the_same(warm, em)
    assert warm.policy_optimizer.param_groups[0]["lr"] == Linear(3e-3, 1e-3, 10).at(9)


def test_log_z_is_centred_where_gflownet_em_begins():
    warm = warm_start(TrajectoryBalance(), relaxed_share=0.8, num_updates=100, partition_rate=1e-9)
    x = IMAGES.train
    for _ in range(8):
        warm.update(x)
        assert warm.policy.log_partition(warm.policy.encode(x)).abs().max() < 1e-6
    warm.update(x)
    log_z = warm.policy.log_partition(warm.policy.encode(x)).mean()
    torch.testing.assert_close(log_z, warm.model.log_marginal(x).mean(), rtol=0, atol=5.0)


def test_learning_rates_fall_over_the_last_fifth():
    model, policy, _ = parts()
    warm = WarmStart(model, policy, VarGrad(), num_updates=100, rounds=1, relaxed_share=0.8)
    for optimizer in (warm.policy_optimizer, warm.model_optimizer):
        for update, rate in ((0, 1e-3), (80, 1e-3), (90, 1e-3 / 20**0.5), (100, 5e-5)):
            optimizer.follow(update)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_wrong_share_is_a_user_error(share):
    with pytest.raises(UserError, match="relaxed_share between 0 and 1"):
        warm_start(relaxed_share=share)
