"""How a labelled binary tree over words lies in a state, whoever builds it and in what order.

A binary tree over n words has n - 1 inner nodes, and each splits its words at another gap between
two words. So node g is the one that splits between words g and g + 1, and a state is three numbers
for each gap: the node's label, and its span from fencepost `left` to fencepost `right` (fencepost i
stands before word i, so the node's words are left .. right - 1, its children's spans are
(left, g + 1) and (g + 1, right), and `right - left` is the number of its words). Where there is no
node the three are -1. Words have no node and no label: preterminals are not part of the tree.

A top-down construction knows the label of some spans before it knows where they split. Such an open
span with label A waits at the first gap inside it, its label written as -2 - A.
"""

from typing import NamedTuple

import torch
from torch import Tensor

UNSET = -1
"""Stands where there is no node."""

OPEN = -2
"""An open span with label A has OPEN - A in the label's place."""


class TreeNodes(NamedTuple):
    """The nodes of trees, one for each of G gaps; complete trees have no open spans.

    Attributes:
        label: int64 `[B, G]`: A of a node, -2 - A of an open span, or -1.
        left: int64 `[B, G]`, the fencepost before its first word, or -1.
        right: int64 `[B, G]`, the fencepost behind its last word, or -1.
    """

    label: Tensor
    left: Tensor
    right: Tensor


def tree_nodes(state: Tensor) -> TreeNodes:
    """Reads states `[B, 3 G]` as nodes; views, not copies."""
    label, left, right = state.unflatten(-1, (3, -1)).unbind(-2)
    return TreeNodes(label, left, right)


def tree_state(nodes: TreeNodes) -> Tensor:
    """Writes nodes as states `[B, 3 G]`."""
    return torch.cat(nodes, dim=-1)


def put_node(state: Tensor, gap: Tensor, label: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Writes one node or open span in each state, or removes one where the three are -1.

    Args:
        state: int64 `[B, 3 G]`.
        gap: int64 `[B, 1]`, where it goes.
        label: int64 `[B, 1]`, coded as in `TreeNodes`.
        left: int64 `[B, 1]`, the fencepost before its first word.
        right: int64 `[B, 1]`, the fencepost behind its last word.

    Returns:
        int64 `[B, 3 G]`, a new tensor.
    """
    num_gaps = state.shape[1] // 3
    place = torch.cat([gap, gap + num_gaps, gap + 2 * num_gaps], dim=1)
    return state.scatter(1, place, torch.cat([label, left, right], dim=1))


def span_chart(nodes: TreeNodes) -> Tensor:
    """Finds nodes and open spans by their fenceposts.

    Args:
        nodes: G gaps.

    Returns:
        int64 `[B, G + 2, G + 2]`: at (left, right) the gap where the node or open span of that
        span lies, -1 where there is none.
    """
    batch, num_gaps = nodes.label.shape
    side = num_gaps + 2
    chart = nodes.label.new_full((batch, side * side), UNSET)
    # What is absent writes to (0, 0), which is no span, and is wiped out again.
    place = (nodes.left * side + nodes.right).where(nodes.label != UNSET, 0)
    chart.scatter_(1, place, torch.arange(num_gaps, device=chart.device).expand_as(place))
    chart[:, 0] = UNSET
    return chart.view(batch, side, side)


def parents(nodes: TreeNodes) -> tuple[Tensor, Tensor]:
    """Finds the nodes that nodes and open spans hang from.

    A span (left, right) can only have been split off at one of its two ends: at gap left - 1 it is
    the right child, at gap right - 1 the left one.

    Args:
        nodes: G gaps.

    Returns:
        Where each is the left child of a node and where it is the right child, the gap of that
        node, int64 `[B, G]` each; -1 where it is not, and where there is neither node nor span.
    """
    num_gaps = nodes.label.shape[-1]
    present = nodes.label != UNSET

    def where_parent(gap: Tensor, shared: Tensor) -> Tensor:
        """Picks `gap` `[B, G]` where a node lies there that has the same `shared` fencepost."""
        place = gap.clamp(0, num_gaps - 1)
        is_node = (nodes.label.gather(1, place) >= 0) & (place == gap) & present
        return gap.where(is_node & (shared.gather(1, place) == shared), UNSET)

    as_left = where_parent(nodes.right - 1, nodes.left)
    as_right = where_parent(nodes.left - 1, nodes.right)
    return as_left, as_right


def children(nodes: TreeNodes) -> tuple[Tensor, Tensor]:
    """Finds the children of nodes.

    Args:
        nodes: G gaps.

    Returns:
        The gaps where the left and the right child lie, split or open, int64 `[B, G]` each; -1
        where the child is a word or is missing, and for what is not a node.
    """
    num_gaps = nodes.label.shape[-1]
    chart = span_chart(nodes).flatten(1)
    split = torch.arange(1, num_gaps + 1, device=chart.device)
    is_node = nodes.label >= 0
    left = chart.gather(1, (nodes.left * (num_gaps + 2) + split).where(is_node, 0))
    right = chart.gather(1, (split * (num_gaps + 2) + nodes.right).where(is_node, 0))
    return left, right
