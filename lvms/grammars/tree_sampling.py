"""Exact trees from the posterior of a plain context-free grammar."""

from typing import NamedTuple

import torch
from torch import Tensor

from lvms.blocks import in_blocks
from lvms.grammars.inside_chart import SpanChart, inside_chart, refuse_impossible
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees


@torch.no_grad()
def sample(
    rules: GrammarRules, x: Tensor, k: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws trees from p(z | x), from the root down: where a span splits, then its children.

    Args:
        rules: Not conditioned on the parent.
        x: int64 `[B, N]`, `PAD` behind the end.
        k: The number of trees for each sentence.
        generator: Source of randomness.

    Returns:
        int64 `[B, k, 3 (N - 1)]`; see `gfn_envs.binary_tree`.

    Raises:
        UserError: If rules or x are not such, or the grammar does not derive a sentence.
    """
    chart = inside_chart(rules, x)
    refuse_impossible(chart.log_marginal)
    sentence = torch.arange(len(x), device=x.device).repeat_interleave(k)
    lengths = chart.lengths[sentence]
    root = draw(chart.rules.root * chart.by_start[0, sentence, lengths], generator)

    tables = SplitTables(
        chart.rules.binary,
        chart.rules.left_word[..., : rules.nonterminals],
        chart.rules.right_word,
        chart,
    )

    def split(spans: OpenSpans) -> Splits:
        row = sentence[spans.tree]
        rows = torch.stack([row, row, spans.left, spans.label], dim=-1)
        return draw_splits(tables, rows, spans.width, generator)

    return grow_trees(root, lengths, x.shape[1] - 1, rules.nonterminals, split).unflatten(
        0, (-1, k)
    )


class SplitTables(NamedTuple):
    """What splits are drawn from; L are left-hand sides, with their parents where these count.

    Attributes:
        binary: `[L, K, K]`.
        left_word: `[n, B, L, K]`, the left child is a word.
        right_word: `[n, B, L, K]`, the right child is.
        chart: Filled.
    """

    binary: Tensor
    left_word: Tensor
    right_word: Tensor
    chart: SpanChart


def draw_splits(
    tables: SplitTables, rows: Tensor, width: int, generator: torch.Generator | None
) -> Splits:
    """Draws where spans split and their children's labels, a block of spans at a time.

    Args:
        tables: The probabilities.
        rows: int64 `[T, 4]`, of each span the sentence, the place of its children in the chart,
            the left fencepost and the left-hand side.
        width: w, at least 3.
        generator: Source of randomness.
    """
    labels = tables.binary.shape[-1]
    held = labels * (labels + 3 * width)
    drawn = in_blocks(lambda block: _draw_splits(tables, block, width, generator), rows, held)
    return Splits(*drawn.unbind(-1))


def _draw_splits(
    tables: SplitTables, rows: Tensor, width: int, generator: torch.Generator | None
) -> Tensor:
    """Draws a block as int64 `[T, 3]`, the width of the left child, its label and the other's."""
    chart, n = tables.chart, len(tables.left_word)
    sentence, place, start, side = rows.unbind(-1)
    end = start + width
    left = chart.by_start[:, :, 2 : width - 1][start, place]
    right = chart.by_end[:, :, n - width + 2 : n - 1][end, place]
    first = tables.left_word[start, sentence, side]
    first = first * chart.by_start[start + 1, place, width - 1]
    last = tables.right_word[end - 1, sentence, side]
    last = last * chart.by_start[start, place, width - 1]
    binary = tables.binary[side]
    # For each split the weight of the right child's label; of the left one's, where it is a word.
    weight = torch.cat([first[:, None], left @ binary * right, last[:, None]], dim=1)
    scale = chart.scale_by_start[:, :, 1:width][start, place]
    scale = scale + chart.scale_by_end[:, :, n - width + 1 : n][end, place]
    share = (scale - scale.amax(-1, keepdim=True)).exp()
    split = draw(weight.sum(-1) * share, generator)
    spans = torch.arange(len(rows), device=rows.device)
    second = draw(weight[spans, split], generator)
    left_label = second
    if width > 3:
        inner = left[spans, (split - 1).clamp(0, width - 4)]
        left_label = draw(inner * binary[spans, :, second], generator)
        left_label = left_label.where(split < width - 2, second)
    return torch.stack([split + 1, left_label, second], dim=-1)
