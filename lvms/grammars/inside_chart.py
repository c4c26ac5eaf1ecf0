"""The inside and outside algorithms for plain context-free grammars, over all spans of a width.

Probabilities are kept as such, not as logs, so that the sums over rules are matrix products; each
span's are divided by their largest, whose log is kept beside them. What multiplies every tree of a
sentence (the largest binary rule once for each node, each word's likeliest preterminal) is left
out on the way and put back at the end, so that these logs stay small and exact.

Three kinds of splits differ in cost. Where both children have two words or more, the splits are
summed first, as a matrix [B, C] for each span, and the rules applied once. Where a child is a word,
its preterminals are summed into the rules once for each word, and these serve every span.

Probabilities of less than `TINY` times what they compete with count as 0: this bounds every number
of both passes, whatever the rules, so that nothing overflows and no 0 meets an infinity.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gfn_envs.errors import UserError
from lvms.grammars.rules import GrammarRules, sentence_lengths

TINY = 1e-30
"""Smaller shares count as impossible; e^-69."""

IMPOSSIBLE = -1e29
"""Stands for log 0 where it must be finite; what is given as lower is 0 too."""


class LeafRules(NamedTuple):
    """The rules as probabilities, scaled, and what they are with words as children.

    Attributes:
        root: `[K]`.
        binary: `[K, K, K]`, both children nonterminals.
        word_first: `[P, K, M]`, at [p, A, C]: the left child is preterminal p.
        word_last: `[P, K, K]`, at [p, A, B]: the right child is preterminal p.
        emission: `[n, B, P]`, each word's preterminals.
        left_word: `[n, B, K, M]`, at [i, b, A, C]: the left child is word i.
        right_word: `[n, B, K, K]`, at [i, b, A, B]: the right child is word i.
        log_root, log_binary: The logs that root and binary rules were divided by, `[]`.
        log_word: The same for each word's preterminals, `[n, B]`.
    """

    root: Tensor
    binary: Tensor
    word_first: Tensor
    word_last: Tensor
    emission: Tensor
    left_word: Tensor
    right_word: Tensor
    log_root: Tensor
    log_binary: Tensor
    log_word: Tensor


class SpanChart(Protocol):
    """What charts have in common, with or without parents; see `InsideChart` for the layout."""

    @property
    def by_start(self) -> Tensor:
        """Of each span, laid out by its start."""

    @property
    def by_end(self) -> Tensor:
        """The same, laid out by its end."""

    @property
    def scale_by_start(self) -> Tensor:
        """The log that each span was divided by."""

    @property
    def scale_by_end(self) -> Tensor:
        """The same, laid out by its end."""


class InsideChart(NamedTuple):
    """The probability that each label derives each span, relative to the span's likeliest label.

    Every span is kept twice, so that all left children of a span lie side by side, and all right
    children too. Spans that reach behind a sentence's end hold finite rubbish.

    Attributes:
        rules: What the chart was made from.
        lengths: int64 `[B]`.
        by_start: `[n + 1, B, n + 1, K]`, at [i, b, w]: span i .. i + w, for w of 2 and more.
        by_end: `[n + 1, B, n + 1, K]`, at [j, b, n - w]: span j - w .. j.
        scale_by_start: `[n + 1, B, n + 1]`, the log that the span was divided by; 0 for words.
        scale_by_end: The same, laid out by the end.
        log_marginal: log p(x), `[B]`, nats; -inf where the grammar does not derive the sentence.
    """

    rules: LeafRules
    lengths: Tensor
    by_start: Tensor
    by_end: Tensor
    scale_by_start: Tensor
    scale_by_end: Tensor
    log_marginal: Tensor


def plain_inputs(rules: GrammarRules, x: Tensor) -> tuple[Tensor, Tensor]:
    """Checks a plain grammar and sentences, and trims these to the longest.

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        The log-probability of each word under each preterminal, `[n, B, P]`, that of word 0 behind
        a sentence's end; and the numbers of words, int64 `[B]`.

    Raises:
        UserError: If the rules are conditioned on the parent, or x is not such sentences.
    """
    if rules.conditioned_on_parent:
        raise UserError(
            "These rules depend on the parent's label; use lvms.grammars.parent_inside."
        )
    lengths = sentence_lengths(x, rules.vocabulary)
    words = x[:, : int(lengths.max())].clamp_min(0)
    return F.embedding(words.T, rules.emission.T), lengths


@torch.no_grad()
def inside_chart(rules: GrammarRules, x: Tensor) -> InsideChart:
    """Fills the chart of sentences, outside autograd; see `plain_inputs`."""
    return inside(rules.root, rules.binary, *plain_inputs(rules, x))


def refuse_impossible(log_prob: Tensor) -> None:
    """Raises where a sentence has no tree.

    Args:
        log_prob: Of sentences or their likeliest trees, `[B]`.

    Raises:
        UserError: If one is -inf.
    """
    impossible = (log_prob == -math.inf).nonzero()
    if len(impossible):
        raise UserError(
            f"The grammar derives no tree for sentence {impossible[0].item()} of the batch, nor "
            f"for {len(impossible) - 1} others; give its rules and words some probability."
        )


def leaf_rules(root: Tensor, binary: Tensor, scores: Tensor) -> LeafRules:
    """Turns logs into scaled probabilities and sums preterminals out.

    Args:
        root: `[K]`, nats.
        binary: `[K, M, M]`, nats.
        scores: `[n, B, P]`, log-probability of each word under each preterminal, nats.
    """
    labels = len(root)
    root, log_root = scaled_probabilities(root, root.amax(-1, keepdim=True))
    table, log_binary = scaled_probabilities(binary, binary.amax().view(1, 1, 1))
    emission, log_word = scaled_probabilities(scores, scores.amax(-1, keepdim=True))
    word_first = table[:, labels:].transpose(0, 1).contiguous()
    word_last = table[:, :labels, labels:].permute(2, 0, 1).contiguous()
    words = emission.flatten(0, 1)
    sides = emission.shape[:2]
    return LeafRules(
        root=root,
        binary=table[:, :labels, :labels].contiguous(),
        word_first=word_first,
        word_last=word_last,
        emission=emission,
        left_word=(words @ word_first.flatten(1)).view(*sides, *word_first.shape[1:]),
        right_word=(words @ word_last.flatten(1)).view(*sides, *word_last.shape[1:]),
        log_root=log_root.squeeze(),
        log_binary=log_binary.squeeze(),
        log_word=log_word.squeeze(-1),
    )


def scaled_probabilities(log_values: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Divides probabilities by the largest, given as a log; all 0 where that is 0."""
    largest = largest.clamp_min(IMPOSSIBLE)
    return F.threshold((log_values - largest).exp(), TINY, 0.0), largest


def split_weights(chart: SpanChart, width: int) -> Tensor:
    """The logs that the children's products are to be multiplied by, splits left to right.

    Args:
        chart: Filled for all smaller widths.
        width: w.

    Returns:
        `[n - w + 1, B, w - 1]`, nats.
    """
    n = chart.by_start.shape[0] - 1
    left = chart.scale_by_start[: n - width + 1, :, 1:width]
    return left + chart.scale_by_end[width:, :, n - width + 1 : n]


def inside(root: Tensor, binary: Tensor, scores: Tensor, lengths: Tensor) -> InsideChart:
    """Fills the chart.

    Args:
        root: `[K]`, nats.
        binary: `[K, M, M]`, nats.
        scores: `[n, B, P]`, nats; anything behind a sentence's end.
        lengths: int64 `[B]`, 2 to n.
    """
    rules = leaf_rules(root, binary, scores)
    n, batch, _ = scores.shape
    by_start, by_end = scores.new_zeros(2, n + 1, batch, n + 1, len(root))
    starts, ends = scores.new_zeros(2, n + 1, batch, n + 1)
    chart = InsideChart(rules, lengths, by_start, by_end, starts, ends, scores.new_empty(0))
    for width in range(2, n + 1):
        value, scale = _widen(chart, width)
        largest = value.amax(-1, keepdim=True)
        scale = (scale + largest.log()).clamp_min(IMPOSSIBLE).squeeze(-1)
        value = value / largest.clamp_min(TINY)
        chart.by_start[: n - width + 1, :, width] = value
        chart.by_end[width:, :, n - width] = value
        chart.scale_by_start[: n - width + 1, :, width] = scale
        chart.scale_by_end[width:, :, n - width] = scale
    return chart._replace(log_marginal=_log_marginal(chart))


def _widen(chart: InsideChart, width: int) -> tuple[Tensor, Tensor]:
    """Sums over splits and rules for all spans of a width.

    Returns:
        `[n - w + 1, B, K]` and the log that it was divided by, `[n - w + 1, B, 1]`.
    """
    rules = chart.rules
    labels = len(rules.root)
    n = len(rules.emission)
    spans = n - width + 1
    left_word = rules.left_word[:spans]
    if width == 2:
        value = left_word[..., labels:] @ rules.emission[1:, :, :, None]
        return F.threshold(value.squeeze(-1), TINY, 0.0), torch.zeros_like(value[..., :1, 0])
    weight = split_weights(chart, width)
    scale = weight.amax(-1, keepdim=True)
    weight = (weight - scale).exp_()
    narrower = chart.by_start[: spans + 1, :, width - 1]
    value = left_word[..., :labels] @ (narrower[1:] * weight[..., :1])[..., None]
    value += rules.right_word[width - 1 :] @ (narrower[:-1] * weight[..., -1:])[..., None]
    value = value.squeeze(-1)
    if width > 3:
        pairs = child_pairs(chart, width, weight[..., 1:-1])
        value += F.linear(pairs.flatten(-2), rules.binary.flatten(1))
    return F.threshold(value, TINY, 0.0), scale


def child_pairs(chart: SpanChart, width: int, weight: Tensor) -> Tensor:
    """Sums the products of two nonterminal children over the splits.

    Args:
        chart: Filled for all smaller widths.
        width: w, at least 4.
        weight: `[n - w + 1, B, w - 3]`.

    Returns:
        `[n - w + 1, B, K, K]`, left child, right child.
    """
    n = chart.by_start.shape[0] - 1
    left = chart.by_start[: n - width + 1, :, 2 : width - 1] * weight[..., None]
    return left.transpose(-2, -1) @ chart.by_end[width:, :, n - width + 2 : n - 1]


def _log_marginal(chart: InsideChart) -> Tensor:
    """Reads log p(x) off a filled chart, `[B]`."""
    rows = torch.arange(len(chart.lengths), device=chart.lengths.device)
    whole = (chart.by_start[0, rows, chart.lengths] * chart.rules.root).sum(-1)
    scale = chart.scale_by_start[0, rows, chart.lengths]
    outer = log_outer(chart.rules, chart.lengths)
    return F.threshold(whole, TINY, 0.0).log() + scale + outer


def log_span_weights(chart: InsideChart) -> Tensor:
    """Reads off how probable each label is to derive each span of a filled chart.

    Returns:
        float `[B, n + 1, n + 1, K]`, nats, at [b, i, j] that of span i .. j, of two words or more;
        elsewhere finite rubbish.
    """
    n = chart.by_start.shape[0] - 1
    start = torch.arange(n + 1, device=chart.lengths.device)[:, None]
    width = (torch.arange(n + 1, device=start.device) - start).clamp_min(0)
    value, scale = chart.by_start[start, :, width], chart.scale_by_start[start, :, width]
    words = F.pad(chart.rules.log_word.cumsum(0), (0, 0, 1, 0))
    left_out = (width - 1)[..., None] * chart.rules.log_binary + words - words[:, None]
    log_weight = value.clamp_min(TINY).log() + (scale + left_out)[..., None]
    return log_weight.permute(2, 0, 1, 3)


def log_outer(rules: LeafRules, lengths: Tensor) -> Tensor:
    """What the chart leaves out because it multiplies every tree of a sentence, `[B]`, nats."""
    return log_factors(rules.log_root, rules.log_binary, rules.log_word, lengths)


def log_factors(log_root: Tensor, log_binary: Tensor, log_word: Tensor, lengths: Tensor) -> Tensor:
    """Adds up what a tree's root `[]`, rules `[]` and words `[n, B]` were divided by, `[B]`."""
    positions = torch.arange(len(log_word), device=lengths.device)[:, None]
    words = log_word.where(positions < lengths, 0.0).sum(0)
    return log_root + (lengths - 1) * log_binary + words
