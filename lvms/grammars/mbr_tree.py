"""The tree that has the most right spans in expectation (Goodman 1996)."""

import torch
from torch import Tensor

from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees


@torch.no_grad()
def mbr_tree(marginals: Tensor, x: Tensor) -> Tensor:
    """Maximises the expected number of unlabelled spans that are in the true tree.

    Each span then gets its most probable label.

    Args:
        marginals: The posterior probability of each labelled span, `[B, N + 1, N + 1, K]`.
        x: int64 `[B, N]`, `PAD` behind the end.

    Returns:
        int64 `[B, 3 (N - 1)]`; see `gfn_envs.binary_tree`.
    """
    batch, side, _, labels = marginals.shape
    lengths = (x >= 0).sum(-1)
    label = marginals.argmax(-1)
    gain = marginals.sum(-1)
    best, left_width = torch.zeros_like(gain), torch.zeros_like(label)
    for width in range(2, int(lengths.max()) + 1):
        start = torch.arange(side - width, device=x.device)
        middle = start[:, None] + torch.arange(1, width, device=x.device)
        end = start + width
        both = best[:, start[:, None], middle] + best[:, middle, end[:, None]]
        inner, split = both.max(-1)
        best[:, start, end] = gain[:, start, end] + inner
        left_width[:, start, end] = split + 1

    def split_best(spans: OpenSpans) -> Splits:
        tree, start, end = spans.tree, spans.left, spans.left + spans.width
        chosen = left_width[tree, start, end]
        middle = start + chosen
        return Splits(chosen, label[tree, start, middle], label[tree, middle, end])

    root = label[torch.arange(batch, device=x.device), 0, lengths]
    return grow_trees(root, lengths, side - 2, labels, split_best)
