"""The inside algorithm against brute force over trees, and against torch-struct."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import UserError
from lvms.grammars.inside import log_marginal, span_marginals
from lvms.grammars.rules import GrammarRules
from tests.lvms.grammars.brute_force import (
    all_trees,
    brute_log_marginal,
    brute_marginals,
    grammars,
    random_rules,
    random_sentences,
)

few = settings(max_examples=25, deadline=None)


def tables(rules):
    return rules.root, rules.binary, rules.emission


def leaves(rules):
    """The same rules, to be differentiated."""
    return GrammarRules(*(table.detach().clone().requires_grad_() for table in tables(rules)))


def cast(rules, dtype):
    return GrammarRules(*(table.to(dtype) for table in tables(rules)))


@few
@given(grammars())
def test_the_marginal_is_the_sum_over_trees(case):
    rules, x = case
    torch.testing.assert_close(log_marginal(rules, x), brute_log_marginal(rules, x))


@settings(max_examples=3, deadline=None)
@given(grammars(lengths=st.just(6), most=1))
def test_the_marginal_is_the_sum_over_trees_of_six_words(case):
    rules, x = case
    torch.testing.assert_close(log_marginal(rules, x), brute_log_marginal(rules, x))


@few
@given(grammars(impossible=0.4))
def test_what_is_impossible_is_left_out(case):
    rules, x = case
    brute = brute_log_marginal(rules, x)
    brute = brute.masked_fill(brute < -1e20, -math.inf)
    torch.testing.assert_close(log_marginal(rules, x), brute)
    single = log_marginal(cast(rules, torch.float32), x)
    torch.testing.assert_close(single.double(), brute, rtol=1e-5, atol=1e-5)


@few
@given(grammars(), st.integers(0, 1000))
def test_gradients_are_those_of_the_sum_over_trees(case, seed):
    rules, x = case
    weight = torch.randn(len(x), generator=torch.Generator().manual_seed(seed)).double()
    ours, brute = leaves(rules), leaves(rules)
    (log_marginal(ours, x) * weight).sum().backward()
    (brute_log_marginal(brute, x) * weight).sum().backward()
    for mine, other in zip(tables(ours), tables(brute), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@few
@given(grammars(impossible=0.4), st.sampled_from([torch.float32, torch.float64]))
def test_impossible_rules_and_sentences_have_no_gradient(case, dtype):
    rules, x = case
    # The brute force needs finite logs for its gradients.
    finite = GrammarRules(*(table.clamp_min(-1e30) for table in tables(rules)))
    ours, brute = leaves(cast(rules, dtype)), leaves(finite)
    possible = brute_log_marginal(finite, x) > -1e20
    log_p = log_marginal(ours, x)
    log_p.backward(torch.ones_like(log_p))
    torch.where(possible, brute_log_marginal(brute, x), 0.0).sum().backward()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    for mine, other in zip(tables(ours), tables(brute), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, **tolerance)


def test_gradients_are_finite_differences():
    rules = leaves(random_rules(2, 2, seed=3))
    x = random_sentences([5, 2, 4], seed=3)
    assert torch.autograd.gradcheck(
        lambda *given: log_marginal(GrammarRules(*given), x), tables(rules), eps=1e-6, atol=1e-6
    )


def test_a_graph_kept_can_be_walked_twice():
    rules = leaves(random_rules(2, 2, seed=4))
    total = log_marginal(rules, random_sentences([4, 3], seed=4)).sum()
    first = torch.autograd.grad(total, rules.binary, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(total, rules.binary)[0], first)


@few
@given(grammars(impossible=0.2))
def test_span_marginals_are_sums_over_trees(case):
    rules, x = case
    marginals = span_marginals(rules, x)
    brute = brute_marginals(rules, x)
    possible = brute_log_marginal(rules, x) > -1e20
    torch.testing.assert_close(marginals[possible], brute[possible])
    assert not marginals[~possible].any()


def test_rows_of_a_batch_and_padding_do_not_matter():
    rules = random_rules(3, 2, vocabulary=9, seed=5)
    lengths = [2, 7, 3, 12, 5]
    x = random_sentences(lengths, vocabulary=9, seed=5)
    alone = torch.cat(
        [log_marginal(rules, row[None, :n]) for row, n in zip(x, lengths, strict=True)]
    )
    torch.testing.assert_close(log_marginal(rules, x), alone)
    padded = torch.cat([x, torch.full((len(x), 3), -1)], dim=1)
    torch.testing.assert_close(log_marginal(rules, padded), alone)
    assert span_marginals(rules, padded).shape == (5, 16, 16, 3)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_single_precision_holds_at_forty_words(spread):
    """10 000 words, so that a sentence's log-probability is about -400 nats."""
    rules = random_rules(10, 20, vocabulary=10_000, seed=6, spread=spread)
    x = random_sentences([40, 40, 31, 2], vocabulary=10_000, seed=6)
    double, single = leaves(rules), leaves(cast(rules, torch.float32))
    exact, ours = log_marginal(double, x), log_marginal(single, x)
    assert exact.min() < -300
    # A few units in the last place of a number this large.
    torch.testing.assert_close(ours.double(), exact, rtol=5e-7, atol=0)
    exact.sum().backward()
    ours.sum().backward()
    for mine, other in zip(tables(single), tables(double), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-3, atol=2e-5)


def test_very_improbable_rules_do_not_overflow():
    """Each rule and word down to e^-60, close to what counts as impossible: all stays finite."""
    rules = random_rules(3, 3, vocabulary=50, seed=7, spread=15.0)
    x = random_sentences([40, 25], vocabulary=50, seed=7)
    double, single = leaves(rules), leaves(cast(rules, torch.float32))
    exact, ours = log_marginal(double, x), log_marginal(single, x)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)
    exact.sum().backward()
    ours.sum().backward()
    for mine, other in zip(tables(single), tables(double), strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-2, atol=1e-3)


def test_an_impossible_sentence_leaves_the_others_alone():
    rules = random_rules(2, 2, seed=8)
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


@pytest.mark.filterwarnings("ignore:.*arg_constraints")
class TestAgainstTorchStruct:
    """torch-struct's CKY needs two words or more, and terms for words behind the end too."""

    LENGTHS = (7, 4, 2, 6)

    def case(self, seed, labels=3, preterminals=4):
        rules = leaves(random_rules(labels, preterminals, vocabulary=9, seed=seed))
        return rules, random_sentences(self.LENGTHS, vocabulary=9, seed=seed)

    def sentence_cfg(self, rules, x):
        torch_struct = pytest.importorskip("torch_struct")
        terms = rules.emission.T[x.clamp_min(0)]
        binary = rules.binary.expand(len(x), *rules.binary.shape)
        root = rules.root.expand(len(x), -1)
        lengths = torch.tensor(self.LENGTHS)
        return torch_struct.SentCFG((terms, binary, root), lengths)

    @pytest.mark.parametrize("seed", range(3))
    def test_partition_and_gradients(self, seed):
        rules, x = self.case(seed)
        theirs = self.sentence_cfg(rules, x).partition
        ours = log_marginal(rules, x)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
        expected = torch.autograd.grad(theirs.sum(), tables(rules))
        for mine, other in zip(
            torch.autograd.grad(ours.sum(), tables(rules)), expected, strict=True
        ):
            torch.testing.assert_close(mine, other)

    def test_marginals(self):
        rules, x = self.case(4)
        theirs = self.sentence_cfg(rules, x).marginals[3].detach()
        ours = span_marginals(rules, x)
        seen = torch.zeros_like(ours)
        for width in range(2, 8):  # theirs start at two words
            for start in range(8 - width):
                seen[:, start, start + width] = theirs[:, width - 2, start]
        torch.testing.assert_close(ours, seen)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0, 1, 4]], "Word ids must be 0 to 3"),
        ([[0, -2, 1]], "Word ids must be 0 to 3"),
        ([[0, -1, 1]], "must stand behind the end"),
        ([[0, 1], [1, -1]], "at least two words"),
        ([[0.5, 1.0]], "must be word ids"),
        ([0, 1], "must be word ids"),
    ],
)
def test_what_is_no_sentence_is_refused(x, message):
    with pytest.raises(UserError, match=message):
        log_marginal(random_rules(2, 2), torch.tensor(x))


def test_rules_that_do_not_fit_together_are_refused():
    rules = random_rules(2, 3)
    with pytest.raises(UserError, match="binary must be"):
        GrammarRules(rules.root, rules.binary[:, :-1], rules.emission)
    with pytest.raises(UserError, match="none empty"):
        GrammarRules(rules.root, rules.binary, rules.emission[:0])
    with pytest.raises(UserError, match="parent_inside"):
        log_marginal(random_rules(2, 3, parent=True), torch.tensor([[0, 1]]))


def test_brute_force_trees_are_complete_and_distinct():
    """Catalan(3) bracketings of four words times 2^3 labels."""
    z, _ = all_trees(random_rules(2, 1), torch.tensor([0, 1, 2, 3, -1]))
    assert len(z.unique(dim=0)) == len(z) == 5 * 8
