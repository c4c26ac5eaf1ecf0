"""Exact inference in plain context-free grammars; rules given the parent are `parent_inside`'s."""

from torch import Tensor

from lvms.grammars.differentiable_chart import LogMarginal
from lvms.grammars.inside_chart import InsideChart, inside, plain_inputs
from lvms.grammars.outside_chart import ExpectedCounts, expected_counts, outside, span_marginals
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
    return LogMarginal.apply(inside, _count, rules.root, rules.binary, scores, lengths)


def _count(chart: InsideChart, weight: Tensor) -> ExpectedCounts:
    """Counts rules in trees of the posterior, each sentence weighted by `weight` `[B]`."""
    return expected_counts(chart, outside(chart, weight))
