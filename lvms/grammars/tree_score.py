"""Log-probabilities of trees under a grammar's rules, all nodes of all sentences at once."""

import torch
from torch import Tensor

from gfn_envs.binary_tree import OPEN, TreeNodes, children, parents, tree_nodes
from lvms.grammars.rules import GrammarRules


def tree_log_prob(rules: GrammarRules, x: Tensor, state: Tensor) -> Tensor:
    """Sums the scores of all rules of a tree that are known, preterminals summed out.

    On complete trees this is log p(x, z). In a partial one a rule counts once the labels of its
    node, of its children and, where the grammar asks for it, of its parent are known; a child of
    one word has no label to wait for. The root's own factor counts once the sentence has a label.

    Args:
        rules: The grammar.
        x: Words, int64 `[B, N]`, -1 behind the end.
        state: Trees of `BottomUpTree` or `TopDownTree`, complete or not, int64 `[B, 3 (N - 1)]`.

    Returns:
        float `[B]`, nats, differentiable in the rules.
    """
    return node_scores(rules, x, state).sum(-1)


def node_scores(rules: GrammarRules, x: Tensor, state: Tensor) -> Tensor:
    """Computes what each node's rule adds to `tree_log_prob`, and the root's own factor.

    Args:
        rules: The grammar.
        x: Words, int64 `[B, N]`, -1 behind the end.
        state: int64 `[B, 3 (N - 1)]`.

    Returns:
        float `[B, N]`, nats, differentiable in the rules: at gap g the rule of its node, 0 where
        it is not known or there is none; last the root's factor.
    """
    nodes = tree_nodes(state)
    label = torch.where(nodes.label <= OPEN, OPEN - nodes.label, nodes.label)
    length = (x >= 0).sum(-1, keepdim=True)
    is_sentence = (nodes.left == 0) & (nodes.right == length)
    root_score = rules.root[label.clamp_min(0)].where(is_sentence, 0.0).sum(-1, keepdim=True)
    place, score = _node_scores(rules, x, nodes, label, is_sentence)
    each = score.new_zeros(label.numel()).index_add(0, place, score)
    return torch.cat([each.view_as(label), root_score], dim=1)


def _node_scores(
    rules: GrammarRules, x: Tensor, nodes: TreeNodes, label: Tensor, is_sentence: Tensor
) -> tuple[Tensor, Tensor]:
    """The places of known rules in a flat `[B G]`, int64 `[R]`, and their scores, float `[R]`."""
    left_gap, right_gap = children(nodes)
    gap = torch.arange(label.shape[1], device=label.device)
    left_is_word, right_is_word = nodes.left == gap, nodes.right == gap + 2
    left, right = _label_at(label, left_gap), _label_at(label, right_gap)
    known = (nodes.label >= 0) & (left_is_word | (left >= 0)) & (right_is_word | (right >= 0))
    # A rule's place among the K, or (K + 1) K, left-hand sides.
    side = label
    num_labels, num_symbols = rules.binary.shape[-3:-1]
    if rules.binary.ndim == 4:
        # A node is a child of one parent at most.
        parent = _label_at(label, torch.maximum(*parents(nodes)))
        parent = parent.where(~is_sentence, num_labels)
        known &= parent >= 0
        side = parent * num_labels + label
    binary = rules.binary.reshape(-1, num_symbols, num_symbols)
    emission = rules.emission.T
    places, scores = [], []
    for first_is_word, second_is_word in ((0, 0), (0, 1), (1, 0), (1, 1)):
        here = known & (left_is_word == first_is_word) & (right_is_word == second_is_word)
        row, place = here.nonzero(as_tuple=True)
        at = side[row, place]
        first = x[row, place] if first_is_word else left[row, place]
        second = x[row, place + 1] if second_is_word else right[row, place]
        places.append(row * label.shape[1] + place)
        if first_is_word and second_is_word:
            table = binary[:, num_labels:, num_labels:].flatten(1).index_select(0, at)
            table = table.unflatten(1, (num_symbols - num_labels, -1))
            pairs = emission.index_select(0, first)[:, :, None]
            pairs = pairs + emission.index_select(0, second)[:, None]
            scores.append((table + pairs).flatten(1).logsumexp(-1))
        elif second_is_word:
            table = binary[:, :num_labels, num_labels:].flatten(0, 1)
            table = table.index_select(0, at * num_labels + first)
            scores.append((table + emission.index_select(0, second)).logsumexp(-1))
        elif first_is_word:
            table = binary[:, num_labels:, :num_labels].mT.flatten(0, 1)
            table = table.index_select(0, at * num_labels + second)
            scores.append((table + emission.index_select(0, first)).logsumexp(-1))
        else:
            index = (at * num_symbols + first) * num_symbols + second
            scores.append(binary.flatten().index_select(0, index))
    return torch.cat(places), torch.cat(scores)


def _label_at(label: Tensor, gap: Tensor) -> Tensor:
    """The labels at gaps, -1 where the gap is -1 or has none."""
    return label.gather(1, gap.clamp_min(0)).where(gap >= 0, -1)
