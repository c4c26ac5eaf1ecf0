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
    split_weights,
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
    rules = chart.rules
    n, labels = len(rules.emission), len(rules.root)
    result = OutsideChart(torch.zeros_like(chart.by_start), torch.zeros_like(chart.by_end))
    by_start, by_end = result
    rows = torch.arange(len(chart.lengths), device=weight.device)
    whole = (chart.by_start[0, rows, chart.lengths] * rules.root).sum(-1).clamp_min(TINY)
    by_start[0, rows, chart.lengths] = (weight / whole)[:, None] * rules.root
    for width in range(n, 1, -1):
        spans = n - width + 1
        here = by_start[:spans, :, width] + by_end[width:, :, n - width]
        here = here.where(chart.by_start[:spans, :, width] > 0, 0.0)
        by_start[:spans, :, width] = here
        by_end[width:, :, n - width] = here
        if width == 2:
            break
        share = _split_shares(chart, width)
        row = here.unsqueeze(-2)
        first, last = rules.left_word[:spans, ..., :labels], rules.right_word[width - 1 :]
        by_start[1 : spans + 1, :, width - 1] += (row @ first).squeeze(-2) * share[..., :1]
        by_start[:spans, :, width - 1] += (row @ last).squeeze(-2) * share[..., -1:]
        if width > 3:
            pairs = (here @ rules.binary.flatten(1)).unflatten(-1, (labels, labels))
            left = chart.by_start[:spans, :, 2 : width - 1]
            right = chart.by_end[width:, :, n - width + 2 : n - 1]
            share = share[..., 1:-1, None]
            by_start[:spans, :, 2 : width - 1] += (right @ pairs.transpose(-2, -1)) * share
            by_end[width:, :, n - width + 2 : n - 1] += (left @ pairs) * share
    return result


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
    return by_fenceposts(chart.by_start * outer.by_start, x.shape[1])


def by_fenceposts(value: Tensor, max_words: int) -> Tensor:
    """Lays a chart by start and width, `[n + 1, B, n + 1, K]`, out as `[B, N + 1, N + 1, K]`."""
    n, side = len(value) - 1, max_words + 1
    result = value.new_zeros(value.shape[1], side, side, value.shape[-1])
    for left in range(n - 1):
        result[:, left, left : n + 1] = value[left, :, : n + 1 - left]
    return result


def expected_counts(chart: InsideChart, outer: OutsideChart) -> ExpectedCounts:
    """Sums the posterior probabilities of rules, as often as the outside chart was weighted by."""
    rules = chart.rules
    n, labels = len(rules.emission), len(rules.root)
    pairs = torch.zeros_like(rules.binary).flatten(1)
    for width in range(4, n + 1):
        share = _split_shares(chart, width)[..., 1:-1]
        here = outer.by_start[: n - width + 1, :, width].flatten(0, 1)
        pairs.addmm_(here.T, child_pairs(chart, width, share).flatten(0, 1).flatten(1))

    two = outer.by_start[: n - 1, :, 2] * bounded_share(-chart.scale_by_start[: n - 1, :, 2, None])
    left_word, right_word = _word_derivatives(chart, outer, two)
    words = rules.emission.flatten(0, 1)
    left_word, right_word = left_word.flatten(0, 1).flatten(1), right_word.flatten(0, 1).flatten(1)
    emission = left_word @ rules.word_first.flatten(1).T
    emission.addmm_(right_word, rules.word_last.flatten(1).T)
    emission = emission.view_as(rules.emission)
    emission[1:] += (two.unsqueeze(-2) @ rules.left_word[:-1, ..., labels:]).squeeze(-2)

    word_first = masked_product(rules.word_first, (words.T @ left_word).view_as(rules.word_first))
    word_last = masked_product(rules.word_last, (words.T @ right_word).view_as(rules.word_last))
    both = masked_product(rules.binary, pairs.view_as(rules.binary))
    nonterminal_first = torch.cat([both, word_last.permute(1, 2, 0)], dim=-1)
    rows = torch.arange(len(chart.lengths), device=chart.lengths.device)
    top = chart.by_start[0, rows, chart.lengths] * outer.by_start[0, rows, chart.lengths]
    return ExpectedCounts(
        root=top.sum(0),
        binary=torch.cat([nonterminal_first, word_first.transpose(0, 1)], dim=1),
        emission=masked_product(rules.emission, emission),
    )


def _word_derivatives(
    chart: InsideChart, outer: OutsideChart, two: Tensor
) -> tuple[Tensor, Tensor]:
    """The derivatives for the rules with a word as a child, over all widths at once.

    Args:
        chart: The inside chart.
        outer: The outside chart.
        two: The part of spans of two words, `[n - 1, B, K]`.

    Returns:
        What `left_word` and `right_word` of the rules are, `[n, B, K, M]` and `[n, B, K, K]`.
    """
    n, labels = len(chart.rules.emission), len(chart.rules.root)
    left_word = torch.zeros_like(chart.rules.left_word)
    # A span and the one that is a word narrower lie a place apart in both layouts.
    share = bounded_share(chart.scale_by_start[1:, :, 2:n] - chart.scale_by_start[:-1, :, 3:])
    parent = outer.by_start[:-1, :, 3:] * share[..., None]
    left_word[..., :labels] = parent.transpose(-2, -1) @ chart.by_start[1:, :, 2:n]
    left_word[:-1, ..., labels:] = two[..., None] * chart.rules.emission[1:, :, None]
    share = bounded_share(
        chart.scale_by_end[:-1, :, 1 : n - 1] - chart.scale_by_end[1:, :, : n - 2]
    )
    parent = outer.by_end[1:, :, : n - 2] * share[..., None]
    return left_word, parent.transpose(-2, -1) @ chart.by_end[:-1, :, 1 : n - 1]


def _split_shares(chart: InsideChart, width: int) -> Tensor:
    """What children's products are multiplied by in their span's value, `[n - w + 1, B, w - 1]`."""
    span = chart.scale_by_start[: len(chart.rules.emission) - width + 1, :, width, None]
    return bounded_share(split_weights(chart, width) - span)


def bounded_share(log_share: Tensor) -> Tensor:
    """Exponentiates, without overflow where the span is impossible and nothing is asked of it."""
    return log_share.clamp_max(LARGEST_SHARE).exp()


def masked_product(probability: Tensor, derivative: Tensor) -> Tensor:
    """Multiplies; 0 where the probability is, even if the derivative is infinite there."""
    return (probability * derivative).where(probability > 0, 0.0)
