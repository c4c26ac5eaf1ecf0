"""Exact inference in plain context-free grammars; rules given the parent are `parent_inside`'s."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lvms.grammars.inside_chart import InsideChart, LeafRules, inside
from lvms.grammars.outside_chart import expected_counts, outside
from lvms.grammars.rules import GrammarRules, sentence_lengths


def log_marginal(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes log p(x), summed over all trees and their preterminals.

    It costs O(K^3 n^2 + K^2 n^3) for a sentence, and each sentence as much as the longest.

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        float `[B]`, nats, differentiable once in all three tables; -inf, without a gradient, where
        the grammar does not derive the sentence.
    """
    lengths = sentence_lengths(x, rules.vocabulary)
    scores = word_scores(rules.emission, x[:, : int(lengths.max())])
    return _LogMarginal.apply(rules.root, rules.binary, scores, lengths)


def inside_chart(rules: GrammarRules, x: Tensor) -> InsideChart:
    """Fills the inside chart of sentences, as in `log_marginal` but outside autograd."""
    lengths = sentence_lengths(x, rules.vocabulary)
    with torch.no_grad():
        scores = word_scores(rules.emission, x[:, : int(lengths.max())])
        return inside(rules.root, rules.binary, scores, lengths)


def word_scores(emission: Tensor, x: Tensor) -> Tensor:
    """Looks up the log-probability of each word under each preterminal.

    Args:
        emission: `[P, V]`.
        x: int64 `[B, n]`.

    Returns:
        `[n, B, P]`; behind a sentence's end those of word 0.
    """
    return F.embedding(x.clamp_min(0).T, emission.T)


class _LogMarginal(torch.autograd.Function):
    """The inside algorithm; backwards, the outside algorithm and expected counts."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, binary: Tensor, scores: Tensor, lengths: Tensor) -> Tensor:
        """Fills the chart; see `inside`."""
        chart = inside(root, binary, scores, lengths)
        ctx.save_for_backward(*chart.rules, *chart[1:])
        return chart.log_marginal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Counts rules; see `expected_counts`."""
        saved = ctx.saved_tensors
        parts = len(LeafRules._fields)
        chart = InsideChart(LeafRules(*saved[:parts]), *saved[parts:])
        counts = expected_counts(chart, outside(chart, weight), weight)
        return *counts, None
