"""What a grammar in Chomsky normal form says, as tables of log-probabilities, and its sentences."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.errors import UserError

PAD = -1
"""Stands behind the last word of a sentence."""


@dataclass(frozen=True)
class GrammarRules:
    """The rules of a grammar with K nonterminals, P preterminals and V words, in nats.

    Child symbols are numbered 0 .. K - 1 for nonterminals and K .. M - 1 for preterminals, with
    M = K + P. A child of two or more words is a nonterminal, a child of one word a preterminal.
    What is impossible has log-probability -inf or -1e30.

    Attributes:
        root: `[K]`, S -> A.
        binary: A -> B C as `[K, M, M]`; where expansions depend on the parent `[K + 1, K, M, M]`,
            the first index the label of A's parent, K for the start symbol.
        emission: `[P, V]`, preterminal -> word.
    """

    root: Tensor
    binary: Tensor
    emission: Tensor

    def __post_init__(self) -> None:
        """Checks that the shapes agree.

        Raises:
            UserError: If they do not.
        """
        if (self.root.dim(), self.emission.dim()) != (1, 2) or not (
            self.root.numel() and self.emission.numel()
        ):
            raise UserError(
                "A grammar's root must be [K] and its emission [P, V], none empty; got "
                f"{list(self.root.shape)} and {list(self.emission.shape)}."
            )
        symbols = self.nonterminals + self.preterminals
        table = (self.nonterminals, symbols, symbols)
        if self.binary.shape not in (table, (self.nonterminals + 1, *table)):
            raise UserError(
                f"With {self.nonterminals} nonterminals and {self.preterminals} preterminals, "
                f"binary must be {list(table)}, or {[self.nonterminals + 1, *table]} given the "
                f"parent; got {list(self.binary.shape)}."
            )

    @property
    def nonterminals(self) -> int:
        """K."""
        return self.root.shape[0]

    @property
    def preterminals(self) -> int:
        """P."""
        return self.emission.shape[0]

    @property
    def vocabulary(self) -> int:
        """V, the number of words."""
        return self.emission.shape[-1]

    @property
    def conditioned_on_parent(self) -> bool:
        """Whether an expansion depends on the label of the parent."""
        return self.binary.dim() == 4

    def without_words(self) -> "GrammarRules":
        """Gives the same rules with all words the same word.

        Its sentence of n words stands for all sentences of n words: its p(x) is how probable the
        length is, and its p(z | x) is p(z | n).
        """
        return GrammarRules(self.root, self.binary, torch.zeros_like(self.emission[:, :1]))


def same_words(lengths: Tensor, max_words: int) -> Tensor:
    """Makes a sentence of one and the same word for each length, int64 `[B, N]`."""
    position = torch.arange(max_words, device=lengths.device)
    return torch.where(position < lengths[:, None], 0, PAD)


def sentence_lengths(x: Tensor, vocabulary: int) -> Tensor:
    """Counts the words of sentences, after checking that they are sentences.

    Args:
        x: int64 `[B, N]`, word ids, `PAD` behind the end.
        vocabulary: V.

    Returns:
        int64 `[B]`, each at least 2.

    Raises:
        UserError: If x is not of that form, a sentence has fewer than two words, or a word is
            not one of the V.
    """
    if x.dim() != 2 or x.is_floating_point() or not len(x):
        raise UserError(
            "Sentences must be word ids, int64 [B, N] with at least one sentence; got "
            f"{x.dtype} {list(x.shape)}."
        )
    is_word = x >= 0
    lengths = is_word.sum(-1)
    if x.min() < PAD or x.max() >= vocabulary:
        raise UserError(
            f"Word ids must be 0 to {vocabulary - 1}, or {PAD} behind the end of a sentence; "
            f"got {x.min().item()} to {x.max().item()}."
        )
    if (is_word[:, 1:] & ~is_word[:, :-1]).any():
        raise UserError(f"{PAD} must stand behind the end of a sentence only, not inside it.")
    if lengths.min() < 2:
        raise UserError("A tree needs a sentence of at least two words; leave shorter ones out.")
    return lengths
