"""Gibbs moves on trees under the rules of a grammar."""

from collections.abc import Callable

import torch
from torch import Tensor

from gfn_envs.binary_tree import children, tree_nodes
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.rules import GrammarRules
from lvms.grammars.tree_moves import draw_edge, parent_of, turn_edge

IMPOSSIBLE = -1000.0
"""Stands for log 0, nats, so that a chain finds its way out of an impossible tree."""


class TreeGibbs:
    """Redraws an edge of each tree: which way it is turned, and the labels of its two ends.

    Of a uniformly drawn edge the 2 K^2 possibilities are weighed with all the rest as it is, and
    one of them is drawn, so that p(z | x) is left invariant and nothing is rejected (Geman, Geman
    1984). Only the rules at the two ends and around them are looked up: the words' part in them is
    summed up beforehand, for as many moves as follow. A tree of two words redraws its one label.
    """

    def __init__(self, rules: GrammarRules, x: Tensor) -> None:
        """Sums preterminals out of every rule that may meet the sentences' words.

        Args:
            rules: The grammar; expansions may depend on the parent.
            x: The sentence of each chain, int64 `[B, N]`, -1 behind the end.
        """
        self.labels = num = rules.nonterminals
        self.conditioned_on_parent = rules.conditioned_on_parent
        self.root = rules.root.clamp_min(IMPOSSIBLE)
        binary = rules.binary.clamp_min(IMPOSSIBLE).reshape(-1, num, *rules.binary.shape[-2:])
        emission = rules.emission.clamp_min(IMPOSSIBLE)
        words, word = x.clamp_min(0).unique(return_inverse=True)
        emission = emission[:, words]
        # At gap g only word g can be a left child, and only word g + 1 a right one.
        # Chains of one sentence, and others, have many pairs of words in common.
        second = word[:, 1:]
        pairs, pair = (word[:, :-1] * len(words) + second).unique(return_inverse=True)
        left_word, right_word = pairs // len(words), pairs % len(words)
        both = _log_matmul(binary[..., num:, num:], emission)[..., right_word]
        tables = (
            binary[None, ..., :num, :num],
            _log_matmul(binary[..., :num, num:], emission).movedim(-1, 0),
            _log_matmul(binary[..., num:, :num].mT, emission).movedim(-1, 0),
            (both + emission[:, left_word]).logsumexp(-2).movedim(-1, 0),
        )
        # All in one table. A rule's place in it: where those of its kind begin, a block (the only
        # one, its word's, or its pair's where both children are words), and a stride for each
        # label.
        self._block = torch.stack([torch.zeros_like(pair), second, word[:, :-1], pair])
        self._table = torch.cat([table.flatten() for table in tables]).clamp_min(IMPOSSIBLE)
        size = [table.numel() for table in tables]
        block_size = [table[0].numel() for table in tables]
        by_parent = int(self.conditioned_on_parent)
        stride = [
            [by_parent * num**3, num**2, num, 1],
            [by_parent * num**2, num, 1, 0],
            [by_parent * num**2, num, 0, 1],
            [by_parent * num, 1, 0, 0],
        ]
        start = [sum(size[:kind]) for kind in range(4)]
        self._start = torch.tensor(start, device=x.device)
        self._block_size = torch.tensor(block_size, device=x.device)
        self._stride = torch.tensor(stride, device=x.device)

    @torch.no_grad()
    def move(
        self,
        z: Tensor,
        generator: torch.Generator | None = None,
        shape_score: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Redraws one edge of each tree.

        Args:
            z: The chains' trees, int64 `[B, 3 (N - 1)]`.
            generator: Source of randomness.
            shape_score: What shapes add to log p(x, z), trees `[B, 3 (N - 1)]` to float `[B]`.

        Returns:
            int64 `[B, 3 (N - 1)]`, a new tensor.
        """
        lower = draw_edge(z, generator)
        upper = parent_of(z, lower)
        turned = turn_edge(z, lower, upper)
        score = torch.stack(
            [self.score(z, lower, upper), self.score(turned, upper, lower)], dim=1
        )  # [B, 2, K, K]
        if shape_score is not None:
            shapes = shape_score(torch.cat([z, turned])).view(2, -1).T
            score = score + shapes[:, :, None, None]
        drawn = draw(score.flatten(1).softmax(-1), generator)
        is_turned = drawn >= self.labels**2
        z = torch.where(is_turned[:, None], turned, z)
        label, row = tree_nodes(z).label, torch.arange(len(z), device=z.device)
        label[row, lower.where(is_turned, upper)] = drawn // self.labels % self.labels
        label[row, upper.where(is_turned, lower)] = drawn % self.labels
        return z

    def score(self, z: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Scores all labels of the two ends of an edge, the rest of the tree as it is.

        Args:
            z: int64 `[B, 3 (N - 1)]`.
            lower: The gap of the edge's lower end, int64 `[B]`.
            upper: That of the upper one; the same where a tree of two words has no edge.

        Returns:
            log p(x, z) plus a constant of each row, float `[B, K, K]`: of the upper end's label by
            the lower one's.
        """
        tree = _Tree(z)
        labels = torch.arange(self.labels, device=z.device)
        above, below = labels[:, None], labels  # the two ends' labels, along the last dimensions
        parent, start_symbol = parent_of(z, upper), self.labels
        grandparent = parent_of(z, parent)
        is_root, is_below_root = _column(parent == upper), _column(grandparent == parent)
        of_parent = tree.label_at(parent).where(~is_root, start_symbol)
        of_grandparent = tree.label_at(grandparent).where(~is_below_root, start_symbol)
        rule_of_parent = self._rule(
            tree, parent, of_grandparent, tree.label_at(parent), upper, above
        )
        rule_of_lower = self._rule(tree, lower, above, below)
        has_edge = _column(upper != lower)
        one_label = torch.where(above == below, 0.0, -torch.inf)
        score = (
            torch.where(is_root, self.root[above], rule_of_parent)
            + self._rule(tree, upper, of_parent, above, lower, below)
            + torch.where(has_edge, rule_of_lower, one_label)
        )
        if self.conditioned_on_parent:
            for node, label in ((upper, above), (lower, below)):
                for child in tree.children_of(node):
                    rule = self._rule(tree, child.clamp_min(0), label, tree.label_at(child))
                    score = score + rule.where(_column((child >= 0) & (child != lower)), 0.0)
        return score

    def _rule(
        self,
        tree: "_Tree",
        node: Tensor,
        parent_label: Tensor,
        label: Tensor,
        child: Tensor | None = None,
        child_label: Tensor | None = None,
    ) -> Tensor:
        """Looks up the rules at nodes, for one or for every label of some that are part of them.

        Args:
            tree: The trees.
            node: Gaps, int64 `[B]`.
            parent_label: Of the nodes' parents; broadcasts to `[B, K, K]`, as all labels do.
            label: Of the nodes.
            child: A child of each whose label is not that in the tree, int64 `[B]`.
            child_label: What it is instead.

        Returns:
            Log-probabilities, float; broadcasts to `[B, K, K]`.
        """
        left, right = tree.children_of(node)
        kind = 2 * (left < 0) + (right < 0)
        block = self._block[kind, torch.arange(len(node), device=node.device), node]
        stride = self._stride[kind][:, None, None]
        index = _column(self._start[kind] + self._block_size[kind] * block)
        index = index + stride[..., 1] * label
        if self.conditioned_on_parent:
            index = index + stride[..., 0] * parent_label
        for which, gap in ((2, left), (3, right)):
            of_gap = tree.label_at(gap)
            if child is not None and child_label is not None:
                of_gap = torch.where(_column(gap == child), child_label, of_gap)
            index = index + stride[..., which] * of_gap
        return self._table[index]


class _Tree:
    """Trees `[B, 3 G]`, with their children found."""

    def __init__(self, z: Tensor) -> None:
        nodes = tree_nodes(z)
        self._label = nodes.label
        self._children = children(nodes)

    def label_at(self, gap: Tensor) -> Tensor:
        """Reads labels at gaps `[B]`, int64 `[B, 1, 1]`; anything where the gap is -1."""
        return _column(self._label.gather(1, gap.clamp_min(0)[:, None]).squeeze(1))

    def children_of(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the left and the right children of nodes `[B]`, int64 `[B]`; -1 for words."""
        left, right = (gaps.gather(1, node[:, None]).squeeze(1) for gaps in self._children)
        return left, right


def _column(numbers: Tensor) -> Tensor:
    """Puts numbers of rows `[B]` beside labels, `[B, 1, 1]`."""
    return numbers[:, None, None]


def _log_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The log of exp(a) exp(b), float `[..., I, W]` of finite `[..., I, P]` and `[P, W]`."""
    largest_a, largest_b = a.amax(-1, keepdim=True), b.amax(0)
    product = (a - largest_a).exp() @ (b - largest_b).exp()
    return product.log() + largest_a + largest_b
