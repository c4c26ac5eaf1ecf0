"""Drawings of trees, partial ones too."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gfn_envs import BottomUpTree, TopDownTree, UserError
from gfn_envs.rendering import EMPTY, PALETTE
from gfn_envs.tree_drawing import PAPER, draw_tree, write_tree
from tests.gfn_envs.trees import as_state, nodes, trees

few = settings(max_examples=25, deadline=None)
WORDS = ["the", "old", "man", "left"]
NAMES = ["NP", "S", "VP-SBJ"]


def built(env, actions):
    """The state after some actions on a sentence of four words."""
    state = env.initial_states(1)
    for action in actions:
        state = env.step(state, torch.tensor([action]), torch.tensor([[4]]))
    return state[0]


def written(state, names=NAMES):
    return write_tree(state, WORDS, names).split("\n")


def has_colour(picture, colour):
    """Whether a patch of it is there; smoothed edges of other things may have a few pixels."""
    return (picture == np.array(colour)).all(-1).sum() > 100


def test_a_complete_tree():
    state = torch.tensor(as_state((1, (0, 0, (0, 1, 2)), 3), 5))
    assert written(state) == [
        "          S",
        "    ┌─────┴─────┐",
        "    NP          │",
        " ┌──┴───┐       │",
        " │      NP      │",
        " │    ┌─┴──┐    │",
        "the  old  man  left",
    ]
    assert written(state, None)[0] == "          1"


def test_a_forest():
    env = BottomUpTree(5, 3)
    assert written(built(env, [])) == ["the  old  man  left"]
    assert written(built(env, [1 * 3 + 2])) == [
        "      VP-SBJ",
        "      ┌─┴──┐",
        "the  old  man  left",
    ]


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], []),
        ([4 + 1], ["        S", " ┌┄┄┄┄┄┄┴┄┄┄┄┄┄┄┐"]),
        ([4 + 1, 1], ["        S", "   ┌────┴────┐", "   ?         ?", " ┌┄┴┄┄┐    ┌┄┴┄┄┐"]),
        (
            [4 + 1, 1, 4 + 2],
            ["        S", "   ┌────┴────┐", " VP-SBJ      ?", " ┌┄┴┄┄┐    ┌┄┴┄┄┐"],
        ),
        (
            [4 + 1, 1, 4 + 2, 4 + 0, 0],
            ["        S", "   ┌────┴────┐", " VP-SBJ      NP", " ┌─┴──┐    ┌┄┴┄┄┐"],
        ),
    ],
)
def test_spans_that_are_not_split(actions, expected):
    state = built(TopDownTree(5, 3), actions)
    assert written(state) == [*expected, "the  old  man  left"]


@few
@given(trees(max_words=9, labels=30))
def test_nothing_hides_anything(drawn):
    tree, num_words = drawn
    words = [f"w{i}" * (1 + i % 3) for i in range(num_words)]
    names = ["X" * (1 + label % 9) + str(label) for label in range(30)]
    *above, last = write_tree(torch.tensor(as_state(tree, 9)), words, names).split("\n")
    assert last.split() == words
    shown = [name for line in above[::2] for name in line.split() if name != "│"]
    assert sorted(shown) == sorted(names[node[0]] for node in nodes(tree))
    # Each branch has its two ends and one joint.
    branches = "".join(above[1::2])
    assert [branches.count(corner) for corner in "┌┴┐"] == [num_words - 1] * 3


def test_pictures_show_labels_words_and_open_spans():
    env = TopDownTree(5, 3)
    bare, rooted, split = (built(env, actions) for actions in ([], [4 + 1], [4 + 1, 1]))
    whole = torch.tensor(as_state((1, (0, 0, (2, 1, 2)), 3), 5))
    pictures = [draw_tree(state, WORDS, NAMES) for state in (bare, rooted, split, whole)]
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in pictures)
    heights = [picture.shape[0] for picture in pictures]
    assert heights == sorted(set(heights))  # 0, 1, 2 and 3 levels
    shown = [[has_colour(picture, PALETTE[label]) for label in range(3)] for picture in pictures]
    assert shown == [[False] * 3, [False, True, False], [False, True, False], [True] * 3]
    assert [has_colour(picture, EMPTY) for picture in pictures] == [False, True, True, False]
    assert all((picture[0] == np.array(PAPER)).all() for picture in pictures)
    assert not np.array_equal(pictures[0], draw_tree(bare, ["a", "b", "c", "d"]))


def test_long_words_and_names_widen_a_picture():
    state = torch.tensor(as_state((0, 0, 1), 2))
    narrow = draw_tree(state, ["a", "b"]).shape[1]
    assert draw_tree(state, ["a" * 30, "b"]).shape[1] > narrow + 200
    assert draw_tree(state, ["a", "b"], ["N" * 40]).shape[1] > narrow + 200


def test_what_does_not_fit_is_a_user_error():
    state = torch.tensor(as_state((1, (0, 0, (2, 1, 2)), 3), 5))
    for words in (WORDS[:3], [*WORDS, "too", "long"]):
        for draw in (write_tree, draw_tree):
            with pytest.raises(UserError, match=f"takes 4 to 5 words; got {len(words)}"):
                draw(state, words)
    with pytest.raises(UserError, match="has label 2; there are 2 names"):
        write_tree(state, WORDS, NAMES[:2])
