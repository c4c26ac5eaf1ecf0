"""The inside algorithm for rules given the parent: every chart entry has the parent's label too.

b[Q, A, i, j] = sum over k, B, C of R[Q, A, B, C] b[A, B, i, k] b[A, C, k, j], for a span i .. j
labelled A whose parent is labelled Q. What A's children are does not depend on Q, so for each A
the splits are summed first, as a matrix [B, C], and the rules of all Q applied to it at once.

Scaling and layout are `inside_chart`'s, with sentence and parent together in the place of the
sentence: each parent's labels are scaled by themselves, as they compete with no others. The start
symbol is a parent of whole sentences only, and its entries lie apart.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gfn_envs.errors import UserError
from lvms.grammars.inside_chart import (
    IMPOSSIBLE,
    TINY,
    child_pairs,
    log_factors,
    scaled_probabilities,
    split_weights,
)
from lvms.grammars.rules import GrammarRules, sentence_lengths


class ParentRules(NamedTuple):
    """The rules as probabilities, scaled, and what they are with words as children.

    Here A is the label expanded, of K, and Q its parent, of K + 1.

    Attributes:
        root: `[K]`.
        binary: `[A, Q, K, K]`, both children nonterminals.
        word_first: `[P, A, Q, K]`, at [p, A, Q, C]: the left child is preterminal p.
        word_last: `[P, A, Q, K]`, at [p, A, Q, B]: the right child is preterminal p.
        both_words: `[P, P, A, Q]`.
        emission: `[n, B, P]`, each word's preterminals.
        left_word: `[n, B, A, Q, K]`, at [i, b, A, Q, C]: the left child is word i.
        right_word: `[n, B, A, Q, K]`, at [i, b, A, Q, B]: the right child is word i.
        two_words: `[n - 1, B, A, Q]`: the children are words i and i + 1.
        log_root, log_binary: The logs that root and binary rules were divided by, `[]`.
        log_word: The same for each word's preterminals, `[n, B]`.
    """

    root: Tensor
    binary: Tensor
    word_first: Tensor
    word_last: Tensor
    both_words: Tensor
    emission: Tensor
    left_word: Tensor
    right_word: Tensor
    two_words: Tensor
    log_root: Tensor
    log_binary: Tensor
    log_word: Tensor


class ParentChart(NamedTuple):
    """The probability of each label for each span and parent, relative to the likeliest label.

    Spans that reach behind a sentence's end hold finite rubbish.

    Attributes:
        rules: What the chart was made from.
        lengths: int64 `[B]`.
        by_start: `[n + 1, B K, n + 1, K]`, at [i, b K + Q, w]: span i .. i + w under Q.
        by_end: `[n + 1, B K, n + 1, K]`, at [j, b K + Q, n - w]: span j - w .. j under Q.
        scale_by_start: `[n + 1, B K, n + 1]`, the log that the labels were divided by.
        scale_by_end: The same, laid out by the end.
        top: `[B, K]`, the whole sentence under the start symbol.
        top_scale: `[B]`, the log that it was divided by.
        log_marginal: log p(x), `[B]`, nats; -inf where the grammar does not derive the sentence.
    """

    rules: ParentRules
    lengths: Tensor
    by_start: Tensor
    by_end: Tensor
    scale_by_start: Tensor
    scale_by_end: Tensor
    top: Tensor
    top_scale: Tensor
    log_marginal: Tensor


def parent_inputs(rules: GrammarRules, x: Tensor) -> tuple[Tensor, Tensor]:
    """Checks a grammar whose rules depend on the parent, and sentences, trimmed to the longest.

    Args:
        rules: Conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        The log-probability of each word under each preterminal, `[n, B, P]`, that of word 0 behind
        a sentence's end; and the numbers of words, int64 `[B]`.

    Raises:
        UserError: If the rules do not depend on the parent, or x is not such sentences.
    """
    if not rules.conditioned_on_parent:
        raise UserError("These rules do not depend on the parent; use lvms.grammars.inside.")
    lengths = sentence_lengths(x, rules.vocabulary)
    words = x[:, : int(lengths.max())].clamp_min(0)
    return F.embedding(words.T, rules.emission.T), lengths


@torch.no_grad()
def parent_chart(rules: GrammarRules, x: Tensor) -> ParentChart:
    """Fills the chart of sentences, outside autograd; see `parent_inputs`."""
    return fill_parent_chart(rules.root, rules.binary, *parent_inputs(rules, x))


def parent_rules(root: Tensor, binary: Tensor, scores: Tensor) -> ParentRules:
    """Turns logs into scaled probabilities and sums preterminals out.

    Args:
        root: `[K]`, nats.
        binary: `[K + 1, K, M, M]`, nats.
        scores: `[n, B, P]`, log-probability of each word under each preterminal, nats.
    """
    labels = len(root)
    root, log_root = scaled_probabilities(root, root.amax(-1, keepdim=True))
    table, log_binary = scaled_probabilities(binary.transpose(0, 1), binary.amax().view(1, 1, 1, 1))
    emission, log_word = scaled_probabilities(scores, scores.amax(-1, keepdim=True))
    word_first = table[..., labels:, :labels].permute(2, 0, 1, 3).contiguous()
    word_last = table[..., :labels, labels:].permute(3, 0, 1, 2).contiguous()
    both_words = table[..., labels:, labels:].permute(2, 3, 0, 1).contiguous()
    return ParentRules(
        root=root,
        binary=table[..., :labels, :labels].contiguous(),
        word_first=word_first,
        word_last=word_last,
        both_words=both_words,
        emission=emission,
        left_word=torch.tensordot(emission, word_first, 1),
        right_word=torch.tensordot(emission, word_last, 1),
        two_words=torch.tensordot(word_pairs(emission), both_words, 2),
        log_root=log_root.squeeze(),
        log_binary=log_binary.squeeze(),
        log_word=log_word.squeeze(-1),
    )


def word_pairs(emission: Tensor) -> Tensor:
    """Multiplies the preterminals of neighbouring words, `[n - 1, B, P, P]`."""
    return emission[:-1, ..., None] * emission[1:, ..., None, :]


def fill_parent_chart(root: Tensor, binary: Tensor, scores: Tensor, lengths: Tensor) -> ParentChart:
    """Fills the chart.

    Args:
        root: `[K]`, nats.
        binary: `[K + 1, K, M, M]`, nats.
        scores: `[n, B, P]`, nats; anything behind a sentence's end.
        lengths: int64 `[B]`, 2 to n.
    """
    rules = parent_rules(root, binary, scores)
    n, batch, _ = scores.shape
    labels = len(root)
    by_start, by_end = scores.new_zeros(2, n + 1, batch * labels, n + 1, labels)
    starts, ends = scores.new_zeros(2, n + 1, batch * labels, n + 1)
    top, top_scale = scores.new_zeros(batch, labels), scores.new_zeros(batch)
    chart = ParentChart(
        rules, lengths, by_start, by_end, starts, ends, top, top_scale, scores.new_empty(0)
    )
    for width in range(2, n + 1):
        value, scale = _widen(chart, width)
        here, here_scale = value[:, :, :labels].flatten(1, 2), scale[:, :, :labels].flatten(1, 2)
        chart.by_start[: n - width + 1, :, width] = here
        chart.by_end[width:, :, n - width] = here
        chart.scale_by_start[: n - width + 1, :, width] = here_scale
        chart.scale_by_end[width:, :, n - width] = here_scale
        is_whole = lengths == width
        top[is_whole], top_scale[is_whole] = value[0, is_whole, -1], scale[0, is_whole, -1]
    return chart._replace(log_marginal=_log_marginal(chart))


def split_shares(chart: ParentChart, width: int) -> tuple[Tensor, Tensor]:
    """Says what the children's products are to be multiplied by.

    Args:
        chart: Filled for all smaller widths.
        width: w, at least 3.

    Returns:
        For each label A that splits, `[n - w + 1, B, K, w - 1]`, at most 1, splits left to right,
        and the log that these were divided by, `[n - w + 1, B, K]`.
    """
    weight = split_weights(chart, width).unflatten(1, (-1, len(chart.rules.root)))
    largest = weight.amax(-1)
    return (weight - largest[..., None]).exp_(), largest


def label_pairs(chart: ParentChart, width: int, share: Tensor) -> Tensor:
    """Sums the products of two nonterminal children over the splits, for each label A.

    Args:
        chart: Filled for all smaller widths.
        width: w, at least 4.
        share: See `split_shares`.

    Returns:
        `[K, (n - w + 1) B, K K]`, A first.
    """
    spans, batch, labels, _ = share.shape
    pairs = child_pairs(chart, width, share[..., 1:-1].flatten(1, 2))
    return pairs.view(spans * batch, labels, labels**2).transpose(0, 1)


def derived(chart: ParentChart, width: int) -> tuple[Tensor, Tensor]:
    """Sums over splits and rules for all spans of a width.

    Returns:
        `[n - w + 1, B, A, Q]` and the log that they were divided by, `[n - w + 1, B, A]`.
    """
    rules = chart.rules
    if width == 2:
        return F.threshold(rules.two_words, TINY, 0.0), torch.zeros_like(rules.two_words[..., 0])
    share, largest = split_shares(chart, width)
    spans, batch, labels, _ = share.shape
    narrower = chart.by_start[: spans + 1, :, width - 1].unflatten(1, (batch, labels))
    value = rules.left_word[:spans] @ (narrower[1:] * share[..., :1])[..., None]
    value += rules.right_word[width - 1 :] @ (narrower[:-1] * share[..., -1:])[..., None]
    value = value.squeeze(-1)
    if width > 3:
        both = label_pairs(chart, width, share) @ rules.binary.flatten(2).mT
        value += both.transpose(0, 1).view_as(value)
    return F.threshold(value, TINY, 0.0), largest


def _widen(chart: ParentChart, width: int) -> tuple[Tensor, Tensor]:
    """Scales what is derived for each parent by its likeliest label.

    Returns:
        `[n - w + 1, B, Q, A]` and the log that they were divided by, `[n - w + 1, B, Q]`.
    """
    value, largest = derived(chart, width)
    log_value = value.log_() + largest[..., None]
    scale = log_value.amax(-2).clamp_min(IMPOSSIBLE)
    value = F.threshold((log_value - scale[..., None, :]).exp_(), TINY, 0.0)
    return value.transpose(-2, -1), scale


def _log_marginal(chart: ParentChart) -> Tensor:
    """Reads log p(x) off a filled chart, `[B]`."""
    rules = chart.rules
    outer = log_factors(rules.log_root, rules.log_binary, rules.log_word, chart.lengths)
    whole = (chart.top * rules.root).sum(-1)
    return F.threshold(whole, TINY, 0.0).log() + chart.top_scale + outer
