"""Exact inference in grammars whose rules depend on the parent; plain ones are `inside`'s."""

import torch
from torch import Tensor

from lvms.grammars.differentiable_chart import LogMarginal
from lvms.grammars.inside_chart import refuse_impossible
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.outside_chart import ExpectedCounts
from lvms.grammars.parent_chart import (
    ParentChart,
    fill_parent_chart,
    parent_chart,
    parent_inputs,
)
from lvms.grammars.parent_outside import (
    parent_expected_counts,
    parent_outside,
    span_marginals,
)
from lvms.grammars.parent_viterbi import viterbi
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees
from lvms.grammars.tree_sampling import SplitTables, draw_splits

__all__ = ["log_marginal", "sample", "span_marginals", "viterbi"]


def log_marginal(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes log p(x), summed over all trees and their preterminals.

    It costs O(K^4 n^2 + K^3 n^3) for a sentence, and each sentence as much as the longest of the
    batch: batches of similar lengths are the cheapest.

    Args:
        rules: Conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        float `[B]`, nats, differentiable once in all three tables; -inf, without a gradient, where
        the grammar does not derive the sentence.

    Raises:
        UserError: If rules or x are not such.
    """
    scores, lengths = parent_inputs(rules, x)
    return LogMarginal.apply(fill_parent_chart, _count, rules.root, rules.binary, scores, lengths)


@torch.no_grad()
def sample(
    rules: GrammarRules, x: Tensor, k: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws trees from p(z | x), from the root down: where a span splits, then its children.

    Args:
        rules: Conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.
        k: The number of trees for each sentence.
        generator: Source of randomness.

    Returns:
        int64 `[B, k, 3 (N - 1)]`; see `gfn_envs.binary_tree`.

    Raises:
        UserError: If rules or x are not such, or the grammar does not derive a sentence.
    """
    chart = parent_chart(rules, x)
    refuse_impossible(chart.log_marginal)
    labels = rules.nonterminals
    sentence = torch.arange(len(x), device=x.device).repeat_interleave(k)
    root = draw((chart.rules.root * chart.top)[sentence], generator)
    tables = SplitTables(
        chart.rules.binary.flatten(0, 1),
        chart.rules.left_word.flatten(2, 3),
        chart.rules.right_word.flatten(2, 3),
        chart,
    )

    def split(spans: OpenSpans) -> Splits:
        row = sentence[spans.tree]
        place, side = row * labels + spans.label, spans.label * (labels + 1) + spans.parent
        rows = torch.stack([row, place, spans.left, side], dim=-1)
        return draw_splits(tables, rows, spans.width, generator)

    z = grow_trees(root, chart.lengths[sentence], x.shape[1] - 1, labels, split)
    return z.unflatten(0, (-1, k))


def _count(chart: ParentChart, weight: Tensor) -> ExpectedCounts:
    """Counts rules in trees of the posterior, each sentence weighted by `weight` `[B]`."""
    return parent_expected_counts(chart, parent_outside(chart, weight))
