import pytest
import torch

from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.policy import HasLogPartition
from algorithms.policy_distribution import policy_log_probs
from algorithms.turtle_policy import TurtlePolicy
from algorithms.vargrad import VarGrad
from gfn_envs import FactoredCategorical, TurtlePath, UserError
from lvms import EnumeratedPosterior
from lvms.models import models


def random_policy(env, side):
    torch.manual_seed(0)
    policy = TurtlePolicy(env, env.num_cells * side**2, hidden=8)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    return policy


def log_probs_of_paths(policy, x, moves):
    """log P_F of every path given each image, `[B, cells, 4, 3, ...]`."""
    env = policy.env
    found = policy_log_probs(env, policy, x, env.empty_context(1)[0])
    return found.view(len(x), env.num_cells, 4, *[3] * (moves - 1))


def test_what_it_scores_moves_with_the_image():
    env, side = TurtlePath((4, 4), 3), 2
    policy = random_policy(env, side)
    x = torch.randn(3, 8, 8)
    # Two rows of cells down and one column to the right, around the edges.
    moved = x.roll((2 * side, side), (1, 2))
    with torch.no_grad():
        first, other = (log_probs_of_paths(policy, images, 3) for images in (x, moved))
    start = torch.arange(16).view(4, 4)
    moved_start = start.roll((-2, -1), (0, 1)).flatten()
    torch.testing.assert_close(other[:, moved_start], first, rtol=1e-4, atol=1e-4)


def test_turns_are_scored_alike_when_image_and_turtle_are_turned():
    # Of an odd side, so that what lies around a cell is the same number of cells on each side.
    env, side = TurtlePath((3, 3), 3), 1
    policy = random_policy(env, side)
    with torch.no_grad():
        # The first turn differs by what is undone here; what follows must not see it.
        policy.read_turns.weight[:, :5] = 0.0
        x = torch.randn(1, 3, 3)
        clockwise = x.rot90(-1, (1, 2))
        state = torch.tensor([[4, 1, 2, -1], [4, 2, 2, -1]])  # north then east; east then south
        memory = policy.encode(torch.cat([x, clockwise]))
        logits = policy.logits(state, memory, torch.arange(2))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    assert logits[0, :3].unique().numel() == 3


def test_a_visited_cell_and_a_turn_are_seen():
    policy = random_policy(TurtlePath((3, 3), 4), 1)
    x = torch.zeros(1, 3, 3)
    # Once around back to the start, or straight on around the edge: the same pose, other marks.
    state = torch.tensor([[4, 1, 1, 1, -1], [4, 1, -1, -1, -1]])
    with torch.no_grad():
        logits = policy.logits(state, policy.encode(x), torch.zeros(2, dtype=torch.int64))
    assert not torch.allclose(logits[0], logits[1])


def test_it_starts_uniform_with_a_partition_function_of_one():
    env = TurtlePath((2, 3), 2)
    policy, x = TurtlePolicy(env, x_size=24), torch.randn(4, 4, 6)
    for state in (env.initial_states(4), torch.tensor([[2, 1, -1]] * 4)):
        assert not policy.logits(state, policy.encode(x), torch.arange(4)).any()
    assert isinstance(policy, HasLogPartition)
    assert not policy.log_partition(policy.encode(x)).any()


def test_training_comes_close_to_the_posterior():
    model = models.make("paths-tiny")
    x, _ = model.sample(8, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    policy = TurtlePolicy(model.env, x_size=144, hidden=32)
    e_step = GFlowNetEStep(
        model, policy, VarGrad(), exploration=EpsilonUniform(0.05), samples_per_x=32,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    exact = EnumeratedPosterior(model).log_posterior_table(x).detach().exp()

    def distance():
        got = policy_log_probs(model.env, policy, x, model.env.empty_context(1)[0]).exp()
        return ((got - exact).abs().sum(-1) / 2).mean()

    before = distance()
    for _ in range(40):
        e_step.fit(x, 0)
    assert before > 0.6
    assert distance() < 0.15


def test_moves_to_another_device_with_its_environment():
    policy = TurtlePolicy(TurtlePath((2, 3), 2), x_size=24).to("meta")
    x = torch.zeros(4, 4, 6, device="meta")
    logits = policy.logits(
        policy.env.initial_states(4), policy.encode(x), torch.arange(4).to("meta")
    )
    assert logits.device.type == "meta"


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (FactoredCategorical((2, 3)), {}, "needs a TurtlePath of fixed order; use an MLPPolicy"),
        (TurtlePath((2, 3), 2, "any"), {}, "needs a TurtlePath of fixed order"),
        (TurtlePath((2, 3), 2), {"x_size": 18}, "18 pixels are no such image of 6 cells"),
        (TurtlePath((2, 3), 2), {"x_size": 5}, "5 pixels are no such image"),
        (TurtlePath((2, 3), 2), {"hidden": 0}, "at least 1"),
        (TurtlePath((2, 3), 2), {"channels": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_a_user_error(env, settings, message):
    with pytest.raises(UserError, match=message):
        TurtlePolicy(env, **{"x_size": 24, **settings})
