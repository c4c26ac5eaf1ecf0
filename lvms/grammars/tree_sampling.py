"""Exact trees from the posterior of a plain context-free grammar."""

import torch
from torch import Tensor

from lvms.blocks import in_blocks
from lvms.grammars.inside_chart import InsideChart, inside_chart, refuse_impossible
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

    def split(spans: OpenSpans) -> Splits:
        rows = torch.stack([sentence[spans.tree], spans.left, spans.label], dim=-1)
        held = rules.nonterminals * (rules.nonterminals + 3 * spans.width)
        drawn = in_blocks(
            lambda block: _draw_splits(chart, block, spans.width, generator), rows, held
        )
        return Splits(*drawn.unbind(-1))

    return grow_trees(root, lengths, x.shape[1] - 1, rules.nonterminals, split).unflatten(
        0, (-1, k)
    )


def _draw_splits(
    chart: InsideChart, rows: Tensor, width: int, generator: torch.Generator | None
) -> Tensor:
    """Draws where spans split and the children's labels.

    Args:
        chart: The inside chart.
        rows: int64 `[T, 3]`, sentence, left fencepost and label of each span.
        width: w, at least 3.
        generator: Source of randomness.

    Returns:
        int64 `[T, 3]`, the width of the left child, its label and the right child's.
    """
    rules = chart.rules
    n, labels = len(rules.emission), len(rules.root)
    sentence, start, label = rows.unbind(-1)
    end = start + width
    left = chart.by_start[:, :, 2 : width - 1][start, sentence]
    right = chart.by_end[:, :, n - width + 2 : n - 1][end, sentence]
    first = rules.left_word[..., :labels][start, sentence, label]
    first = first * chart.by_start[start + 1, sentence, width - 1]
    last = rules.right_word[end - 1, sentence, label]
    last = last * chart.by_start[start, sentence, width - 1]
    # For each split the weight of the right child's label; of the left one's, where it is a word.
    weight = torch.cat([first[:, None], left @ rules.binary[label] * right, last[:, None]], dim=1)
    scale = chart.scale_by_start[:, :, 1:width][start, sentence]
    scale = scale + chart.scale_by_end[:, :, n - width + 1 : n][end, sentence]
    share = (scale - scale.amax(-1, keepdim=True)).exp()
    split = draw(weight.sum(-1) * share, generator)
    spans = torch.arange(len(rows), device=rows.device)
    second = draw(weight[spans, split], generator)
    left_label = second
    if width > 3:
        inner = left[spans, (split - 1).clamp(0, width - 4)]
        left_label = draw(inner * rules.binary[label, :, second], generator)
        left_label = left_label.where(split < width - 2, second)
    return torch.stack([split + 1, left_label, second], dim=-1)
