"""Grids of codes: what they add to a vector of categorical variables."""

import itertools

import pytest
import torch

from gfn_envs import CodeGrid, UserError
from gfn_envs.testing import check_latent_env

UNSET = -1


def only_context(env):
    return env.empty_context(1)[0]


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize(("grid", "num_codes"), [((1, 1), 1), ((1, 3), 2), ((2, 2), 3)])
def test_small_grids_keep_the_contract(grid, num_codes, order):
    check_latent_env(CodeGrid(grid, num_codes, order))


def test_places_are_filled_row_after_row():
    env = CodeGrid((2, 3), 4)
    state, context = env.initial_states(1), env.empty_context(1)
    for code in (3, 1, 0, 2):
        state = env.step(state, torch.tensor([code]), context)
    assert env.to_structure(state[0], only_context(env)) == ((3, 1, 0), (2, UNSET, UNSET))


def test_any_order_has_an_action_for_each_place_and_code():
    env = CodeGrid((2, 2), 3, "any")
    state, context = env.initial_states(12), env.empty_context(12)
    reached = env.step(state, torch.arange(12), context)
    found = [env.to_structure(row, only_context(env)) for row in reached]
    expected = []
    for place, code in itertools.product(range(4), range(3)):
        cells = [code if i == place else UNSET for i in range(4)]
        expected.append((tuple(cells[:2]), tuple(cells[2:])))
    assert found == expected


def test_every_grid_is_listed_and_comes_back_from_its_structure():
    env = CodeGrid((2, 2), 3)
    listed = env.enumerate(only_context(env))
    assert listed.tolist() == [list(codes) for codes in itertools.product(range(3), repeat=4)]
    for state in listed:
        structure = env.to_structure(state, only_context(env))
        assert structure == (tuple(state[:2].tolist()), tuple(state[2:].tolist()))
        assert torch.equal(env.from_structure(structure, only_context(env)), state)


def test_the_paper_s_grid_is_registered():
    import gfn_envs

    env = gfn_envs.make("gfn_envs/CodeGrid-v0")
    assert (env.grid, env.num_codes, env.order, env.max_steps) == ((4, 4), 8, "fixed", 16)
    assert env.num_structures(only_context(env)) == 8**16


def test_render():
    env = CodeGrid((2, 3), 12)
    state, context_row = torch.tensor([2, 0, 11, 7, UNSET, UNSET]), only_context(env)
    assert env.render(state, context_row, "ansi") == " 2  0 11\n 7  .  ."
    picture = env.render(state, context_row, "rgb_array")
    assert (picture.shape, picture.dtype.name) == ((96, 144, 3), "uint8")
    corners = [tuple(picture[48 * row + 5, 48 * column + 5]) for row in (0, 1) for column in (0, 2)]
    assert len(set(corners)) == 4
    assert tuple(picture[53, 53]) == corners[3]  # both empty
    with pytest.raises(UserError, match="Unknown render mode 'human'"):
        env.render(state, context_row, "human")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 2),), r"at least 1; got grid \(0, 2\) and 8 codes"),
        (((2,),), "rows, columns and num_codes"),
        (((2, 2, 2),), "rows, columns and num_codes"),
        (((2, 2), 0), "at least 1; .* 0 codes"),
        (((2, 2), 3, "spiral"), "Unknown build order 'spiral'"),
    ],
)
def test_bad_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        CodeGrid(*arguments)
