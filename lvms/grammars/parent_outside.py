"""The outside algorithm for rules given the parent, and what it expects of trees."""

from typing import NamedTuple

import torch
from torch import Tensor

from lvms.grammars.inside_chart import TINY
from lvms.grammars.outside_chart import ExpectedCounts, bounded_share, by_fenceposts, masked_product
from lvms.grammars.parent_chart import (
    ParentChart,
    label_pairs,
    parent_chart,
    split_shares,
    word_pairs,
)
from lvms.grammars.rules import GrammarRules


class ParentOutside(NamedTuple):
    """The derivative of log p(x) for what the inside chart holds of each span, parent and label.

    Times the inside chart it is the posterior probability of the labelled span under that parent.

    Attributes:
        by_start: Laid out like the chart's, and
        by_end: the same; 0 where a label does not derive a span.
        top: `[B, K]`, of the whole sentence under the start symbol.
    """

    by_start: Tensor
    by_end: Tensor
    top: Tensor


def parent_outside(chart: ParentChart, weight: Tensor) -> ParentOutside:
    """Fills the outside chart.

    Args:
        chart: The inside chart.
        weight: What each sentence's derivatives are multiplied by, `[B]`.
    """
    rules = chart.rules
    n, batch, labels = len(rules.emission), len(chart.lengths), len(rules.root)
    whole = (chart.top * rules.root).sum(-1).clamp_min(TINY)
    top = ((weight / whole)[:, None] * rules.root).where(chart.top > 0, 0.0)
    by_start, by_end = torch.zeros_like(chart.by_start), torch.zeros_like(chart.by_end)
    result = ParentOutside(by_start, by_end, top)
    for width in range(n, 2, -1):
        spans = n - width + 1
        _join(chart, result, width)
        own, share = _derivatives(chart, result, width)
        row = own.unsqueeze(-2)
        first = (row @ rules.left_word[:spans]).squeeze(-2) * share[..., :1]
        last = (row @ rules.right_word[width - 1 :]).squeeze(-2) * share[..., -1:]
        by_start[1 : spans + 1, :, width - 1] += first.flatten(1, 2)
        by_start[:spans, :, width - 1] += last.flatten(1, 2)
        if width > 3:
            pairs = own.flatten(0, 1).transpose(0, 1) @ rules.binary.flatten(2)
            pairs = pairs.transpose(0, 1).reshape(spans, batch * labels, labels, labels)
            left = chart.by_start[:spans, :, 2 : width - 1]
            right = chart.by_end[width:, :, n - width + 2 : n - 1]
            inner = share[..., 1:-1].flatten(1, 2)[..., None]
            by_start[:spans, :, 2 : width - 1] += (right @ pairs.transpose(-2, -1)) * inner
            by_end[width:, :, n - width + 2 : n - 1] += (left @ pairs) * inner
    _join(chart, result, 2)
    return result


@torch.no_grad()
def span_marginals(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes the posterior probability that the tree has a span with a label.

    Args:
        rules: Conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        float `[B, N + 1, N + 1, K]`, at (left, right); all 0 for a sentence that the grammar does
        not derive.

    Raises:
        UserError: If rules or x are not such.
    """
    chart = parent_chart(rules, x)
    outer = parent_outside(chart, torch.ones_like(chart.log_marginal))
    by_parent = (chart.by_start * outer.by_start).unflatten(1, (len(x), rules.nonterminals))
    probability = by_parent.sum(2)
    rows = torch.arange(len(x), device=x.device)
    probability[0, rows, chart.lengths] += chart.top * outer.top
    return by_fenceposts(probability, x.shape[1])


def parent_expected_counts(chart: ParentChart, outer: ParentOutside) -> ExpectedCounts:
    """Sums the posterior probabilities of rules; `binary` is `[K + 1, K, M, M]`.

    Args:
        chart: The inside chart.
        outer: The outside chart.
    """
    rules = chart.rules
    n, batch, labels = len(rules.emission), len(chart.lengths), len(rules.root)
    binary = torch.zeros_like(rules.binary).flatten(2)
    # For each span what it asks of a word at its start, at [i, b, A, w], and at its end.
    first, last = chart.by_start.new_zeros(2, n, batch, labels, n + 1, labels + 1)
    for width in range(3, n + 1):
        own, share = _derivatives(chart, outer, width)
        first[: n - width + 1, :, :, width] = own * share[..., :1]
        last[width - 1 :, :, :, n - width + 1] = own * share[..., -1:]
        if width > 3:
            per_label = own.flatten(0, 1).permute(1, 2, 0)
            binary.baddbmm_(per_label, label_pairs(chart, width, share))
    # A span and its child that is a word narrower lie a place apart in both layouts.
    left_child = chart.by_start[1:, :, :n].unflatten(1, (batch, labels))
    left_word = first[..., 1:, :].transpose(-2, -1) @ left_child
    left_word = left_word.flatten(0, 1)
    right_word = last.transpose(-2, -1) @ chart.by_end[:-1].unflatten(1, (batch, labels))
    right_word = right_word.flatten(0, 1)
    two, _ = _derivatives(chart, outer, 2)

    emission = torch.tensordot(left_word, rules.word_first, ([1, 2, 3], [1, 2, 3]))
    emission += torch.tensordot(right_word, rules.word_last, ([1, 2, 3], [1, 2, 3]))
    emission = emission.view_as(rules.emission)
    pairs = torch.tensordot(two, rules.both_words, ([2, 3], [2, 3]))
    emission[:-1] += (pairs @ rules.emission[1:, ..., None]).squeeze(-1)
    emission[1:] += (rules.emission[:-1, ..., None, :] @ pairs).squeeze(-2)

    words = rules.emission.flatten(0, 1)
    word_first = masked_product(rules.word_first, torch.tensordot(words, left_word, ([0], [0])))
    word_last = masked_product(rules.word_last, torch.tensordot(words, right_word, ([0], [0])))
    both_words = torch.tensordot(word_pairs(rules.emission), two, ([0, 1], [0, 1]))
    both_words = masked_product(rules.both_words, both_words)
    binary = masked_product(rules.binary, binary.view_as(rules.binary))
    label_first = torch.cat([binary, word_last.permute(1, 2, 3, 0)], dim=-1)
    preterminal_first = torch.cat(
        [word_first.permute(1, 2, 0, 3), both_words.permute(2, 3, 0, 1)], dim=-1
    )
    return ExpectedCounts(
        root=(chart.top * outer.top).sum(0),
        binary=torch.cat([label_first, preterminal_first], dim=-2).transpose(0, 1),
        emission=masked_product(rules.emission, emission),
    )


def _join(chart: ParentChart, outer: ParentOutside, width: int) -> None:
    """Adds up what the parents on either side have given the spans of a width."""
    n = len(chart.rules.emission)
    spans = n - width + 1
    here = outer.by_start[:spans, :, width] + outer.by_end[width:, :, n - width]
    here = here.where(chart.by_start[:spans, :, width] > 0, 0.0)
    outer.by_start[:spans, :, width] = here
    outer.by_end[width:, :, n - width] = here


def _derivatives(chart: ParentChart, outer: ParentOutside, width: int) -> tuple[Tensor, Tensor]:
    """The derivatives of log p(x) for what `derived` gives, and the shares of the splits.

    Args:
        chart: The inside chart.
        outer: The outside chart, filled for this width.
        width: w.

    Returns:
        `[n - w + 1, B, A, Q]` and `[n - w + 1, B, A, w - 1]`.
    """
    labels, batch = len(chart.rules.root), len(chart.lengths)
    spans = len(chart.rules.emission) - width + 1
    by_parent = (batch, labels)
    here = outer.by_start[:spans, :, width].unflatten(1, by_parent)
    scale = chart.scale_by_start[:spans, :, width].unflatten(1, by_parent)
    # Under the start symbol only the whole sentence counts.
    top = torch.zeros_like(here[:, :, :1])
    top[0, :, 0] = outer.top.where((chart.lengths == width)[:, None], 0.0)
    top_scale = chart.top_scale[:, None].expand(spans, -1, -1)
    here, scale = torch.cat([here, top], 2), torch.cat([scale, top_scale], 2)
    if width == 2:
        share, largest = scale.new_ones(spans, *by_parent, 1), scale.new_zeros(spans, *by_parent)
    else:
        share, largest = split_shares(chart, width)
    own = here.transpose(-2, -1) * bounded_share(largest[..., None] - scale[..., None, :])
    return own, share
