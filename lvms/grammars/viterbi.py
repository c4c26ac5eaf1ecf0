"""The likeliest tree of a plain context-free grammar, its preterminals summed out."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lvms.blocks import in_blocks
from lvms.grammars.inside_chart import (
    LeafRules,
    leaf_rules,
    log_outer,
    plain_inputs,
    refuse_impossible,
)
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees


class BestChart(NamedTuple):
    """The log-probability of the likeliest tree of each span and label, laid out as `InsideChart`.

    L are left-hand sides, labels with their parents where these count, and B' sentences likewise.

    Attributes:
        binary: `[L, K, K]`, log-probabilities.
        left_word: `[n, B, L, K]`, at [i, b, A, C]: the left child is word i, the right one C.
        right_word: `[n, B, L, K]`, at [i, b, A, B]: the right child is word i.
        by_start: `[n + 1, B', n + 1, K]`, at [i, b, w]: span i .. i + w.
        by_end: `[n + 1, B', n + 1, K]`, at [j, b, n - w]: span j - w .. j.
    """

    binary: Tensor
    left_word: Tensor
    right_word: Tensor
    by_start: Tensor
    by_end: Tensor


@torch.no_grad()
def viterbi(rules: GrammarRules, x: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the tree z of the highest p(x, z).

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        z, int64 `[B, 3 (N - 1)]`, and log p(x, z), float `[B]`, nats.

    Raises:
        UserError: If rules or x are not such, or the grammar does not derive a sentence.
    """
    scores, lengths = plain_inputs(rules, x)
    leaves = leaf_rules(rules.root, rules.binary, scores)
    chart = _best_chart(leaves)
    sentence = torch.arange(len(x), device=x.device)
    best, root = (chart.by_start[0, sentence, lengths] + leaves.root.log()).max(-1)
    log_joint = best + log_outer(leaves, lengths)
    refuse_impossible(log_joint)

    def split(spans: OpenSpans) -> Splits:
        rows = torch.stack([spans.tree, spans.tree, spans.left, spans.label], dim=-1)
        return best_splits(chart, rows, spans.width)

    return grow_trees(root, lengths, x.shape[1] - 1, rules.nonterminals, split), log_joint


def _best_chart(leaves: LeafRules) -> BestChart:
    """Fills the chart, all spans of a width at once."""
    n, batch, labels, _ = leaves.left_word.shape
    two = leaves.left_word[:-1, ..., labels:] @ leaves.emission[1:, :, :, None]
    by_start, by_end = two.new_full((2, n + 1, batch, n + 1, labels), -math.inf)
    left_word = leaves.left_word[..., :labels].log()
    chart = BestChart(leaves.binary.log(), left_word, leaves.right_word.log(), by_start, by_end)
    for width in range(2, n + 1):
        spans = n - width + 1
        if width == 2:
            value = two.squeeze(-1).log()
        else:
            narrower = chart.by_start[: spans + 1, :, width - 1].unsqueeze(-2)
            first = (chart.left_word[:spans] + narrower[1:]).amax(-1)
            last = (chart.right_word[width - 1 :] + narrower[:-1]).amax(-1)
            value = torch.maximum(first, last)
        if width > 3:
            pairs = best_pairs(chart, width)
            both = [(pairs + rule).amax((-2, -1)) for rule in chart.binary]
            value = torch.maximum(value, torch.stack(both, dim=-1))
        chart.by_start[:spans, :, width] = value
        chart.by_end[width:, :, n - width] = value
    return chart


def best_pairs(chart: BestChart, width: int) -> Tensor:
    """The best split for each two labels of children, `[n - w + 1, B', K, K]`.

    Args:
        chart: Filled for all smaller widths.
        width: w, at least 4.
    """
    n = len(chart.left_word)
    left = chart.by_start[: n - width + 1].unsqueeze(-1)
    right = chart.by_end[width:].unsqueeze(-2)
    pairs = left[:, :, 2] + right[:, :, n - width + 2]
    for inner in range(3, width - 1):
        torch.maximum(pairs, left[:, :, inner] + right[:, :, n - width + inner], out=pairs)
    return pairs


def best_splits(chart: BestChart, rows: Tensor, width: int) -> Splits:
    """Finds where spans split best and their children's labels, a block of spans at a time.

    Args:
        chart: The chart.
        rows: int64 `[T, 4]`, of each span the sentence, the place of its children in the chart,
            the left fencepost and the left-hand side.
        width: w, at least 3.
    """
    held = width * chart.by_start.shape[-1] ** 2
    best = in_blocks(lambda block: _best_splits(chart, block, width), rows, held)
    return Splits(*best.unbind(-1))


def _best_splits(chart: BestChart, rows: Tensor, width: int) -> Tensor:
    """Finds a block's as int64 `[T, 3]`, the width of the left child, its label and the other's."""
    n, labels = len(chart.left_word), chart.by_start.shape[-1]
    sentence, place, start, side = rows.unbind(-1)
    end = start + width
    left = chart.by_start[:, :, 2 : width - 1][start, place]
    right = chart.by_end[:, :, n - width + 2 : n - 1][end, place]
    inner = left[..., None] + right[..., None, :] + chart.binary[side][:, None]
    first = chart.left_word[start, sentence, side] + chart.by_start[start + 1, place, width - 1]
    last = chart.right_word[end - 1, sentence, side] + chart.by_start[start, place, width - 1]
    # The order of the candidates: a word first with C, then every split with (B, C), then a word
    # last with B; so what comes behind the first K can be counted from -K.
    best = torch.cat([first, inner.flatten(1), last], dim=-1).argmax(-1)
    behind = best - labels
    split = torch.where(behind < 0, 1, 2 + behind // labels**2)
    left_label = torch.where(split == width - 1, behind % labels, behind % labels**2 // labels)
    return torch.stack([split, left_label, best % labels], dim=-1)
