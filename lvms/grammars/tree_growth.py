"""Growing many trees from their roots down, however their spans choose where they split."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from gfn_envs.binary_tree import UNSET, TreeNodes, tree_state


class OpenSpans(NamedTuple):
    """Spans of one width whose labels are known, and which are to be split.

    Attributes:
        tree: int64 `[T]`, the tree that each is of.
        left: int64 `[T]`, the fencepost before its first word.
        label: int64 `[T]`.
        parent: int64 `[T]`, the label of the span that it came from, K for a whole sentence.
        width: The number of words of each.
    """

    tree: Tensor
    left: Tensor
    label: Tensor
    parent: Tensor
    width: int


class Splits(NamedTuple):
    """How spans split; the label of a child that is a word is of no account.

    Attributes:
        left_width: int64 `[T]`, the number of words of the left child.
        left_label: int64 `[T]`.
        right_label: int64 `[T]`.
    """

    left_width: Tensor
    left_label: Tensor
    right_label: Tensor


def grow_trees(
    root: Tensor,
    lengths: Tensor,
    num_gaps: int,
    labels: int,
    split: Callable[[OpenSpans], Splits],
) -> Tensor:
    """Splits spans until only words are left, all open spans of one width at a time.

    Args:
        root: int64 `[R]`, the label of each whole sentence.
        lengths: int64 `[R]`, the number of words of each tree, 2 to G + 1.
        num_gaps: G.
        labels: K, the label that stands for the start symbol.
        split: Splits at least one span of three or more words.

    Returns:
        Complete states, int64 `[R, 3 G]`; see `gfn_envs.binary_tree`.
    """
    nodes = TreeNodes(*root.new_full((3, len(root), num_gaps), UNSET))
    # What a span that waits at its left fencepost is. Narrower ones overwrite it, or lie beside it.
    width, label, parent = root.new_zeros((3, len(root), num_gaps + 1))
    width[:, 0], label[:, 0], parent[:, 0] = lengths, root, labels
    for words in range(num_gaps + 1, 1, -1):
        tree, left = (width == words).nonzero(as_tuple=True)
        if not len(tree):
            continue
        own = label[tree, left]
        middle = left + 1
        if words > 2:
            chosen = split(OpenSpans(tree, left, own, parent[tree, left], words))
            middle = left + chosen.left_width
            width[tree, left], width[tree, middle] = middle - left, left + words - middle
            label[tree, left], label[tree, middle] = chosen.left_label, chosen.right_label
            parent[tree, left] = parent[tree, middle] = own
        nodes.label[tree, middle - 1] = own
        nodes.left[tree, middle - 1] = left
        nodes.right[tree, middle - 1] = left + words
    return tree_state(nodes)
