"""Policies that build trees from the top down, each open span by itself."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms.policy import Memory, Policy
from gfn_envs.binary_tree import OPEN, UNSET, TreeNodes, children, parents, tree_nodes
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv
from gfn_envs.top_down_tree import TopDownTree
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.tree_growth import OpenSpans, Splits, grow_trees


class Spans(NamedTuple):
    """Labelled spans, all of one width.

    Attributes:
        row: int64 `[M]`, the observation of each.
        left: int64 `[M]`, the fencepost before its first word.
        label: int64 `[M]`.
        parent: int64 `[M]`, the label of the span that it came from, K for a whole sentence.
        width: The number of words of each, at least 2.
    """

    row: Tensor
    left: Tensor
    label: Tensor
    parent: Tensor
    width: int


class LabelledSpans(NamedTuple):
    """Labelled spans of any width.

    Attributes:
        row: int64 `[M]`, the observation of each.
        left: int64 `[M]`, the fencepost before its first word.
        right: int64 `[M]`, the fencepost behind its last word.
        label: int64 `[M]`.
        parent: int64 `[M]`; see `Spans`.
    """

    row: Tensor
    left: Tensor
    right: Tensor
    label: Tensor
    parent: Tensor


class Expansion(ABC):
    """How M spans of w words, three or more, split and what labels their parts get.

    Attributes:
        split_logits: float `[M, w - 1]`; split s leaves s + 1 words on the left.
    """

    split_logits: Tensor

    @abstractmethod
    def left_logits(self, split: Tensor) -> Tensor:
        """Scores labels of the left part, float `[M, K]`.

        Args:
            split: int64 `[M]`. Where it leaves one word on the left, the result means nothing.
        """

    @abstractmethod
    def right_logits(self, split: Tensor, left_label: Tensor) -> Tensor:
        """Scores labels of the right part, float `[M, K]`.

        Args:
            split: int64 `[M]`. Where it leaves one word on the right, the result means nothing.
            left_label: int64 `[M]`; of no account where it leaves one word on the left.
        """


class SpanPolicy(Policy):
    """P_F over `TopDownTree` where what a span becomes depends on x, its label and its parent's.

    So all open spans of all sentences are expanded together, those of one width at a time, however
    deep the trees: n - 1 rounds in place of 2 (n - 1) steps. What lies elsewhere in the tree is
    not seen; under a grammar it does not matter, under a prior over whole shapes it does.

    Subclasses say how a whole sentence is labelled (`root_logits`) and how spans are expanded
    (`expand_all`). The last entry of what `encode` returns is the sentences' lengths, int64 `[B]`.

    Attributes:
        env: The environment.
    """

    env: TopDownTree

    def __init__(self, env: LatentEnv) -> None:
        """Takes the environment.

        Raises:
            UserError: If it is no `TopDownTree`.
        """
        super().__init__()
        if not isinstance(env, TopDownTree):
            raise UserError(
                f"A {type(self).__name__} builds trees from the top down; make the grammar with "
                f'tree="top-down" (its trees are built in a {type(env).__name__}).'
            )
        self.env = env

    @abstractmethod
    def root_logits(self, memory: Memory) -> Tensor:
        """Scores labels of the whole sentence, float `[B, K]`."""

    @abstractmethod
    def expand_all(self, memory: Memory, groups: Sequence[Spans]) -> Sequence[Expansion]:
        """Scores what groups of spans of three or more words become, each of a width of its own."""

    def expand(self, memory: Memory, spans: Spans) -> Expansion:
        """Scores what spans of one width become; see `expand_all`."""
        return self.expand_all(memory, [spans])[0]

    @abstractmethod
    def span_flow(self, memory: Memory, spans: LabelledSpans) -> Tensor:
        """Estimates the log of the sum of what all trees over each span add to p(x, z).

        Given its label and its parent's; the state flow of detailed balance is the sum over open
        spans (see `SpanBalance`).

        Returns:
            float `[M]`, nats.
        """

    @abstractmethod
    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x), float `[B]`, nats; see `HasLogPartition`."""

    # -- whole trees ----------------------------------------------------------------------------

    @torch.no_grad()
    def draw_structures(
        self,
        memory: Memory,
        rows: Tensor,
        generator: torch.Generator | None = None,
        epsilon: float = 0.0,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Draws a tree for each of `rows` `[N]`; see `WholeStructures`."""

        def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
            log_prob = logits.log_softmax(-1)
            behaviour = log_prob
            if temperature != 1.0:
                behaviour = (behaviour / temperature).log_softmax(-1)
            probability = behaviour.exp()
            if epsilon > 0.0:
                probability = torch.lerp(
                    probability, torch.full_like(probability, 1 / logits.shape[-1]), epsilon
                )
            chosen = draw(probability, generator)
            return chosen, _pick(log_prob, chosen)

        places, parts = [rows.new_empty(0)], [memory[0].new_empty(0, 3)]

        def split(spans: OpenSpans) -> Splits:
            row = rows[spans.tree]
            expansion = self.expand(
                memory, Spans(row, spans.left, spans.label, spans.parent, spans.width)
            )
            where, log_split = choose(expansion.split_logits)
            left_label, log_left = choose(expansion.left_logits(where))
            right_label, log_right = choose(expansion.right_logits(where, left_label))
            places.append(spans.tree * self.env.num_gaps + spans.left + where)
            parts.append(_expansion_terms(where, spans.width, log_split, log_left, log_right))
            return Splits(where + 1, left_label, right_label)

        root, log_root = choose(self.root_logits(memory).index_select(0, rows))
        lengths = memory[-1][rows]
        z = grow_trees(root, lengths, self.env.num_gaps, self.env.labels, split)
        return z, self._in_order(z, log_root, torch.cat(places), torch.cat(parts))

    def score_structures(self, z: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Computes log P_F of each action, float `[max_steps, N]`; see `WholeStructures`."""
        nodes = tree_nodes(z)
        left_gap, right_gap = children(nodes)
        left_label, right_label = _label_at(nodes, left_gap), _label_at(nodes, right_gap)
        places, parts = [rows.new_empty(0)], [memory[0].new_empty(0, 3)]
        wide = self._wide_nodes(z, rows)
        expansions = self.expand_all(memory, [spans for _, _, spans in wide])
        for (tree, gap, spans), expansion in zip(wide, expansions, strict=True):
            where = gap - spans.left
            first = left_label[tree, gap]
            log_split = _log_prob(expansion.split_logits, where)
            log_left = _log_prob(expansion.left_logits(where), first)
            log_right = _log_prob(expansion.right_logits(where, first), right_label[tree, gap])
            places.append(tree * self.env.num_gaps + gap)
            parts.append(_expansion_terms(where, spans.width, log_split, log_left, log_right))
        root = (nodes.label * (nodes.right - nodes.left == memory[-1][rows, None])).sum(-1)
        log_root = _log_prob(self.root_logits(memory).index_select(0, rows), root)
        return self._in_order(z, log_root, torch.cat(places), torch.cat(parts))

    def node_flows(self, z: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Gives the `span_flow` of every node's span, float `[N, G]`, 0 where there is none.

        Args:
            z: Complete trees, int64 `[N, S]`.
            memory: What `encode` returned.
            rows: int64 `[N]`.
        """
        tree, gap, spans = self._nodes(z, rows)
        flow = self.span_flow(memory, spans)
        flat = flow.new_zeros(len(z) * self.env.num_gaps)
        return flat.index_add(0, tree * self.env.num_gaps + gap, flow).view(len(z), -1)

    def _nodes(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, LabelledSpans]:
        """Finds all nodes: their trees and gaps, int64 `[M]`, and spans."""
        nodes = tree_nodes(z)
        above = torch.maximum(*parents(nodes))
        parent = nodes.label.gather(1, above.clamp_min(0)).where(above >= 0, self.env.labels)
        tree, gap = (nodes.label >= 0).nonzero(as_tuple=True)
        left, right, label = (part[tree, gap] for part in (nodes.left, nodes.right, nodes.label))
        return tree, gap, LabelledSpans(rows[tree], left, right, label, parent[tree, gap])

    def _wide_nodes(self, z: Tensor, rows: Tensor) -> list[tuple[Tensor, Tensor, Spans]]:
        """Finds the nodes of each width of three words or more: trees, gaps, int64, and spans."""
        tree, gap, (row, left, right, label, parent) = self._nodes(z, rows)
        width = right - left
        order, sizes = width.argsort(), width.bincount().tolist()
        ordered = (part[order].split(sizes) for part in (tree, gap, row, left, label, parent))
        return [
            (trees, gaps, Spans(rows, lefts, labels, above, words))
            for words, (trees, gaps, rows, lefts, labels, above) in enumerate(
                zip(*ordered, strict=True)
            )
            if words > 2 and len(trees)
        ]

    def _in_order(self, z: Tensor, log_root: Tensor, place: Tensor, part: Tensor) -> Tensor:
        """Puts log-probabilities where their actions are, float `[max_steps, N]`.

        Args:
            z: Complete trees, int64 `[N, S]`.
            log_root: Of the root's label, float `[N]`.
            place: Of nodes in a flat `[N G]`, int64 `[R]`.
            part: Of their splits and of their left and right parts' labels, float `[R, 3]`.
        """
        num, gaps = len(z), self.env.num_gaps
        each = part.new_zeros(num * gaps, 3).index_add(0, place, part).view(num, gaps, 3)
        as_left, as_right = parents(tree_nodes(z))
        log_label = each[..., 1].gather(1, as_left.clamp_min(0))
        other = (
            each[..., 2].gather(1, as_right.clamp_min(0)).where(as_right >= 0, log_root[:, None])
        )
        log_label = log_label.where(as_left >= 0, other)
        order, lengths = self.env.order_of_actions(z)
        log_pf = torch.cat([each[..., 0], log_label], 1).gather(1, order)
        taken = torch.arange(2 * gaps, device=z.device) < lengths[:, None]
        return log_pf.where(taken, 0.0).T

    # -- one action -----------------------------------------------------------------------------

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores the next action, float `[N, A + 1]`; see `Policy.logits`."""
        env = self.env
        now = _current_expansions(env, state, memory[-1][rows])
        result = memory[0].new_zeros(len(state), env.num_actions + 1)
        labels = slice(env.num_gaps, env.num_gaps + env.labels)
        whole = (now.stage == ROOT).nonzero().squeeze(1)
        root_logits = self.root_logits(memory).index_select(0, rows[whole])
        result = result.index_put((whole,), F.pad(root_logits, (env.num_gaps, 1)))
        waiting = now.width.where(now.stage != ROOT, 0)
        for width in range(3, env.max_words + 1):
            here = (waiting == width).nonzero().squeeze(1)
            if not len(here):
                continue
            left, split = now.left[here], now.split[here]
            spans = Spans(rows[here], left, now.label[here], now.parent[here], width)
            expansion = self.expand(memory, spans)
            stage = now.stage[here, None]
            gap = left[:, None] + torch.arange(width - 1, device=left.device)
            scored = result.new_zeros(len(here), env.num_actions + 1)
            splits = scored.scatter(1, gap, expansion.split_logits)
            label_logits = torch.where(
                stage == LEFT,
                expansion.left_logits(split),
                expansion.right_logits(split, now.left_label[here]),
            )
            scored = torch.where(stage == SPLIT, splits, F.pad(label_logits, (labels.start, 1)))
            result = result.index_put((here,), scored)
        return result


ROOT, SPLIT, LEFT, RIGHT = range(4)
"""What the next action does: label the sentence, split a span, label its left or right part."""


class _Current(NamedTuple):
    """The spans that the next actions belong to, int64 `[N]` each; see `Spans`."""

    stage: Tensor
    left: Tensor
    width: Tensor
    label: Tensor
    parent: Tensor
    split: Tensor
    left_label: Tensor


def _current_expansions(env: TopDownTree, state: Tensor, lengths: Tensor) -> _Current:
    """Finds in each state the span whose expansion goes on."""
    nodes = tree_nodes(state)
    first, end, unlabelled = env.current_span(state, lengths[:, None])
    first = first.clamp_max(env.num_gaps - 1)
    left, right = first, end + 1
    gap = _parent_gap(nodes, left, right)
    is_root = gap == UNSET
    # The node whose part is labelled now; of a span that is split now, its parent.
    above, above_left, above_right = (part.gather(1, gap.clamp_min(0)) for part in nodes)
    stage = torch.where(left == above_left, LEFT, RIGHT).where(unlabelled, SPLIT)
    stage = stage.where(~(unlabelled & is_root), ROOT)
    grandparent_gap = _parent_gap(nodes, above_left, above_right)
    grandparent = nodes.label.gather(1, grandparent_gap.clamp_min(0))
    sibling = OPEN - nodes.label.gather(1, above_left.clamp(0, env.num_gaps - 1))
    is_split = stage == SPLIT
    parts = (
        stage,
        left.where(is_split, above_left),
        (right - left).where(is_split, above_right - above_left),
        (OPEN - nodes.label.gather(1, first)).where(is_split, above),
        torch.where(
            is_split,
            above.where(~is_root, env.labels),
            grandparent.where(grandparent_gap != UNSET, env.labels),
        ),
        (gap - above_left).clamp_min(0),
        sibling.clamp(0, env.labels - 1),
    )
    return _Current(*(part.squeeze(1) for part in parts))


def _parent_gap(nodes: TreeNodes, left: Tensor, right: Tensor) -> Tensor:
    """Finds the node that was split into a span and another, int64 `[N, 1]`; -1 if none was."""
    gaps = nodes.label.shape[1]
    found = torch.full_like(left, UNSET)
    for gap, side, fencepost in ((right - 1, nodes.left, left), (left - 1, nodes.right, right)):
        place = gap.clamp(0, gaps - 1)
        is_parent = (place == gap) & (nodes.label.gather(1, place) >= 0)
        is_parent &= side.gather(1, place) == fencepost
        found = gap.where(is_parent, found)
    return found


def _expansion_terms(
    split: Tensor, width: int, log_split: Tensor, log_left: Tensor, log_right: Tensor
) -> Tensor:
    """Gathers an expansion's log-probabilities, float `[M, 3]`, 0 for words, which get no label."""
    return torch.stack(
        [log_split, log_left.where(split > 0, 0.0), log_right.where(split < width - 2, 0.0)], -1
    )


def _label_at(nodes: TreeNodes, gap: Tensor) -> Tensor:
    """The labels at gaps, 0 where the gap is -1."""
    return nodes.label.gather(1, gap.clamp_min(0)).where(gap >= 0, 0)


def _log_prob(logits: Tensor, chosen: Tensor) -> Tensor:
    """Picks log-probabilities, float `[M]`."""
    return _pick(logits.log_softmax(-1), chosen)


def _pick(table: Tensor, chosen: Tensor) -> Tensor:
    """Picks one entry of each row, `[M, C]` to `[M]`."""
    return table.gather(1, chosen[:, None]).squeeze(1)
