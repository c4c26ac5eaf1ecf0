"""Labelled binary trees as `nltk.Tree`, which parsers and treebanks read and write."""

import reprlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfn_envs.binary_tree import UNSET, TreeNodes, tree_nodes, tree_state
from gfn_envs.errors import MissingPackageError, UserError

if TYPE_CHECKING:
    from nltk.tree import Tree


def to_nltk(state: Tensor, num_words: int) -> "Tree":
    """Turns one complete tree into an `nltk.Tree`.

    Args:
        state: int64 `[3 G]`; see `gfn_envs.binary_tree`.
        num_words: n, at least 2.

    Returns:
        The tree; labels are "0", "1", ..., leaves the words' positions as strings.

    Raises:
        UserError: If the tree is not complete, or nltk is not installed.
    """
    tree_class = _tree_class()
    nodes = zip(*(part.tolist() for part in tree_nodes(state)), strict=True)
    found = [(right - left, left, gap + 1, right, label)
             for gap, (label, left, right) in enumerate(nodes) if label >= 0]  # fmt: skip
    if len(found) != num_words - 1:
        raise UserError(
            f"Only a complete tree can become an nltk.Tree: this one has {len(found)} of the "
            f"{num_words - 1} nodes over {num_words} words; draw it with render instead."
        )
    subtrees: dict[tuple[int, int], Tree | str] = {(i, i + 1): str(i) for i in range(num_words)}
    for _, left, split, right, label in sorted(found):  # narrow ones first
        parts = [subtrees[left, split], subtrees[split, right]]
        subtrees[left, right] = tree_class(str(label), parts)
    return subtrees[0, num_words]


def from_nltk(tree: "Tree", num_words: int, max_words: int, labels: int) -> Tensor:
    """Undoes `to_nltk`.

    Args:
        tree: Its result, or any other binary tree of that form.
        num_words: n, at least 2.
        max_words: N.
        labels: K.

    Returns:
        int64 `[3 (N - 1)]`.

    Raises:
        UserError: If it is no such tree, or nltk is not installed.
    """
    tree_class = _tree_class()
    if not isinstance(tree, tree_class):
        raise UserError(f"A structure of this environment is an nltk.Tree; got {_show(tree)}.")
    leaves = tree.leaves()
    if leaves != [str(i) for i in range(num_words)]:
        raise UserError(
            f"The tree's leaves must be the words' positions '0' to '{num_words - 1}' as strings, "
            f"from left to right; got {_show(leaves)}."
        )
    numbers = {str(label): label for label in range(labels)}
    state = torch.full((3, max_words - 1), UNSET)
    todo = [(tree, 0)]  # subtrees, with the fencepost that each starts at
    while todo:
        node, left = todo.pop()
        if len(node) != 2:
            raise UserError(f"Every node of the tree needs two children; got {_show(node)}.")
        if node.label() not in numbers:
            raise UserError(
                f"The tree's labels must be '0' to '{labels - 1}' as strings; got {node.label()!r}."
            )
        widths = [len(child.leaves()) if isinstance(child, tree_class) else 1 for child in node]
        split, right = left + widths[0], left + sum(widths)
        state[:, split - 1] = torch.tensor([numbers[node.label()], left, right])
        starts = zip(node, (left, split), strict=True)
        todo += [(child, start) for child, start in starts if isinstance(child, tree_class)]
    return tree_state(TreeNodes(*state))


def _tree_class() -> Any:
    """Imports `nltk.Tree`, or says how to install it."""
    try:
        from nltk.tree import Tree
    except ImportError as error:
        raise MissingPackageError(
            "Trees as objects need the package nltk: pip install 'gflownet-em[grammar]'."
        ) from error
    return Tree


def _show(value: object) -> str:
    """Writes a value in one short line."""
    return " ".join(reprlib.repr(value).split())
