r"""Small random changes of labelled binary trees: proposals for Markov chains.

A rotation takes an inner node and its parent and turns the edge between them over:

        b            a
       / \          / \
      a   3  <-->  1   b
     / \              / \
    1   2            2   3

The order of the words stays, so in a state (see `gfn_envs.binary_tree`) both nodes keep their gaps,
and nothing but their two spans changes. Any shape becomes any other by rotations.

Every move is as probable as the move back: a tree of n words has n - 2 such edges whatever its
shape, and turning the same edge over again undoes it. So no density ratio need be computed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.binary_tree import parents, tree_nodes


@dataclass(frozen=True)
class TreeMoves:
    """Rotates or relabels: together they lead from any labelled tree to any other.

    Attributes:
        labels: How many labels there are.
        rotations: The probability of a rotation, where there is an edge to turn.
    """

    labels: int
    rotations: float = 0.5

    def __call__(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Moves each tree once, int64 `[N, 3 G]`; as probable as the move back."""
        rotates = torch.rand(len(z), generator=generator, device=z.device) < self.rotations
        rotates &= num_nodes(z) > 1
        relabelled = relabel(z, self.labels, generator)
        return torch.where(rotates[:, None], rotate(z, generator), relabelled)


def rotate(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Turns a uniformly drawn edge of each tree over; trees of two words have none and stay.

    The upper node's label stays above and the lower one's below: under random grammars that was
    accepted twice as often as labels that go with their nodes.

    Args:
        z: Complete states, int64 `[N, 3 G]`.
        generator: Source of randomness.

    Returns:
        int64 `[N, 3 G]`, a new tensor.
    """
    lower = draw_edge(z, generator)
    upper = parent_of(z, lower)
    turned = turn_edge(z, lower, upper)
    label, row = tree_nodes(turned).label, torch.arange(len(z), device=z.device)
    label[row, lower], label[row, upper] = label[row, upper], label[row, lower]
    return torch.where((num_nodes(z) > 1)[:, None], turned, z)


def relabel(z: Tensor, labels: int, generator: torch.Generator | None = None) -> Tensor:
    """Gives a uniformly drawn node of each tree a uniformly drawn label.

    Args:
        z: Complete states, int64 `[N, 3 G]`.
        labels: How many labels there are.
        generator: Source of randomness.

    Returns:
        int64 `[N, 3 G]`, a new tensor.
    """
    z = z.clone()
    node = _below(num_nodes(z), generator)
    drawn = torch.randint(labels, node.shape, generator=generator, device=z.device)
    tree_nodes(z).label[torch.arange(len(z), device=z.device), node] = drawn
    return z


def num_nodes(z: Tensor) -> Tensor:
    """Counts the nodes of complete states `[N, 3 G]`, int64 `[N]`: the words less one."""
    return (tree_nodes(z).label >= 0).sum(-1)


def draw_edge(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws an edge between two nodes of each tree uniformly.

    Args:
        z: Complete states, int64 `[N, 3 G]`.
        generator: Source of randomness.

    Returns:
        The gap of the edge's lower node, int64 `[N]`; of trees of two words, which have no edge,
        that of the root.
    """
    nodes, count = tree_nodes(z), num_nodes(z)
    root = (nodes.right - nodes.left).argmax(-1)
    lower = _below(count - 1, generator)
    return torch.where(count > 1, lower + (lower >= root), root)


def parent_of(z: Tensor, node: Tensor) -> Tensor:
    """Finds the parents of nodes; the root is its own.

    Args:
        z: Complete states, int64 `[N, 3 G]`.
        node: Gaps, int64 `[N]`.

    Returns:
        Their parents' gaps, int64 `[N]`.
    """
    # A node is a child of one parent at most.
    parent = torch.maximum(*parents(tree_nodes(z))).gather(1, node[:, None]).squeeze(1)
    return parent.where(parent >= 0, node)


def turn_edge(z: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Turns an edge of each tree over; labels go with their nodes.

    Args:
        z: Complete states, int64 `[N, 3 G]`.
        lower: The gap of the edge's lower node, int64 `[N]`.
        upper: That of the upper one.

    Returns:
        int64 `[N, 3 G]`, a new tensor; what has no edge is no tree afterwards.
    """
    z = z.clone()
    _, left, right = tree_nodes(z)
    row = torch.arange(len(z), device=z.device)
    top_left, top_right = left[row, upper], right[row, upper]
    was_left_child = lower < upper
    left[row, upper] = torch.where(was_left_child, lower + 1, top_left)
    right[row, upper] = torch.where(was_left_child, top_right, lower + 1)
    left[row, lower], right[row, lower] = top_left, top_right
    return z


def _below(count: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws integers from 0 to count - 1, int64 `[N]`; 0 where count is 0."""
    uniform = torch.rand(len(count), generator=generator, device=count.device)
    # A float near 1 times a count may round up to it.
    return (uniform * count).long().minimum(count - 1).clamp_min(0)
