"""The outside algorithm, the backward pass of the inside algorithm, and expected rule counts."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lvms.grammars.inside_chart import (
    TINY,
    InsideChart,
    child_pairs,
    inside_chart,
    nonterminal_children,
    split_weights,
    whole_sentences,
)
from lvms.grammars.rules import GrammarRules

LARGEST_SHARE = -math.log(TINY)
"""A split's log weight over its span's probability is bounded by this wherever it counts."""


class OutsideChart(NamedTuple):
    """The derivative of log p(x) for what the inside chart holds of each span and label.

    Times the inside chart it is the posterior probability of the labelled span. It is kept twice,
    laid out like the inside chart, and 0 where a label does not derive a span.
    """

    by_start: Tensor
    by_end: Tensor


class ExpectedCounts(NamedTuple):
    """How often trees of the posterior use each rule: the gradient of log p(x) for its log.

    Attributes:
        root: `[K]`, summed over sentences.
        binary: `[K, M, M]`, summed over sentences.
        emission: `[n, B, P]`, how often each word has each preterminal.
    """

    root: Tensor
    binary: Tensor
    emission: Tensor


def outside(chart: InsideChart, weight: Tensor) -> OutsideChart:
    """Fills the outside chart.

    Args:
        chart: The inside chart.
        weight: What each sentence's derivatives are multiplied by, `[B]`.
    """
    rules, n, batch = chart.rules, chart.words, len(weight)
    labels = len(rules.root)
    by_start, by_end = torch.zeros_like(chart.by_start), torch.zeros_like(chart.by_end)
    whole = whole_sentences(chart)
    total = (chart.by_start[whole] * rules.root).sum(-1).clamp_min(TINY)
    by_start[whole] = (weight / total)[:, None] * rules.root
    for width in range(n, 1, -1):
        spans = (n - width + 1) * batch
        here = by_start[:spans, width] + by_end[-spans:, n - width]
        here = here.where(chart.by_start[:spans, width] > 0, 0.0)
        by_start[:spans, width] = here
        by_end[-spans:, n - width] = here
        if width == 2:
            break
        share = _split_shares(chart, width)
        row = here.unsqueeze(1)
        narrower = by_start[: spans + batch, width - 1]
        first = torch.bmm(row, rules.left_word[:spans, :, :labels]).squeeze(1)
        last = torch.bmm(row, rules.right_word[-spans:]).squeeze(1)
        narrower[batch:].addcmul_(first, share[:, :1])
        narrower[:spans].addcmul_(last, share[:, -1:])
        if width > 3:
            pairs = (here @ rules.binary.flatten(1)).unflatten(1, (labels, labels))
            left, right = nonterminal_children(chart.by_start, chart.by_end, width, batch)
            of_left, of_right = nonterminal_children(by_start, by_end, width, batch)
            share = share[:, 1:-1, None]
            of_left.addcmul_(torch.bmm(right, pairs.transpose(1, 2)), share)
            of_right.addcmul_(torch.bmm(left, pairs), share)
    return OutsideChart(by_start, by_end)


@torch.no_grad()
def span_marginals(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes the posterior probability that the tree has a span with a label.

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        float `[B, N + 1, N + 1, K]`, at (left, right); all 0 for a sentence that the grammar does
        not derive.

    Raises:
        UserError: If rules or x are not such.
    """
    chart = inside_chart(rules, x)
    outer = outside(chart, torch.ones_like(chart.log_marginal))
    probability = chart.by_start * outer.by_start
    n, side = chart.words, x.shape[1] + 1
    marginals = probability.new_zeros(len(x), side, side, rules.nonterminals)
    for left, of_left in enumerate(probability.split(len(x))[: n - 1]):
        marginals[:, left, left : n + 1] = of_left[:, : n + 1 - left]
    return marginals


def expected_counts(chart: InsideChart, outer: OutsideChart) -> ExpectedCounts:
    """Sums the posterior probabilities of rules, as often as the outside chart was weighted by."""
    rules, n, batch = chart.rules, chart.words, len(chart.lengths)
    labels = len(rules.root)
    pairs = torch.zeros_like(rules.binary).flatten(1)
    for width in range(4, n + 1):
        here = outer.by_start[: (n - width + 1) * batch, width]
        share = _split_shares(chart, width)[:, 1:-1]
        pairs.addmm_(here.T, child_pairs(chart, width, share).flatten(1))

    two = outer.by_start[: (n - 1) * batch, 2]
    two = two * _share(-chart.scale_by_start[: len(two), 2, None])
    left_word, right_word = _word_derivatives(chart, outer, two)
    emission = left_word.flatten(1) @ rules.word_first.flatten(1).T
    emission.addmm_(right_word.flatten(1), rules.word_last.flatten(1).T)
    second = torch.bmm(two.unsqueeze(1), rules.left_word[:-batch, :, labels:])
    emission[batch:] += second.squeeze(1)

    word_first = (rules.emission.T @ left_word.flatten(1)).view_as(rules.word_first)
    word_last = (rules.emission.T @ right_word.flatten(1)).view_as(rules.word_last)
    last = _times(rules.word_last, word_last).permute(1, 2, 0)
    nonterminal_first = torch.cat([_times(rules.binary, pairs.view_as(rules.binary)), last], -1)
    terminal_first = _times(rules.word_first, word_first).transpose(0, 1)
    whole = whole_sentences(chart)
    return ExpectedCounts(
        root=(chart.by_start[whole] * outer.by_start[whole]).sum(0),
        binary=torch.cat([nonterminal_first, terminal_first], dim=1),
        emission=_times(rules.emission, emission).unflatten(0, (n, batch)),
    )


def _word_derivatives(
    chart: InsideChart, outer: OutsideChart, two: Tensor
) -> tuple[Tensor, Tensor]:
    """The derivatives for the rules with a word as a child, over all widths at once.

    Args:
        chart: The inside chart.
        outer: The outside chart.
        two: The part of spans of two words, `[(n - 1) B, K]`.

    Returns:
        What `left_word` and `right_word` of the rules are, `[n B, K, M]` and `[n B, K, K]`.
    """
    n, batch, labels = chart.words, len(chart.lengths), two.shape[1]
    left_word = torch.empty_like(chart.rules.left_word)
    # A span and the one that is a word narrower lie a position apart in both layouts.
    share = _share(chart.scale_by_start[batch:, 2:n] - chart.scale_by_start[:-batch, 3:])
    parent = outer.by_start[:-batch, 3:] * share[..., None]
    left_word[..., :labels] = torch.bmm(parent.transpose(1, 2), chart.by_start[batch:, 2:n])
    second = chart.rules.emission[batch:, None]
    torch.mul(two[..., None], second, out=left_word[:-batch, :, labels:])
    left_word[-batch:, :, labels:] = 0
    share = _share(chart.scale_by_end[:-batch, 1 : n - 1] - chart.scale_by_end[batch:, : n - 2])
    parent = outer.by_end[batch:, : n - 2] * share[..., None]
    return left_word, torch.bmm(parent.transpose(1, 2), chart.by_end[:-batch, 1 : n - 1])


def _split_shares(chart: InsideChart, width: int) -> Tensor:
    """What children's products are multiplied by in their span's value, `[(n-w+1) B, w - 1]`."""
    weight = split_weights(chart, width)
    return _share(weight.sub_(chart.scale_by_start[: len(weight), width, None]))


def _share(log_share: Tensor) -> Tensor:
    """Exponentiates, without overflow where the span is impossible and nothing is asked of it."""
    return log_share.clamp_max(LARGEST_SHARE).exp_()


def _times(probability: Tensor, derivative: Tensor) -> Tensor:
    """Multiplies; 0 where the probability is, even if the derivative is infinite there."""
    return (probability * derivative).where(probability > 0, 0.0)
