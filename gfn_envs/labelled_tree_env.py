"""What the constructions of labelled binary trees have in common: states, structures, pictures."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gfn_envs.binary_tree import UNSET, TreeNodes, tree_nodes, tree_state
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv, require_enumerable
from gfn_envs.nltk_tree import from_nltk, to_nltk
from gfn_envs.rendering import require_mode
from gfn_envs.tree_drawing import draw_tree, write_tree
from gfn_envs.tree_enumeration import every_tree, num_trees

if TYPE_CHECKING:
    from nltk.tree import Tree


class LabelledTreeEnv(LatentEnv):
    """A construction of binary trees over sentences of 2 to N words, with labelled inner nodes.

    A subclass says in what order; all end in the same complete states, those of
    `gfn_envs.binary_tree`.

    Attributes:
        max_words: N.
        min_words: The fewest words of a sentence drawn without data.
        labels: K.
        num_gaps: G = N - 1, the gaps between words.
    """

    context_size = 1

    def __init__(self, max_words: int, labels: int, min_words: int) -> None:
        """Lays out the state space.

        Args:
            max_words: N, at least 2.
            labels: K, at least 1.
            min_words: 2 to N.

        Raises:
            UserError: If one of them is out of its range.
        """
        name = type(self).__name__
        if max_words < 2 or labels < 1:
            raise UserError(
                f"A {name} needs max_words of at least 2 and labels of at least 1; "
                f"got {max_words}, {labels}."
            )
        if not 2 <= min_words <= max_words:
            raise UserError(f"min_words must lie in 2 to {max_words}; got {min_words}.")
        self.max_words = int(max_words)
        self.min_words = int(min_words)
        self.labels = int(labels)
        self.num_gaps = self.max_words - 1
        self.state_shape = (3 * self.num_gaps,)
        self.initial_state = torch.full(self.state_shape, UNSET)
        self.state_low = self.initial_state.clone()
        self._gap = torch.arange(self.num_gaps)
        highest = TreeNodes(
            torch.full_like(self._gap, self.labels - 1),
            self._gap.clone(),
            torch.full_like(self._gap, self.max_words),
        )
        self.state_high = tree_state(highest)

    def is_complete(self, state: Tensor, context: Tensor) -> Tensor:
        """Says where every gap between two words has its node; see `LatentEnv.is_complete`."""
        return (tree_nodes(state).label >= 0).sum(-1) == context[:, 0] - 1

    def sample_context(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws lengths uniformly from min_words .. max_words; see `LatentEnv.sample_context`."""
        size = (batch_size, 1)
        return torch.randint(
            self.min_words, self.max_words + 1, size, generator=generator, device=self.device
        )

    def num_structures(self, context_row: Tensor) -> int:
        """Counts shapes and labellings; see `tree_enumeration.num_trees`."""
        return num_trees(self._num_words(context_row), self.labels)

    def enumerate(self, context_row: Tensor) -> Tensor:
        """Lists shapes in order of the root's gap, labels fastest; see `LatentEnv.enumerate`."""
        require_enumerable("structures", self.num_structures(context_row))
        num_words = self._num_words(context_row)
        nodes = every_tree(num_words, self.labels, self.device)
        padding = (0, self.max_words - num_words)
        return tree_state(TreeNodes(*(F.pad(part, padding, value=UNSET) for part in nodes)))

    def to_structure(self, state: Tensor, context_row: Tensor) -> "Tree":
        """Gives an `nltk.Tree` with labels "0", "1", ... over the words' positions as strings.

        Args:
            state: int64 `[S]`, complete.
            context_row: int64 `[1]`.

        Raises:
            UserError: If the tree is not complete, or nltk is not installed.
        """
        return to_nltk(state, self._num_words(context_row))

    def from_structure(self, structure: "Tree", context_row: Tensor) -> Tensor:
        """Undoes `to_structure`.

        Args:
            structure: A binary `nltk.Tree` over the leaves "0", "1", ....
            context_row: int64 `[1]`.

        Raises:
            UserError: If it is none, or nltk is not installed.
        """
        num_words = self._num_words(context_row)
        state = from_nltk(structure, num_words, self.max_words, self.labels)
        return state.to(self.device)

    def render(self, state: Tensor, context_row: Tensor, mode: str) -> str | np.ndarray:
        """Draws one state over the words' positions; see `LatentEnv.render`."""
        require_mode(mode)
        words = [str(i) for i in range(self._num_words(context_row))]
        return write_tree(state, words) if mode == "ansi" else draw_tree(state, words)

    def _num_words(self, context_row: Tensor) -> int:
        """Reads one sentence's length, or raises a UserError if it is not 2 .. N."""
        num_words = int(context_row[0])
        if not 2 <= num_words <= self.max_words:
            raise UserError(
                f"A sentence of this {type(self).__name__} has 2 to {self.max_words} words; "
                f"the context says {num_words}."
            )
        return num_words
