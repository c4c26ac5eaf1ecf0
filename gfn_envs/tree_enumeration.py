"""Every labelled binary tree over some words, listed without a search."""

import math

import torch
from torch import Tensor

from gfn_envs.binary_tree import TreeNodes


def num_trees(num_words: int, labels: int) -> int:
    """Counts the trees: Catalan's number of shapes, times the labels of the inner nodes.

    Args:
        num_words: n, at least 1.
        labels: K.

    Returns:
        C(n - 1) K^(n - 1), where C(m) = (2 m)! / (m! (m + 1)!).
    """
    inner = num_words - 1
    return math.comb(2 * inner, inner) // (inner + 1) * labels**inner


def every_tree(num_words: int, labels: int, device: torch.device | str = "cpu") -> TreeNodes:
    """Lists the trees.

    Args:
        num_words: n, at least 1.
        labels: K.
        device: Where to list them.

    Returns:
        n - 1 gaps, one row for each of the `num_trees`: shapes in ascending order of the root's
        gap, then of the left child's shape, then of the right one's; labels change fastest, and
        the last gap's fastest of all.
    """
    inner = num_words - 1
    left, right = _every_shape(num_words, device)
    number = torch.arange(labels**inner, device=device)[:, None]
    # The label of gap g is digit g of the labelling's number in base K.
    digit = torch.tensor([labels ** (inner - 1 - g) for g in range(inner)], device=device)
    label = number // digit.long() % labels
    return TreeNodes(
        label.repeat(len(left), 1),
        left.repeat_interleave(len(label), 0),
        right.repeat_interleave(len(label), 0),
    )


def _every_shape(num_words: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Lists the trees without labels: left and right fenceposts, int64 `[C(n - 1), n - 1]` each."""
    none = torch.zeros(1, 0, dtype=torch.int64, device=device)
    shapes = [(none, none)]  # over 1, 2, ... words
    for width in range(2, num_words + 1):
        found = []
        for split in range(1, width):
            firsts, seconds = shapes[split - 1], shapes[width - split - 1]
            # Every shape left of the split beside every one right of it.
            first = torch.arange(len(firsts[0]), device=device)
            first = first.repeat_interleave(len(seconds[0]))
            second = torch.arange(len(seconds[0]), device=device).repeat(len(firsts[0]))
            root = torch.zeros(len(first), 1, dtype=torch.int64, device=device)
            found.append(
                [
                    torch.cat([ends_1[first], root + end, ends_2[second] + split], dim=1)
                    for ends_1, ends_2, end in zip(firsts, seconds, (0, width), strict=True)
                ]
            )
        left, right = (torch.cat(ends) for ends in zip(*found, strict=True))
        shapes.append((left, right))
    return shapes[-1]
