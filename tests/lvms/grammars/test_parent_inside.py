"""Exact inference with rules given the parent: against brute force, and against plain grammars."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import UserError
from gfn_envs.binary_tree import tree_nodes
from lvms.grammars import inside
from lvms.grammars.mbr_tree import mbr_tree
from lvms.grammars.parent_inside import log_marginal, sample, span_marginals, viterbi
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_score import tree_log_prob
from tests.algorithms.statistics import assert_drawn_from
from tests.lvms.grammars.brute_force import (
    all_trees,
    brute_log_marginal,
    brute_marginals,
    grammars,
    random_rules,
    random_sentences,
    spans_of,
)

few = settings(max_examples=20, deadline=None)

FINITE = -1e30


def tables(rules):
    return rules.root, rules.binary, rules.emission


def leaves(rules):
    """The same rules, to be differentiated."""
    return GrammarRules(*(table.detach().clone().requires_grad_() for table in tables(rules)))


def cast(rules, dtype):
    return GrammarRules(*(table.to(dtype) for table in tables(rules)))


def annotated(rules):
    """The plain grammar whose K (K + 1) nonterminals say their parent too: Q K + A."""
    labels, words = rules.nonterminals, rules.preterminals
    pairs = labels * (labels + 1)
    root = torch.full((labels + 1, labels), FINITE, dtype=torch.float64)
    root[labels] = rules.root
    binary = torch.full((pairs, pairs + words, pairs + words), FINITE, dtype=torch.float64)
    for above in range(labels + 1):
        for label in range(labels):
            children = torch.arange(label * labels, (label + 1) * labels)
            symbols = torch.cat([children, pairs + torch.arange(words)])
            side = above * labels + label
            binary[side][symbols[:, None], symbols] = rules.binary[above, label]
    return GrammarRules(root.flatten(), binary, rules.emission)


# -- marginals ------------------------------------------------------------------------------------


@few
@given(grammars(parent=True))
def test_the_marginal_is_the_sum_over_trees(case):
    rules, x = case
    torch.testing.assert_close(log_marginal(rules, x), brute_log_marginal(rules, x))


@few
@given(grammars(parent=True, impossible=0.4))
def test_what_is_impossible_is_left_out(case):
    rules, x = case
    brute = brute_log_marginal(rules, x)
    brute = brute.masked_fill(brute < -1e20, -math.inf)
    torch.testing.assert_close(log_marginal(rules, x), brute)
    single = log_marginal(cast(rules, torch.float32), x)
    torch.testing.assert_close(single.double(), brute, rtol=1e-5, atol=1e-5)


@few
@given(grammars(parent=True), st.integers(0, 1000))
def test_gradients_are_those_of_the_sum_over_trees(case, seed):
    rules, x = case
    weight = torch.randn(len(x), generator=torch.Generator().manual_seed(seed)).double()
    ours, brute = leaves(rules), leaves(rules)
    (log_marginal(ours, x) * weight).sum().backward()
    (brute_log_marginal(brute, x) * weight).sum().backward()
    for mine, other in zip(tables(ours), tables(brute), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@few
@given(
    grammars(parent=True, impossible=0.4),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_impossible_rules_and_sentences_have_no_gradient(case, dtype):
    rules, x = case
    finite = GrammarRules(*(table.clamp_min(FINITE) for table in tables(rules)))
    ours, brute = leaves(cast(rules, dtype)), leaves(finite)
    possible = brute_log_marginal(finite, x) > -1e20
    log_p = log_marginal(ours, x)
    log_p.backward(torch.ones_like(log_p))
    torch.where(possible, brute_log_marginal(brute, x), 0.0).sum().backward()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    for mine, other in zip(tables(ours), tables(brute), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, **tolerance)


@few
@given(grammars(parent=True, impossible=0.2))
def test_span_marginals_are_sums_over_trees(case):
    rules, x = case
    marginals, brute = span_marginals(rules, x), brute_marginals(rules, x)
    possible = brute_log_marginal(rules, x) > -1e20
    torch.testing.assert_close(marginals[possible], brute[possible])
    assert not marginals[~possible].any()


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_grammar_of_labels_with_their_parents_says_the_same(seed):
    rules = random_rules(3, 4, vocabulary=9, seed=seed, parent=True)
    x = random_sentences([11, 6, 2, 9], vocabulary=9, seed=seed)
    plain = annotated(rules)
    torch.testing.assert_close(log_marginal(rules, x), inside.log_marginal(plain, x))
    expected = inside.span_marginals(plain, x).unflatten(-1, (4, 3)).sum(-2)
    torch.testing.assert_close(span_marginals(rules, x), expected)
    z, best = viterbi(rules, x)
    plain_z, plain_best = inside.viterbi(plain, x)
    torch.testing.assert_close(best, plain_best)
    labels = tree_nodes(plain_z).label
    labels.copy_(torch.where(labels >= 0, labels % 3, labels))
    assert torch.equal(z, plain_z)


@pytest.mark.parametrize("seed", range(3))
def test_rules_that_are_the_same_under_every_parent_are_a_plain_grammar(seed):
    plain = leaves(random_rules(3, 4, vocabulary=9, seed=seed))
    rules = GrammarRules(plain.root, plain.binary.expand(4, -1, -1, -1), plain.emission)
    x = random_sentences([20, 6, 13], vocabulary=9, seed=seed)
    ours, theirs = log_marginal(rules, x), inside.log_marginal(plain, x)
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(each.sum(), tables(plain)) for each in (ours, theirs))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(span_marginals(rules, x), inside.span_marginals(plain, x))


def test_rows_of_a_batch_and_padding_do_not_matter():
    rules = random_rules(3, 2, vocabulary=9, seed=5, parent=True)
    lengths = [2, 7, 3, 12, 5]
    x = random_sentences(lengths, vocabulary=9, seed=5)
    alone = [log_marginal(rules, row[None, :n]) for row, n in zip(x, lengths, strict=True)]
    torch.testing.assert_close(log_marginal(rules, x), torch.cat(alone))
    padded = torch.cat([x, torch.full((len(x), 3), -1)], dim=1)
    torch.testing.assert_close(log_marginal(rules, padded), torch.cat(alone))
    assert span_marginals(rules, padded).shape == (5, 16, 16, 3)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_single_precision_holds_at_forty_words(spread):
    rules = random_rules(5, 6, vocabulary=10_000, seed=6, spread=spread, parent=True)
    x = random_sentences([40, 40, 31, 2], vocabulary=10_000, seed=6)
    double, single = leaves(rules), leaves(cast(rules, torch.float32))
    exact, ours = log_marginal(double, x), log_marginal(single, x)
    assert exact.min() < -300
    torch.testing.assert_close(ours.double(), exact, rtol=5e-7, atol=0)
    exact.sum().backward()
    ours.sum().backward()
    for mine, other in zip(tables(single), tables(double), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-3, atol=2e-5)


def test_very_improbable_rules_do_not_overflow():
    rules = random_rules(3, 3, vocabulary=50, seed=7, spread=15.0, parent=True)
    x = random_sentences([40, 25], vocabulary=50, seed=7)
    double, single = leaves(rules), leaves(cast(rules, torch.float32))
    exact, ours = log_marginal(double, x), log_marginal(single, x)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
    exact.sum().backward()
    ours.sum().backward()
    for mine, other in zip(tables(single), tables(double), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-2, atol=1e-3)


# -- trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("impossible", [0.0, 0.15])
def test_trees_are_drawn_from_the_posterior(seed, impossible):
    rules = random_rules(2, 2, seed=seed + 20, impossible=impossible, parent=True)
    x = random_sentences([5, 2, 4, 3], seed=seed)
    possible = torch.tensor([all_trees(rules, row)[1].max() > -1e20 for row in x])
    x = x[possible]
    assert len(x)
    single = cast(rules, torch.float32)
    z = sample(single, x, 5000, torch.Generator().manual_seed(seed))
    assert z.shape == (len(x), 5000, 12)
    for drawn, sentence in zip(z, x, strict=True):
        trees, log_joint = all_trees(rules, sentence)
        assert_drawn_from(drawn, trees, log_joint.log_softmax(0))


def test_spans_of_long_sentences_occur_as_often_as_their_marginals_say():
    rules = random_rules(4, 5, vocabulary=30, seed=9, spread=2.0, parent=True)
    x = random_sentences([20, 13], vocabulary=30, seed=9)
    k = 4000
    z = sample(rules, x, k, torch.Generator().manual_seed(9))
    for drawn, expected in zip(z, span_marginals(rules, x), strict=True):
        nodes = tree_nodes(drawn)
        tree, gap = (nodes.label >= 0).nonzero(as_tuple=True)
        cell = nodes.left[tree, gap], nodes.right[tree, gap], nodes.label[tree, gap]
        one = torch.ones((), dtype=torch.float64)
        share = torch.zeros_like(expected).index_put_(cell, one, accumulate=True) / k
        error = (expected * (1 - expected) / k).clamp_min(0).sqrt()
        assert ((share - expected).abs() <= 5 * error + 2 / k).all()


@few
@given(grammars(parent=True))
def test_no_tree_is_likelier(case):
    rules, x = case
    z, log_joint = viterbi(rules, x)
    for tree, value, sentence in zip(z, log_joint, x, strict=True):
        trees, log_joints = all_trees(rules, sentence)
        torch.testing.assert_close(value, log_joints.max())
        torch.testing.assert_close(log_joints[(trees == tree).all(-1)], value[None])


def test_the_likeliest_tree_of_a_long_sentence_is_worth_what_it_says():
    rules = random_rules(5, 6, vocabulary=30, seed=3, spread=2.0, parent=True)
    x = random_sentences([30, 17, 9], vocabulary=30, seed=3)
    z, log_joint = viterbi(rules, x)
    torch.testing.assert_close(tree_log_prob(rules, x, z), log_joint)
    drawn = sample(rules, x, 200, torch.Generator().manual_seed(0))
    others = tree_log_prob(rules, x.repeat_interleave(200, 0), drawn.flatten(0, 1)).view(3, 200)
    assert (others <= log_joint[:, None] + 1e-9).all()


@few
@given(grammars(parent=True))
def test_the_mbr_tree_serves_these_marginals_too(case):
    rules, x = case
    brute = brute_marginals(rules, x)
    for tree, marginals, sentence in zip(
        mbr_tree(span_marginals(rules, x), x), brute, x, strict=True
    ):
        of_span = marginals.sum(-1)
        expected = [
            sum(of_span[i, j].item() for i, j, _ in spans_of(one))
            for one in all_trees(rules, sentence)[0]
        ]
        ours = sum(of_span[i, j].item() for i, j, _ in spans_of(tree))
        assert ours == pytest.approx(max(expected))


# -- what a user may get wrong --------------------------------------------------------------------


@pytest.mark.parametrize("infer", [log_marginal, span_marginals, viterbi])
def test_plain_rules_and_what_is_no_sentence_are_refused(infer):
    with pytest.raises(UserError, match="use lvms"):
        infer(random_rules(2, 2), torch.tensor([[0, 1]]))
    with pytest.raises(UserError, match="Word ids must be 0 to 3"):
        infer(random_rules(2, 2, parent=True), torch.tensor([[0, 4]]))


def test_an_impossible_sentence_leaves_the_others_alone_and_has_no_tree():
    rules = random_rules(2, 2, seed=8, parent=True)
    emission = rules.emission.clone()
    emission[:, 3] = -math.inf
    rules = leaves(cast(dataclasses.replace(rules, emission=emission), torch.float32))
    x = torch.tensor([[0, 1, 2, 0], [0, 3, 2, 1]])
    log_p = log_marginal(rules, x)
    assert log_p[1] == -math.inf
    torch.testing.assert_close(log_p[:1], log_marginal(rules, x[:1]))
    log_p.sum().backward()
    alone = leaves(rules)
    log_marginal(alone, x[:1]).sum().backward()
    for mine, other in zip(tables(rules), tables(alone), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    for infer in (viterbi, lambda rules, x: sample(rules, x, 1)):
        with pytest.raises(UserError, match="derives no tree for sentence 1"):
            infer(rules, x)
