"""Paths of a turtle: where its turns lead, and what it sees there."""

import itertools

import pytest
import torch

import gfn_envs
from gfn_envs import TurtlePath, UserError
from gfn_envs.testing import check_latent_env
from gfn_envs.turtle_path import NORTH

UNSET = -1
COMPASS = [(0, -1), (-1, 0), (0, 1), (1, 0)]  # west, north, east, south as rows and columns


def only_context(env):
    return env.empty_context(1)[0]


def walk_by_hand(grid, z):
    """Cells and headings up to the first turn that is not set, one step after another."""
    if z[0] == UNSET:
        return [], []
    row, column = divmod(z[0], grid[1])
    cells, headings = [z[0]], [NORTH]
    for turn in itertools.takewhile(lambda turn: turn != UNSET, z[1:]):
        headings.append((headings[-1] + {0: -1, 1: 0, 2: 1, 3: 2}[turn]) % 4)
        row = (row + COMPASS[headings[-1]][0]) % grid[0]
        column = (column + COMPASS[headings[-1]][1]) % grid[1]
        cells.append(row * grid[1] + column)
    return cells, headings


@pytest.mark.parametrize("order", ["fixed", "any"])
@pytest.mark.parametrize(("grid", "moves"), [((2, 2), 1), ((2, 3), 2)])
def test_small_paths_keep_the_contract(grid, moves, order):
    report = check_latent_env(TurtlePath(grid, moves, order))
    assert report.ok, str(report)


@pytest.mark.parametrize(("grid", "moves"), [((2, 3), 2), ((3, 4), 4), ((5, 2), 3)])
@pytest.mark.parametrize("order", ["fixed", "any"])
def test_a_walk_goes_where_the_turns_say_and_as_far_as_they_are_set(grid, moves, order):
    env = TurtlePath(grid, moves, order)
    states = env.enumerate_states(only_context(env))[::7]
    cells, headings = env.walk(states)
    marks = env.visited(cells)
    for row, state in enumerate(states.tolist()):
        expected = walk_by_hand(grid, state)
        gap = [UNSET] * (1 + moves - len(expected[0]))
        assert (cells[row].tolist(), headings[row].tolist()) == tuple(e + gap for e in expected)
        assert marks[row].nonzero().flatten().tolist() == sorted(set(expected[0]))
    assert marks.max() == 1.0


@pytest.mark.parametrize("grid", [(4, 4), (3, 3), (2, 5)])
def test_the_view_is_the_grid_around_the_turtle_turned_as_it_is(grid):
    env = TurtlePath(grid, 1)
    side = max(grid)
    view = env.views()
    assert view.shape == (env.num_cells, 4, side**2)
    ahead = [side - 1 - (side - 1) // 2 - i for i in range(side)]
    right = [i - (side - 1) // 2 for i in range(side)]
    for cell, heading in itertools.product(range(env.num_cells), range(4)):
        expected = []
        for steps, aside in itertools.product(ahead, right):
            row, column = divmod(cell, grid[1])
            for far, way in ((steps, COMPASS[heading]), (aside, COMPASS[(heading + 1) % 4])):
                row, column = row + far * way[0], column + far * way[1]
            expected.append(row % grid[0] * grid[1] + column % grid[1])
        assert view[cell, heading].tolist() == expected
        assert set(expected) == set(range(env.num_cells))


def test_every_path_is_listed():
    env = TurtlePath((2, 3), 3)
    expected = [list(z) for z in itertools.product(range(6), range(4), range(3), range(3))]
    assert env.enumerate(only_context(env)).tolist() == expected


def test_it_is_registered():
    env = gfn_envs.make("gfn_envs/TurtlePath-v0")
    assert (env.grid, env.moves, env.order, env.max_steps) == ((4, 4), 3, "fixed", 4)
    assert env.num_structures(only_context(env)) == 16 * 4 * 9


def test_render_shows_the_latest_visit_of_each_cell():
    env = TurtlePath((3, 4), 4)
    # From the middle right, east around the edge, back along the row below and home.
    state = torch.tensor([7, 2, 2, 2, 2])
    assert env.render(state, only_context(env), "ansi") == ". . . .\n1 . . 4\n2 . . 3"
    state[3:] = UNSET
    assert env.render(state, only_context(env), "ansi") == ". . . .\n1 . . 0\n2 . . ."
    assert env.render(env.initial_state, only_context(env), "ansi") == "\n".join([". . . ."] * 3)
    picture = env.render(state, only_context(env), "rgb_array")
    assert (picture.shape, picture.dtype.name) == ((144, 192, 3), "uint8")
    with pytest.raises(UserError, match="Unknown render mode 'human'"):
        env.render(state, only_context(env), "human")


def test_walks_on_another_device():
    env = TurtlePath((2, 3), 2).to("meta")
    cells, headings = env.walk(env.initial_states(5))
    assert cells.device.type == headings.device.type == env.visited(cells).device.type == "meta"
    assert env.views().device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((1, 4), 3), r"got grid \(1, 4\) and 3 moves"),
        (((4,), 3), "at least 2 rows"),
        (((4, 4), 0), "0 moves"),
        (((4, 4), 3, "spiral"), "Unknown build order 'spiral'"),
    ],
)
def test_bad_arguments_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        TurtlePath(*arguments)
