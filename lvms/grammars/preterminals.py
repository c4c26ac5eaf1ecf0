"""The preterminals of words given the tree, which the trees themselves leave out."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gfn_envs.binary_tree import children, parents, tree_nodes
from lvms.blocks import in_blocks
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.rules import PAD, GrammarRules


def sample_preterminals(
    rules: GrammarRules, x: Tensor, z: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draws preterminals from p(preterminals | x, z).

    Args:
        rules: Conditioned on the parent or not.
        x: int64 `[B, N]`, `PAD` behind the end.
        z: Complete trees of these sentences that are possible, int64 `[B, 3 (N - 1)]`.
        generator: Source of randomness.

    Returns:
        int64 `[B, N]`, 0 to P - 1, `PAD` behind the end.
    """
    return _choose_preterminals(
        rules, x, z, lambda log_weight: draw(log_weight.softmax(-1), generator)
    )


def likeliest_preterminals(rules: GrammarRules, x: Tensor, z: Tensor) -> Tensor:
    """Finds the preterminals of the highest p(preterminals | x, z).

    Args:
        rules: Conditioned on the parent or not.
        x: int64 `[B, N]`, `PAD` behind the end.
        z: Complete trees of these sentences that are possible, int64 `[B, 3 (N - 1)]`.

    Returns:
        int64 `[B, N]`, 0 to P - 1, `PAD` behind the end.
    """
    return _choose_preterminals(rules, x, z, partial(torch.argmax, dim=-1))


@torch.no_grad()
def _choose_preterminals(
    rules: GrammarRules, x: Tensor, z: Tensor, choose: Callable[[Tensor], Tensor]
) -> Tensor:
    """Chooses each node's preterminals: given the labels, the nodes are independent.

    Args:
        rules: The grammar.
        x: int64 `[B, N]`.
        z: int64 `[B, 3 (N - 1)]`.
        choose: From the log-weights `[T, C]` of T choices one of each, int64 `[T]`.
    """
    labels, words = rules.nonterminals, rules.preterminals
    nodes = tree_nodes(z)
    left, right = children(nodes)
    rule = nodes.label
    if rules.conditioned_on_parent:
        parent = torch.maximum(*parents(nodes))  # a node is a child of one parent at most
        above = nodes.label.gather(1, parent.clamp_min(0)).where(parent >= 0, labels)
        rule = rule + labels * above
    binary = rules.binary.flatten(0, -3)
    emission = rules.emission.T
    is_node = nodes.label >= 0
    tags = torch.full_like(x, PAD)

    def both(rows: Tensor) -> Tensor:
        rule, first, second = rows.unbind(-1)
        pair = binary[rule, labels:, labels:] + emission[first][:, :, None]
        return choose((pair + emission[second][:, None]).flatten(1))

    # Node g has word g on its left and word g + 1 on its right, where these are its children.
    sentence, gap = (is_node & (left < 0) & (right < 0)).nonzero(as_tuple=True)
    first, second = x[sentence, gap], x[sentence, gap + 1]
    pair = in_blocks(both, torch.stack([rule[sentence, gap], first, second], -1), words**2)
    tags[sentence, gap], tags[sentence, gap + 1] = pair // words, pair % words

    sentence, gap = (is_node & (left < 0) & (right >= 0)).nonzero(as_tuple=True)
    other = nodes.label[sentence, right[sentence, gap]]
    weight = binary[rule[sentence, gap], labels:, other] + emission[x[sentence, gap]]
    tags[sentence, gap] = choose(weight)

    sentence, gap = (is_node & (left >= 0) & (right < 0)).nonzero(as_tuple=True)
    other = nodes.label[sentence, left[sentence, gap]]
    weight = binary[rule[sentence, gap], other, labels:] + emission[x[sentence, gap + 1]]
    tags[sentence, gap + 1] = choose(weight)
    return tags
