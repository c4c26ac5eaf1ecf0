"""Trees without learning: their shapes, the uniform distribution, and the best F1 there is."""

from collections import Counter
from functools import cache
from math import comb

import pytest
import torch
from hypothesis import given, settings
from scipy.stats import chisquare

from gfn_envs import UserError
from gfn_envs.binary_tree import children, tree_nodes
from lvms.grammars.parse_scores import score_trees
from lvms.grammars.trivial_trees import (
    left_branching_trees,
    oracle_trees,
    random_trees,
    right_branching_trees,
)
from tests.lvms.grammars.test_parse_scores import corpora


@cache
def all_trees(left, right):
    """Every binary tree over the words left .. right - 1, as tuples of (gap, left, right)."""
    if right - left == 1:
        return [()]
    return [
        (*first, (split - 1, left, right), *second)
        for split in range(left + 1, right)
        for first in all_trees(left, split)
        for second in all_trees(split, right)
    ]


def states(num_words, max_words):
    """Every binary tree as a state, `[Catalan number, 3 (N - 1)]`."""
    trees = all_trees(0, num_words)
    z = torch.full((len(trees), 3, max_words - 1), -1)
    for row, tree in enumerate(trees):
        for gap, left, right in tree:
            z[row, :, gap] = torch.tensor([0, left, right])
    return z.flatten(1)


def is_tree(z, lengths):
    """Says of each state whether it is a complete binary tree over its words."""
    nodes = tree_nodes(z)
    inside = torch.arange(nodes.label.shape[1]) < lengths[:, None] - 1
    exists = (nodes.label == 0) & (nodes.left >= 0) & (nodes.right >= 0)
    absent = (nodes.label == -1) & (nodes.left == -1) & (nodes.right == -1)
    gap = torch.arange(nodes.label.shape[1])
    first, second = children(nodes)
    # A child of one word has no node; any other has one that fills its span.
    whole = ((first >= 0) == (gap - nodes.left > 0)) & ((second >= 0) == (nodes.right - gap > 2))
    roots = (exists & (nodes.left == 0) & (nodes.right == lengths[:, None])).sum(1) == 1
    return ((exists & whole) | ~inside).all(1) & (absent | inside).all(1) & roots


LENGTHS = torch.arange(2, 8)


def test_branching_trees_have_their_shape():
    right, left = right_branching_trees(LENGTHS, 7), left_branching_trees(LENGTHS, 7)
    assert right[2].tolist() == [0, 0, 0, -1, -1, -1, 0, 1, 2, -1, -1, -1, 4, 4, 4, -1, -1, -1]
    assert left[2].tolist() == [0, 0, 0, -1, -1, -1, 0, 0, 0, -1, -1, -1, 2, 3, 4, -1, -1, -1]
    for z in (right, left):
        assert z.dtype == torch.int64
        assert is_tree(z, LENGTHS).all()


@pytest.mark.parametrize("num_words", [2, 3, 4, 6])
def test_random_trees_are_uniform(num_words):
    draws = 20_000
    lengths = torch.full((draws,), num_words)
    z = random_trees(lengths, 7, torch.Generator().manual_seed(num_words))
    expected = {tuple(row) for row in states(num_words, 7).tolist()}
    assert len(expected) == comb(2 * num_words - 2, num_words - 1) // num_words
    counts = Counter(map(tuple, z.tolist()))
    assert counts.keys() <= expected
    if len(expected) > 1:
        # A right sampler fails with probability 1e-4; uniform splits fail by far from 4 words on.
        assert chisquare([counts[tree] for tree in expected]).pvalue > 1e-4


def test_random_trees_of_many_lengths_are_trees():
    lengths = torch.arange(2, 41).repeat(20)
    z = random_trees(lengths, 40, torch.Generator().manual_seed(0))
    assert is_tree(z, lengths).all()
    assert torch.equal(z, random_trees(lengths, 40, torch.Generator().manual_seed(0)))
    assert not torch.equal(z, random_trees(lengths, 40, torch.Generator().manual_seed(1)))


@settings(max_examples=60, deadline=None)
@given(corpora())
def test_no_binary_tree_scores_higher_than_the_oracle(corpus):
    lengths, gold = corpus
    z = oracle_trees(gold, lengths, 7)
    assert is_tree(z, lengths).all()
    scores = score_trees(z, gold)
    assert all(one.found == one.total for one in scores.labels.values())
    for row, length in enumerate(lengths.tolist()):
        every = states(length, 7)
        best = score_trees(every, [gold[row]] * len(every)).each.max()
        assert scores.each[row] == best


def test_what_gold_leaves_open_branches_to_the_right():
    gold = [[(0, 5, "S"), (1, 4, "A")], []]
    lengths = torch.tensor([5, 3])
    nodes = tree_nodes(oracle_trees(gold, lengths, 6))
    assert nodes.left.tolist() == [[0, 1, 2, 1, -1], [0, 1, -1, -1, -1]]
    assert nodes.right.tolist() == [[5, 4, 4, 5, -1], [3, 3, -1, -1, -1]]


@pytest.mark.parametrize("length", [0, 1, 8])
@pytest.mark.parametrize(
    "trees",
    [left_branching_trees, right_branching_trees, random_trees,
     lambda lengths, n: oracle_trees([[]] * 2, lengths, n)],
)  # fmt: skip
def test_a_length_without_trees_is_a_user_error(trees, length):
    with pytest.raises(UserError, match=rf"no trees over {length} word.*from 2 to 7"):
        trees(torch.tensor([3, length]), 7)
