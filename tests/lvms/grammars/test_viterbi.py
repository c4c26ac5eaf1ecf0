"""The likeliest tree and the tree of the most expected spans against all trees."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import UserError
from lvms.grammars.inside import log_marginal, span_marginals, viterbi
from lvms.grammars.mbr_tree import mbr_tree
from lvms.grammars.rules import GrammarRules
from tests.lvms.grammars.brute_force import (
    all_trees,
    brute_marginals,
    grammars,
    random_rules,
    random_sentences,
    spans_of,
)

few = settings(max_examples=25, deadline=None)


@few
@given(grammars())
def test_no_tree_is_likelier(case):
    rules, x = case
    z, log_joint = viterbi(rules, x)
    for tree, value, sentence in zip(z, log_joint, x, strict=True):
        trees, log_joints = all_trees(rules, sentence)
        torch.testing.assert_close(value, log_joints.max())
        torch.testing.assert_close(log_joints[(trees == tree).all(-1)], value[None])


@few
@given(grammars(impossible=0.3))
def test_the_likeliest_tree_is_possible(case):
    rules, x = case
    best = [all_trees(rules, sentence)[1].max() for sentence in x]
    if min(best) < -1e20:
        with pytest.raises(UserError, match="derives no tree"):
            viterbi(rules, x)
        return
    torch.testing.assert_close(viterbi(rules, x)[1], torch.stack(best))


def test_a_grammar_with_one_tree_for_each_sentence():
    """Only right-branching trees have probability; forty words, single precision."""
    root = torch.zeros(1)
    binary = torch.full((1, 2, 2), -math.inf)
    binary[0, 1, :] = math.log(0.5)
    rules = GrammarRules(root, binary, torch.full((1, 10), math.log(0.1)))
    x = random_sentences([40, 7], vocabulary=10, seed=1)
    z, log_joint = viterbi(rules, x)
    expected = {(left, 40, 0) for left in range(39)}
    assert spans_of(z[0]) == expected
    assert spans_of(z[1]) == {(left, 7, 0) for left in range(6)}
    torch.testing.assert_close(log_joint, log_marginal(rules, x))


@pytest.mark.filterwarnings("ignore:.*arg_constraints")
@pytest.mark.parametrize("seed", range(3))
def test_torch_struct_finds_none_likelier(seed):
    """With one preterminal, so that its maximum over preterminals is our sum."""
    torch_struct = pytest.importorskip("torch_struct")
    rules = random_rules(3, 1, vocabulary=6, seed=seed)
    x = random_sentences([9, 9], vocabulary=6, seed=seed)
    terms = rules.emission.T[x]
    binary, root = rules.binary.expand(2, -1, -1, -1), rules.root.expand(2, -1)
    theirs = torch_struct.SentCFG((terms, binary.clone(), root.clone())).max
    torch.testing.assert_close(viterbi(rules, x)[1], theirs)


@few
@given(grammars())
def test_no_tree_has_more_spans_in_expectation(case):
    rules, x = case
    brute = brute_marginals(rules, x)
    z = mbr_tree(span_marginals(rules, x), x)
    for tree, marginals, sentence in zip(z, brute, x, strict=True):
        of_span = marginals.sum(-1)
        trees = {
            frozenset((i, j) for i, j, _ in spans_of(one)) for one in all_trees(rules, sentence)[0]
        }
        ours = spans_of(tree)
        assert frozenset((i, j) for i, j, _ in ours) in trees
        best = max(sum(of_span[i, j].item() for i, j in spans) for spans in trees)
        assert sum(of_span[i, j].item() for i, j, _ in ours) == pytest.approx(best)
        for i, j, label in ours:
            assert marginals[i, j, label].item() == pytest.approx(marginals[i, j].max().item())


@few
@given(st.integers(2, 12), st.integers(0, 1000))
def test_marginals_that_are_a_tree_give_it_back(length, seed):
    rules = random_rules(3, 2, seed=seed)
    x = random_sentences([length, 2], seed=seed)
    z, _ = viterbi(rules, x)
    marginals = torch.zeros(2, length + 1, length + 1, 3)
    for row, tree in zip(marginals, z, strict=True):
        for span in spans_of(tree):
            row[span] = 1.0
    assert torch.equal(mbr_tree(marginals, x), z)
