"""Exact inference in plain context-free grammars; rules given the parent are `parent_inside`'s."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lvms.grammars.inside_chart import InsideChart, LeafRules, inside, plain_inputs
from lvms.grammars.outside_chart import expected_counts, outside, span_marginals
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_sampling import sample
from lvms.grammars.viterbi import viterbi

__all__ = ["log_marginal", "sample", "span_marginals", "viterbi"]


def log_marginal(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes log p(x), summed over all trees and their preterminals.

    It costs O(K^3 n^2 + K^2 n^3) for a sentence, and each sentence as much as the longest of the
    batch: batches of similar lengths are the cheapest.

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        float `[B]`, nats, differentiable once in all three tables; -inf, without a gradient, where
        the grammar does not derive the sentence.

    Raises:
        UserError: If rules or x are not such.
    """
    scores, lengths = plain_inputs(rules, x)
    return _LogMarginal.apply(rules.root, rules.binary, scores, lengths)


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
        counts = expected_counts(chart, outside(chart, weight))
        return *counts, None
