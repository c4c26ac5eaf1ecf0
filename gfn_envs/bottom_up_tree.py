"""A labelled binary tree over a sentence, built by merging neighbours."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gfn_envs.binary_tree import UNSET, put_node, tree_nodes
from gfn_envs.labelled_tree_env import LabelledTreeEnv


class BottomUpTree(LabelledTreeEnv):
    """A labelled binary tree over a sentence, built from the words up.

    Description:
        The latent of a grammar in Chomsky normal form: a sentence of n words is a forest of n
        single words, and each action merges two neighbouring trees under a new labelled root,
        until one tree is left.

    State:
        int64 `[3 (N - 1)]`: the label, the left and the right fencepost of the node at each gap
        between two words, -1 where there is none; see `gfn_envs.binary_tree`. The context is n.

    Actions:
        Action g K + A merges the two trees that meet at gap g (between words g and g + 1) under
        label A; there are (N - 1) K.

    Build orders:
        Any in which children come before their parent. Uniform over them, P_B takes off a root
        with probability proportional to its number of inner nodes.

    Termination:
        After n - 1 actions; exit is forced.

    Enumeration:
        All C(n - 1) K^(n - 1) trees, C(m) being Catalan's number, in ascending order of the
        root's gap, then of the shapes left and right of it; labels change fastest.

    Rendering:
        `ansi`: the forest in box-drawing characters over the words' positions; `rgb_array`: the
        same as a picture.

    Registered configurations:
        `gfn_envs/BottomUpTree-v0` (max_words 4, labels 2, min_words 2).
    """

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
        self.max_steps = self.num_gaps
        self.num_actions = self.num_gaps * self.labels

    def forward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Allows every gap without a node, under any label; see `LatentEnv.forward_mask`."""
        mergeable = self._mergeable(state, context)
        return mergeable[:, :, None].expand(-1, -1, self.labels).flatten(1)

    def backward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Allows each root under its own label; see `LatentEnv.backward_mask`."""
        is_root, label = self._is_root(state), tree_nodes(state).label
        mask = is_root.new_zeros(len(state), self.num_gaps, self.labels)
        # Four times as fast as comparing each label with all.
        return mask.scatter_(2, label.clamp_min(0)[:, :, None], is_root[:, :, None]).flatten(1)

    def step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Merges the two trees that meet at a gap; see `LatentEnv.step`."""
        gap = action[:, None] // self.labels
        is_unset = tree_nodes(state).label == UNSET
        # Gaps without a node are where trees end, and gap i lies at fencepost i + 1.
        before = is_unset & (self._gap < gap)
        left = (before * (self._gap + 1)).max(-1, keepdim=True).values
        # max finds the first of equals; there is none behind in a sentence of all N words.
        found, behind = (is_unset & (self._gap > gap)).max(-1, keepdim=True)
        right = behind.where(found, self.num_gaps) + 1
        return put_node(state, gap, action[:, None] % self.labels, left, right)

    def backward_step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Takes the node at a gap off; see `LatentEnv.backward_step`."""
        gap = action[:, None] // self.labels
        nothing = torch.full_like(gap, UNSET)
        return put_node(state, gap, nothing, nothing, nothing)

    def legal_actions(self, state: Tensor, context: Tensor) -> Tensor:
        """Writes merges and exit into one tensor; see `LatentEnv.legal_actions`."""
        mergeable = self._mergeable(state, context)
        legal = mergeable.new_empty(len(state), self.num_actions + 1)
        legal[:, :-1].unflatten(1, (self.num_gaps, -1)).copy_(mergeable[:, :, None])
        legal[:, -1] = ~mergeable.any(-1)
        return legal

    def num_steps(self, context: Tensor) -> Tensor:
        """Gives n - 1; see `LatentEnv.num_steps`."""
        return context[:, 0] - 1

    def num_parents(self, state: Tensor, context: Tensor) -> Tensor:
        """Counts the roots that are not single words; see `LatentEnv.num_parents`."""
        return self._is_root(state).sum(-1)

    def log_num_trajectories(self, state: Tensor, context: Tensor) -> Tensor:
        """Gives the hook-length formula: log of m! over the product of all subtrees' sizes.

        Sizes count inner nodes, of which there are m in all; see Knuth, The Art of Computer
        Programming, volume 3, section 5.1.4, exercise 20.
        """
        is_node = tree_nodes(state).label != UNSET
        log_sizes = self._size(state).log().where(is_node, 0.0).sum(-1)
        return torch.lgamma(is_node.sum(-1) + 1.0) - log_sizes

    def sample_trajectory_to(
        self, state: Tensor, context: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws an order in which each node comes last in its subtree, uniformly among all.

        Were the nodes' times independent and uniform, each would be the latest in its subtree
        independently of the others (that is the hook-length formula). Given that it is, the time of
        a root of size s is the largest of s uniform ones, U^(1 / s), and those below it are uniform
        up to it. So log time is a sum of -E / s over a node and all above it, E being exponential.
        """
        label, left, right = tree_nodes(state)
        is_node = label != UNSET
        shape, gap = (state.shape[0], self.num_gaps), self._gap
        drawn = torch.empty(shape, dtype=torch.float64, device=state.device)
        delay = drawn.exponential_(generator=generator) / self._size(state)
        delay = delay.where(is_node, 0.0)
        # Gap i is under node g if it lies between the fenceposts of g.
        under = (left[:, :, None] <= gap) & (gap < right[:, :, None] - 1)
        earliness = (delay[:, None] @ under.double()).squeeze(1)
        order = earliness.where(is_node, -1.0).argsort(-1, descending=True)
        lengths = is_node.sum(-1)
        actions = (gap * self.labels + label).gather(1, order)
        return actions.where(gap < lengths[:, None], -1).T, lengths

    def _mergeable(self, state: Tensor, context: Tensor) -> Tensor:
        """Says which gaps between two words have no node yet, bool `[B, G]`."""
        return (tree_nodes(state).label == UNSET) & (self._gap < context - 1)

    def _is_root(self, state: Tensor) -> Tensor:
        """Says which nodes are not below another, bool `[B, G]`."""
        label, left, right = tree_nodes(state)
        is_node = label != UNSET
        # A node at either end of another contains it. Fencepost i is gap i - 1, so by fenceposts:
        cut = F.pad(is_node, (1, 1))
        within = cut.gather(1, left.clamp_min(0)) | cut.gather(1, right.clamp_min(0))
        return is_node & ~within

    def _size(self, state: Tensor) -> Tensor:
        """Counts the inner nodes of each node's subtree, itself included, int64 `[B, G]`."""
        _, left, right = tree_nodes(state)
        return (right - left - 1).clamp_min(0)
