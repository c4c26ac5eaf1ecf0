"""The likeliest tree under rules given the parent, its preterminals summed out."""

import math

import torch
from torch import Tensor

from lvms.grammars.inside_chart import log_factors, refuse_impossible
from lvms.grammars.parent_chart import ParentRules, parent_inputs, parent_rules
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees
from lvms.grammars.viterbi import BestChart, best_pairs, best_splits


@torch.no_grad()
def viterbi(rules: GrammarRules, x: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the tree z of the highest p(x, z).

    Args:
        rules: Conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        z, int64 `[B, 3 (N - 1)]`, and log p(x, z), float `[B]`, nats.

    Raises:
        UserError: If rules or x are not such, or the grammar does not derive a sentence.
    """
    scores, lengths = parent_inputs(rules, x)
    leaves = parent_rules(rules.root, rules.binary, scores)
    labels = rules.nonterminals
    chart, top = _best_chart(leaves, lengths)
    best, root = (top + leaves.root.log()).max(-1)
    outer = log_factors(leaves.log_root, leaves.log_binary, leaves.log_word, lengths)
    refuse_impossible(best + outer)

    def split(spans: OpenSpans) -> Splits:
        place = spans.tree * labels + spans.label
        side = spans.label * (labels + 1) + spans.parent
        rows = torch.stack([spans.tree, place, spans.left, side], dim=-1)
        return best_splits(chart, rows, spans.width)

    return grow_trees(root, lengths, x.shape[1] - 1, labels, split), best + outer


def _best_chart(leaves: ParentRules, lengths: Tensor) -> tuple[BestChart, Tensor]:
    """Fills the chart, all spans of a width at once; and for whole sentences `[B, K]`."""
    n, batch, labels, parents, _ = leaves.left_word.shape
    left_word, right_word = leaves.left_word.log(), leaves.right_word.log()
    shape = (2, n + 1, batch * labels, n + 1, labels)
    by_start, by_end = left_word.new_full(shape, -math.inf)
    top = left_word.new_full((batch, labels), -math.inf)
    chart = BestChart(
        leaves.binary.log().flatten(0, 1),
        left_word.flatten(2, 3),
        right_word.flatten(2, 3),
        by_start,
        by_end,
    )
    for width in range(2, n + 1):
        spans = n - width + 1
        if width == 2:
            value = leaves.two_words.log()
        else:
            narrower = by_start[: spans + 1, :, width - 1].unflatten(1, (batch, labels, 1))
            first = (left_word[:spans] + narrower[1:]).amax(-1)
            last = (right_word[width - 1 :] + narrower[:-1]).amax(-1)
            value = torch.maximum(first, last)
        if width > 3:
            pairs = best_pairs(chart, width).unflatten(1, (batch, labels)).unbind(2)
            both = [
                (pairs[side // parents] + rule).amax((-2, -1))
                for side, rule in enumerate(chart.binary)
            ]
            value = torch.maximum(value, torch.stack(both, -1).view_as(value))
        # By the parent first, then by the label.
        value = value.transpose(-2, -1)
        by_start[:spans, :, width] = value[:, :, :labels].flatten(1, 2)
        by_end[width:, :, n - width] = by_start[:spans, :, width]
        is_whole = lengths == width
        top[is_whole] = value[0, is_whole, -1]
    return chart, top
