import pytest
import torch

from algorithms.alternation import FixedUpdates, LossThreshold
from algorithms.schedule import Constant, Linear, as_schedule
from gfn_envs import UserError


def updates_until_done(alternation, losses, m_steps=0):
    alternation.start(m_steps)
    for updates, loss in enumerate(losses, 1):
        if alternation.done(updates, torch.tensor(loss)):
            return updates
    return None


def test_fixed_updates():
    assert updates_until_done(FixedUpdates(4), [9.0] * 20) == 4
    assert updates_until_done(FixedUpdates(4), [0.0] * 20) == 4
    for sizes in ((0,), (4, 0)):
        with pytest.raises(UserError, match="at least 1"):
            FixedUpdates(*sizes)


def test_the_first_e_step_may_be_longer():
    alternation = FixedUpdates(2, first=7)
    assert updates_until_done(alternation, [0.0] * 20) == 7
    assert updates_until_done(alternation, [0.0] * 20, m_steps=1) == 2
    assert updates_until_done(alternation, [0.0] * 20, m_steps=5) == 2


def test_loss_threshold_waits_for_the_moving_average():
    alternation = LossThreshold(1.0, momentum=0.5)
    # averages: 4, 2, 1, 0.5
    assert updates_until_done(alternation, [4.0, 0.0, 0.0, 0.0]) == 4
    # the average goes on: 0.25 is below the bound at once
    assert updates_until_done(alternation, [0.0, 0.0], m_steps=1) == 1


def test_loss_threshold_bound_moves_with_m_steps():
    alternation = LossThreshold(Linear(10.0, 1.0, 9), momentum=0.0)
    assert updates_until_done(alternation, [5.0, 5.0], m_steps=0) == 1
    assert updates_until_done(alternation, [5.0, 0.5], m_steps=9) == 2
    assert updates_until_done(alternation, [5.0, 0.5], m_steps=99) == 2


def test_loss_threshold_gives_up_after_max_updates():
    assert updates_until_done(LossThreshold(1.0, max_updates=5), [9.0] * 20) == 5


def test_loss_threshold_resumes_with_its_average_and_bound():
    bound = Linear(9.0, 1.0, 8)
    one = LossThreshold(bound, momentum=0.5)
    one.start(5)
    assert not one.done(1, torch.tensor(6.0))
    other = LossThreshold(bound, momentum=0.5)
    other.load_state_dict(one.state_dict())
    assert other.average == one.average == 6.0
    assert not other.done(2, torch.tensor(2.0))  # 4, and the bound is at 4 after 5 M-steps
    assert other.done(3, torch.tensor(3.9))
    fresh = LossThreshold(1.0)
    fresh.load_state_dict(LossThreshold(1.0).state_dict())
    assert fresh.average is None


@pytest.mark.parametrize("arguments", [{"max_updates": 0}, {"momentum": 1.0}, {"momentum": -0.1}])
def test_loss_threshold_refuses_nonsense(arguments):
    with pytest.raises(UserError):
        LossThreshold(1.0, **arguments)


def test_schedules():
    assert [Linear(4.0, 2.0, 4).at(step) for step in (0, 2, 4, 9)] == [4.0, 3.0, 2.0, 2.0]
    assert as_schedule(0.3).at(7) == Constant(0.3).at(0) == 0.3
    line = Linear(0.0, 1.0, 2)
    assert as_schedule(line) is line
