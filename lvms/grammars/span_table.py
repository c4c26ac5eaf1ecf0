"""The spans of many sentences as flat tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gfn_envs.binary_tree import UNSET, tree_nodes
from lvms.data.parsed_sentence import Spans


class SpanTable(NamedTuple):
    """T spans of B sentences.

    Attributes:
        row: Which sentence it is of, int64 `[T]`.
        left: The fencepost before its first word, int64 `[T]`.
        right: The fencepost behind its last word, int64 `[T]`.
    """

    row: Tensor
    left: Tensor
    right: Tensor


def gold_table(gold: Sequence[Spans]) -> SpanTable:
    """Lists the gold spans of sentences, one sentence after the other, as they are."""
    flat = [(row, span[0], span[1]) for row, spans in enumerate(gold) for span in spans]
    return SpanTable(*torch.tensor(flat, dtype=torch.int64).view(-1, 3).unbind(-1))


def tree_table(z: Tensor) -> SpanTable:
    """Lists the spans of the nodes of trees `[B, S]`, the whole sentences among them."""
    nodes = tree_nodes(z)
    row, gap = (nodes.label != UNSET).nonzero(as_tuple=True)
    return SpanTable(row, nodes.left[row, gap], nodes.right[row, gap])


def num_words(z: Tensor) -> Tensor:
    """Counts the words under complete trees `[B, S]`, int64 `[B]`."""
    return tree_nodes(z).right.amax(-1)
