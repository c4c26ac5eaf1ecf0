"""Moves on trees against every tree of a few words."""

from math import comb

import pytest
import torch

from algorithms.metropolis import metropolis_accept
from gfn_envs.binary_tree import children, tree_nodes
from lvms.grammars.tree_moves import (
    TreeMoves,
    draw_edge,
    num_nodes,
    parent_of,
    relabel,
    rotate,
    turn_edge,
)
from tests.algorithms.statistics import assert_drawn_from, structure_counts
from tests.lvms.grammars.tree_cases import all_trees

DRAWS = 4000


def proposal_matrix(move, trees):
    """Estimates how probable each tree is after a move of each, `[Z, Z]`."""
    generator = torch.Generator().manual_seed(0)
    moved = move(trees.repeat_interleave(DRAWS, 0), generator).view(len(trees), DRAWS, -1)
    return torch.stack([structure_counts(rows, trees) for rows in moved]) / DRAWS


def catalan(n):
    return comb(2 * n, n) // (n + 1)


@pytest.mark.parametrize("words", [2, 3, 4, 5, 6])
def test_every_edge_turns_over_and_back(words):
    trees = all_trees(words, 1, max_words=7)
    assert len(trees) == catalan(words - 1)
    row = torch.arange(len(trees))
    left, right = children(tree_nodes(trees))
    edges = 0
    for gap in range(words - 1):
        lower = torch.full((len(trees),), gap)
        upper = parent_of(trees, lower)
        has_edge = upper != lower
        edges += has_edge.long()
        assert ((left[row, upper] == gap) | (right[row, upper] == gap))[has_edge].all()
        turned = turn_edge(trees, lower, upper)[has_edge]
        # A tree, another one, in which the two are parent and child the other way round.
        assert (structure_counts(turned, trees).sum()) == has_edge.sum()
        assert (turned != trees[has_edge]).any(1).all()
        assert torch.equal(parent_of(turned, upper[has_edge]), lower[has_edge])
        back = turn_edge(turned, upper[has_edge], lower[has_edge])
        assert torch.equal(back, trees[has_edge])
    # Whatever the shape there are as many edges: that is what makes a rotation symmetric.
    assert (edges == words - 2).all()


def test_edges_are_drawn_uniformly():
    tree = all_trees(6, 1, max_words=8)[17:18]
    drawn = draw_edge(tree.expand(40_000, -1), torch.Generator().manual_seed(0))
    nodes = tree_nodes(tree)
    root = (nodes.right - nodes.left).argmax().item()
    count = torch.bincount(drawn, minlength=5)
    assert count[root] == 0
    inner = torch.arange(5) != root
    # Each count is binomial (40 000, 1/4): 5 standard deviations are 433.
    assert (count[inner] - 10_000).abs().max() < 433


@pytest.mark.parametrize("words", [2, 3, 4])
def test_moves_are_symmetric_and_reach_every_tree(words):
    trees = all_trees(words, 2)
    matrix = proposal_matrix(TreeMoves(labels=2), trees)
    # The difference of two shares of 4000 draws: 5.5 standard deviations at most.
    spread = (2 * matrix.clamp_min(1e-3) / DRAWS).sqrt()
    assert ((matrix - matrix.T).abs() < 5.5 * spread.maximum(spread.T)).all()
    assert (torch.matrix_power((matrix > 0).double(), len(trees)) > 0).all()
    # A node and label of uniform draws: half of them change nothing; every rotation does.
    turning = 0.5 if words > 2 else 0.0
    assert torch.allclose(
        matrix.diagonal(), torch.full((len(trees),), (1 - turning) / 2), atol=0.05
    )


def test_rotations_alone_reach_every_shape_and_relabelling_every_label():
    trees = all_trees(5, 1)
    matrix = proposal_matrix(rotate, trees)
    assert ((matrix > 0).sum(1) == 3).all()
    assert (torch.matrix_power((matrix > 0).double(), 10) > 0).all()
    trees = all_trees(3, 3)
    matrix = proposal_matrix(lambda z, generator: relabel(z, 3, generator), trees)
    reached = torch.matrix_power((matrix > 0).double(), 2) > 0
    shape = tree_nodes(trees).left
    assert torch.equal(reached, (shape[:, None] == shape).all(-1))


def test_rows_of_different_lengths_move_together():
    rows = torch.cat([all_trees(n, 2, max_words=6)[:40] for n in (2, 3, 4, 5, 6)])
    before = rows.clone()
    moved = TreeMoves(labels=2)(rows, torch.Generator().manual_seed(0))
    assert torch.equal(rows, before)
    assert torch.equal(num_nodes(moved), num_nodes(rows))
    for words in (2, 3, 4, 5, 6):
        among = moved[num_nodes(moved) == words - 1]
        assert structure_counts(among, all_trees(words, 2, max_words=6)).sum() == len(among)


def test_metropolis_chains_arrive_at_any_target():
    trees = all_trees(4, 2)
    generator = torch.Generator().manual_seed(1)
    table = 1.5 * torch.randn(len(trees), generator=generator)

    def log_reward(z):
        return table[(z[:, None] == trees).all(-1).long().argmax(1)]

    propose = TreeMoves(labels=2)
    z = trees[:1].repeat(6_000, 1)
    current = log_reward(z)
    for _ in range(150):
        proposal = propose(z, generator)
        z, current, _ = metropolis_accept(
            z, current, proposal, log_reward(proposal), torch.zeros(len(z)), generator
        )
    assert_drawn_from(z, trees, table.log_softmax(0))
