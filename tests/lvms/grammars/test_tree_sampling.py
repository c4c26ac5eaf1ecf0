"""Drawn trees against the exact posterior over all trees."""

import math

import pytest
import torch
from hypothesis import given, settings

from gfn_envs import UserError
from gfn_envs.binary_tree import tree_nodes
from lvms.grammars.inside import sample, span_marginals
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.rules import GrammarRules
from tests.algorithms.statistics import assert_drawn_from
from tests.lvms.grammars.brute_force import all_trees, grammars, random_rules, random_sentences


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("impossible", [0.0, 0.15])
def test_trees_are_drawn_from_the_posterior(seed, impossible):
    rules = random_rules(2, 2, seed=seed + 20, impossible=impossible)
    single = GrammarRules(rules.root.float(), rules.binary.float(), rules.emission.float())
    x = random_sentences([5, 2, 4, 3], seed=seed)
    possible = torch.tensor([all_trees(rules, row)[1].max() > -1e20 for row in x])
    x = x[possible]
    assert len(x)
    z = sample(single, x, 5000, torch.Generator().manual_seed(seed))
    assert z.shape == (len(x), 5000, 12)
    for drawn, sentence in zip(z, x, strict=True):
        trees, log_joint = all_trees(rules, sentence)
        assert_drawn_from(drawn, trees, log_joint.log_softmax(0))


@settings(max_examples=20, deadline=None)
@given(grammars(impossible=0.3))
def test_no_impossible_tree_is_drawn(case):
    rules, x = case
    possible = [row for row in x if all_trees(rules, row)[1].max() > -1e20]
    if not possible:
        return
    z = sample(rules, torch.stack(possible), 20, torch.Generator().manual_seed(0))
    for drawn, sentence in zip(z, possible, strict=True):
        trees, log_joint = all_trees(rules, sentence)
        which = (drawn[:, None] == trees).all(-1)
        assert which.any(-1).all()
        assert (log_joint[which.int().argmax(-1)] > -1e20).all()


def test_spans_of_long_sentences_occur_as_often_as_their_marginals_say():
    rules = random_rules(5, 6, vocabulary=30, seed=9, spread=2.0)
    x = random_sentences([25, 18], vocabulary=30, seed=9)
    k = 4000
    z = sample(rules, x, k, torch.Generator().manual_seed(9))
    marginals = span_marginals(rules, x)
    for drawn, expected in zip(z, marginals, strict=True):
        nodes = tree_nodes(drawn)
        tree, gap = (nodes.label >= 0).nonzero(as_tuple=True)
        cell = nodes.left[tree, gap], nodes.right[tree, gap], nodes.label[tree, gap]
        counts = torch.zeros_like(expected).index_put_(
            cell, torch.ones((), dtype=torch.float64), accumulate=True
        )
        # Six standard deviations of a frequency; about 10^3 spans are likely enough to count.
        deviation = (expected * (1 - expected) / k).clamp_min(0).sqrt()
        assert ((counts / k - expected).abs() <= 6 * deviation + 5 / k).all()


def test_a_sentence_without_a_tree_is_refused():
    rules = random_rules(2, 2, seed=1)
    rules.emission[:, 3] = -math.inf
    x = torch.tensor([[0, 1, 2], [0, 3, 1]])
    with pytest.raises(UserError, match="no tree for sentence 1"):
        sample(rules, x, 3)


def test_drawing_follows_the_weights_and_never_draws_what_has_none():
    weight = torch.tensor([0.0, 3.0, 0.0, 1.0, 4.0, 0.0]).expand(40_000, -1)
    drawn = draw(weight, torch.Generator().manual_seed(0))
    log_prob = torch.tensor([3.0, 1.0, 4.0]).div(8).log()
    assert_drawn_from(drawn[:, None], torch.tensor([[1], [3], [4]]), log_prob)
