import pytest
import torch

from algorithms.additive_policy import AdditivePolicy
from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.policy import HasLogPartition
from algorithms.policy_distribution import policy_log_probs
from algorithms.trajectory_balance import TrajectoryBalance
from gfn_envs import FactoredCategorical, UserError
from tests.algorithms.models import TableModel


def random_policy(env, x_size=3):
    torch.manual_seed(0)
    policy = AdditivePolicy(env, x_size, hidden=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


@pytest.mark.parametrize("order", ["fixed", "any"])
def test_logits_are_sums_of_what_each_entry_says(order):
    env = FactoredCategorical((2, 3), order)
    policy, x = random_policy(env), torch.randn(2, 3)
    states = env.enumerate_states(env.empty_context(1)[0])
    rows = torch.arange(2).repeat_interleave(len(states))
    got = policy.logits(states.repeat(2, 1), policy.encode(x), rows).view(2, len(states), -1)
    for b in range(2):
        hidden = torch.relu(policy.read_x.weight @ x[b] + policy.read_x.bias)
        table = (
            policy.linear_head.weight @ x[b] + policy.linear_head.bias
            + policy.hidden_head.weight @ hidden + policy.hidden_head.bias
        ).view(-1, env.num_actions + 1)  # fmt: skip
        for place, (first, second) in enumerate(states.tolist()):
            # Rows: the first variable unassigned, 0, 1; the second unassigned, 0, 1, 2.
            expected = table[1 + first] + table[3 + 1 + second]
            torch.testing.assert_close(got[b, place], expected, rtol=1e-4, atol=1e-4)


def test_it_starts_uniform_with_a_partition_function_of_one():
    env = FactoredCategorical((2, 3))
    policy, x = AdditivePolicy(env, x_size=3), torch.randn(4, 3)
    assert not policy.logits(env.initial_states(4), policy.encode(x), torch.arange(4)).any()
    assert isinstance(policy, HasLogPartition)
    assert not policy.log_partition(policy.encode(x)).any()


def test_training_converges_to_the_posterior():
    # Of two variables nothing is left out: what the first says of the second has a row of its own.
    env = FactoredCategorical((2, 3))
    model = TableModel(env)
    torch.manual_seed(0)
    policy = AdditivePolicy(env, x_size=2, hidden=16)
    e_step = GFlowNetEStep(
        model, policy, TrajectoryBalance(), exploration=EpsilonUniform(0.1), samples_per_x=16,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    x = model.observations()
    for _ in range(40):
        e_step.fit(x, m_steps=0)
    variation = (policy_log_probs(env, policy, x).exp() - model.log_posterior().exp()).abs().sum(-1)
    assert variation.max() / 2 < 0.01
    with torch.no_grad():
        log_z = policy.log_partition(policy.encode(x))
    torch.testing.assert_close(log_z, model.table.logsumexp(-1).detach(), rtol=0, atol=0.05)


def test_sizes_below_one_are_a_user_error():
    with pytest.raises(UserError, match="at least 1"):
        AdditivePolicy(FactoredCategorical((2, 3)), x_size=3, hidden=0)
