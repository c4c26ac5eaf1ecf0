"""A labelled binary tree over a sentence, built by splitting spans."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from gfn_envs.binary_tree import OPEN, UNSET, parents, put_node, tree_nodes
from gfn_envs.labelled_tree_env import LabelledTreeEnv


class TopDownTree(LabelledTreeEnv):
    """A labelled binary tree over a sentence, built from the root down.

    Description:
        The latent of a grammar in Chomsky normal form, in the order in which the grammar
        generates: the whole sentence gets a label; the leftmost span that is labelled and not
        split is split between two words; then its left and its right part get their labels. Parts
        of a single word are finished without one.

    State:
        int64 `[3 (N - 1)]`: the label, the left and the right fencepost of the node at each gap
        between two words, -1 where there is none; a span with label A that is not yet split lies
        at its first gap, with -2 - A for its label; see `gfn_envs.binary_tree`. The context is n.

    Actions:
        Action g, 0 to N - 2, splits the current span at gap g (between words g and g + 1); action
        N - 1 + A gives the current part label A. There are N - 1 + K.

    Build orders:
        One, from the left and depth first: a tree, each state has one parent, so P_B = 1.

    Termination:
        After 2 (n - 1) actions; exit is forced.

    Enumeration:
        All C(n - 1) K^(n - 1) trees, C(m) being Catalan's number, in ascending order of the
        root's gap, then of the shapes left and right of it; labels change fastest.

    Rendering:
        `ansi`: the tree in box-drawing characters over the words' positions, spans not yet split
        under a dashed line; `rgb_array`: the same as a picture.

    Registered configurations:
        `gfn_envs/TopDownTree-v0` (max_words 4, labels 2, min_words 2).
    """

    is_tree = True

    def __init__(self, max_words: int = 4, labels: int = 2, min_words: int = 2) -> None:
        """Lays out the state and action spaces.

        Args:
            max_words: N, the most words of a sentence, at least 2.
            labels: K, the number of labels, at least 1.
            min_words: The fewest words of a sentence drawn without data, 2 to N.

        Raises:
            UserError: If one of them is out of its range.
        """
        super().__init__(max_words, labels, min_words)
        self.max_steps = 2 * self.num_gaps
        self.num_actions = self.num_gaps + self.labels
        self.state_low[: self.num_gaps] = OPEN - (self.labels - 1)
        self._action = torch.arange(self.num_actions)

    def forward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Allows the labels or the gaps of the current span; see `LatentEnv.forward_mask`."""
        first, end, unlabelled = self.current_span(state, context)
        splits = (self._gap >= first) & (self._gap < end) & ~unlabelled
        return torch.cat([splits, unlabelled.expand(-1, self.labels)], dim=1)

    def backward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Allows the last action alone; see `LatentEnv.backward_mask`."""
        split, labelled = self._last_move(state)
        open_label = tree_nodes(state).label.gather(1, labelled.clamp_min(0))
        # Where nothing was labelled last this is the split, and -1, no action, where it all begins.
        last = split.where(labelled == UNSET, self.num_gaps + OPEN - open_label)
        return last == self._action

    def step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Splits the current span or labels it; see `LatentEnv.step`."""
        first, end, _ = self.current_span(state, context)
        first = first.clamp_max(self.num_gaps - 1)  # of complete trees it is past the last gap
        action = action[:, None]
        nodes = tree_nodes(state)
        label, left, right = (part.gather(1, first) for part in nodes)
        nothing = torch.full_like(first, UNSET)
        cleared = put_node(state, first, nothing, nothing, nothing)
        splits = action < self.num_gaps
        return put_node(
            cleared,
            action.where(splits, first),
            torch.where(splits, OPEN - label, OPEN - (action - self.num_gaps)),
            left.where(splits, first),
            right.where(splits, end + 1),
        )

    def backward_step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Joins the last split again or removes the last label; see `LatentEnv.backward_step`."""
        _, labelled = self._last_move(state)
        joins = action[:, None] < self.num_gaps
        gap = action[:, None].where(joins, labelled).clamp_min(0)
        label, left, right = (part.gather(1, gap) for part in tree_nodes(state))
        nothing = torch.full_like(gap, UNSET)
        cleared = put_node(state, gap, nothing, nothing, nothing)
        # A joined span waits at its first gap; where a label goes, nothing stays.
        first = left.where(joins, gap).clamp_min(0)
        waiting = (part.where(joins, UNSET) for part in (OPEN - label, left, right))
        return put_node(cleared, first, *waiting)

    def num_steps(self, context: Tensor) -> Tensor:
        """Gives 2 (n - 1); see `LatentEnv.num_steps`."""
        return 2 * (context[:, 0] - 1)

    def num_parents(self, state: Tensor, context: Tensor) -> Tensor:
        """Gives 1, and 0 at the initial state; see `LatentEnv.num_parents`."""
        return (tree_nodes(state).label != UNSET).any(-1).long()

    def log_num_trajectories(self, state: Tensor, context: Tensor) -> Tensor:
        """Gives 0: a tree is built in one way only."""
        return torch.zeros(len(state), device=state.device)

    def sample_trajectory_to(
        self, state: Tensor, context: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sorts all splits and labels at once: the way is the only one, so nothing is drawn."""
        label = tree_nodes(state).label
        labelling = self.num_gaps + label.where(label >= 0, OPEN - label)
        action = torch.cat([self._gap.expand_as(label), labelling], dim=1)
        order, lengths = self.order_of_actions(state)
        taken = torch.arange(2 * self.num_gaps, device=state.device) < lengths[:, None]
        return action.gather(1, order).where(taken, UNSET).T, lengths

    def states_along(self, actions: Tensor, context: Tensor, end: Tensor | None = None) -> Tensor:
        """Gives the states on the way, of a known end all at once; see `LatentEnv.states_along`.

        A span waits at its first gap from when it is labelled until it is split, and lies at the
        gap of its split from then on.
        """
        if end is None:
            return super().states_along(actions, context)
        steps, (num, size) = len(actions), end.shape
        order, lengths = self.order_of_actions(end)
        number = torch.arange(2 * self.num_gaps, device=end.device).expand_as(order)
        time = 1 + torch.empty_like(order).scatter_(1, order, number)
        # What never happens does so after the last state.
        split_time, label_time = time.where(time <= lengths[:, None], steps + 1).chunk(2, dim=1)
        nodes = tree_nodes(end)
        waiting = torch.where(nodes.label >= 0, OPEN - nodes.label, nodes.label)
        events = (
            (label_time, nodes.left, waiting, 1),
            (split_time, nodes.left, waiting, -1),
            (split_time, self._gap.expand_as(time[:, : self.num_gaps]), nodes.label, 1),
        )
        row = torch.arange(num, device=end.device)[:, None]
        change = end.new_zeros((steps + 2) * num * size)
        for when, gap, label, sign in events:
            place = (when * num + row) * size + gap.clamp_min(0)
            for part, value in enumerate((label, nodes.left, nodes.right)):
                there = (place + part * self.num_gaps).flatten()
                change.index_add_(0, there, sign * (value - UNSET).flatten())
        states = change.view(steps + 2, num, size)[:-1]
        states[0] = UNSET
        # Adding them up in a loop takes a quarter of the time of `cumsum` over the first dimension.
        for before, following in pairwise(states):
            following += before
        return states

    def order_of_actions(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Says when a tree's nodes were split and labelled.

        A span's label follows on its parent's split, the left one's first.

        Args:
            state: int64 `[B, 3 G]`, complete or not.

        Returns:
            For each action what it did, int64 `[B, 2 G]`: g, split at gap g, or G + g, label the
            node that is, or the span that waits, at gap g; behind the last one anything. And the
            number of actions, int64 `[B]`.
        """
        nodes = tree_nodes(state)
        is_split, is_labelled = nodes.label >= 0, nodes.label != UNSET
        time = 3 * self._split_order(state)
        label_time = torch.full_like(time, -1)  # the root's
        for place, parent in enumerate(parents(nodes), start=1):
            after = time.gather(1, parent.clamp_min(0)) + place
            label_time = after.where(parent != UNSET, label_time)
        happens = torch.cat([is_split, is_labelled], dim=1)
        never = torch.iinfo(torch.int64).max
        order = torch.cat([time, label_time], dim=1).where(happens, never).argsort(-1)
        return order, happens.sum(-1)

    def _split_order(self, state: Tensor) -> Tensor:
        """Numbers the nodes so that those split earlier have lower ones, int64 `[B, G]`, from 1 on.

        Splits go from the left, and among those with the same left end from the widest. What is not
        a node gets 0.
        """
        label, left, right = tree_nodes(state)
        return (label >= 0) * ((left + 1) * (self.max_words + 1) - right)

    def current_span(self, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the span that the next action labels or splits.

        Splits cut the sentence into spans, so each run of gaps without one is a span of its own.

        Returns:
            The first gap inside it, int64 `[B, 1]`; the gap behind its last one, int64 `[B, 1]`;
            whether it has no label yet, bool `[B, 1]`. At complete trees the first gap is G.
        """
        label = tree_nodes(state).label
        is_split = label >= 0
        unsplit = ~is_split & (self._gap < context - 1)
        # Behind a split, and at the start, where none was cut off.
        starts = F.pad(is_split[:, :-1], (1, 0), value=True)
        unlabelled = unsplit & starts & (label == UNSET)
        # max of a mask says whether it holds anywhere, and where first.
        labels_next, first = unlabelled.max(-1, keepdim=True)
        goes_on, first_unsplit = unsplit.max(-1, keepdim=True)
        first = first.where(labels_next, first_unsplit.where(goes_on, self.num_gaps))
        is_cut, cut = (is_split & (self._gap > first)).max(-1, keepdim=True)
        return first, cut.where(is_cut, context - 1), labels_next

    def _last_move(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the split that came last, and the label if one came after it.

        Returns:
            The gap of the split, int64 `[B, 1]`, -1 where there is none; the gap where the span
            lies that was labelled last, int64 `[B, 1]`, -1 where a split came after every label.
        """
        label, left, _ = tree_nodes(state)
        latest, split = self._split_order(state).max(-1, keepdim=True)
        left_part = left.gather(1, split).clamp_min(0)
        split = split.where(latest > 0, UNSET)
        # The root, before any split, lies where the right part of a split at gap -1 would.
        right_part = split + 1
        padded = F.pad(label, (0, 1), value=UNSET)
        labelled = left_part.where(label.gather(1, left_part) <= OPEN, UNSET)
        return split, right_part.where(padded.gather(1, right_part) <= OPEN, labelled)
