"""Trees as nltk.Tree and back."""

import sys

import pytest
import torch
from hypothesis import given, settings
from nltk.tree import Tree

from gfn_envs import BottomUpTree, TopDownTree, UserError
from gfn_envs.testing import check_latent_env
from tests.gfn_envs.trees import as_state, trees

few = settings(max_examples=25, deadline=None)
FOUR = torch.tensor([4])


def as_nltk(tree):
    if isinstance(tree, int):
        return str(tree)
    label, left, right = tree
    return Tree(str(label), [as_nltk(left), as_nltk(right)])


@few
@given(trees(max_words=8, labels=12))
def test_round_trip(drawn):
    tree, num_words = drawn
    context_row = torch.tensor([num_words])
    state = torch.tensor(as_state(tree, 9))
    for env in (BottomUpTree(9, 12), TopDownTree(9, 12)):
        structure = env.to_structure(state, context_row)
        assert structure == as_nltk(tree)
        assert torch.equal(env.from_structure(structure, context_row), state)


def test_brackets():
    state = torch.tensor(as_state((1, (0, 0, 1), (2, 2, 3)), 4))
    env = BottomUpTree(4, 3)
    assert str(env.to_structure(state, FOUR)) == "(1 (0 0 1) (2 2 3))"
    read = Tree.fromstring("(1 (0 0 1) (2 2 3))")
    assert torch.equal(env.from_structure(read, FOUR), state)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("(0 (0 0 1) (0 2 3))", "is an nltk.Tree; got '"),
        (Tree.fromstring("(0 (0 0 1) (0 2 4))"), r"'0' to '3' as strings, from left to right"),
        (Tree.fromstring("(0 (0 0 1) 2)"), r"leaves must be the words' positions '0' to '3'"),
        (Tree.fromstring("(0 0 1 (0 2 3))"), r"needs two children; got Tree\('0'"),
        (Tree.fromstring("(0 (0 0 1) (0 (0 2) 3))"), r"needs two children; got Tree\('0', \['2'"),
        (Tree("0", [Tree("0", []), Tree.fromstring("(0 0 (0 1 (0 2 3)))")]), r"Tree\('0', \[\]\)"),
        (Tree.fromstring("(NP (0 0 1) (0 2 3))"), "must be '0' to '1' as strings; got 'NP'"),
        (Tree.fromstring("(0 (0 0 1) (2 2 3))"), "must be '0' to '1' as strings; got '2'"),
    ],
)
def test_what_is_no_such_tree_is_a_user_error(structure, message):
    with pytest.raises(UserError, match=message) as caught:
        TopDownTree(5, 2).from_structure(structure, FOUR)
    assert "\n" not in str(caught.value)


def test_a_partial_tree_is_a_user_error():
    env = BottomUpTree(4, 2)
    context = FOUR[None]
    state = env.step(env.initial_states(1), torch.tensor([0]), context)[0]
    with pytest.raises(UserError, match="has 1 of the 3 nodes over 4 words; draw it with render"):
        env.to_structure(state, FOUR)


def test_without_nltk_it_says_what_to_install_and_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tree", None)
    env = BottomUpTree(4, 2)
    state = env.enumerate(FOUR)[0]
    with pytest.raises(UserError, match=r"need the package nltk: pip install 'gflownet-em\[gramm"):
        env.to_structure(state, FOUR)
    report = check_latent_env(env, FOUR[None])
    status = {finding.name: finding.status for finding in report.findings}
    assert status["structures"] == "skipped"
