"""What a method of the grammar task is given: the same for every method of one seed."""

from dataclasses import dataclass
from typing import Any

from benchmarks.held_out.problem import HeldOutProblem
from lvms.grammars.grammar import Grammar
from lvms.grammars.neural_grammar import NeuralGrammar, NeuralNCFG, NeuralPCFG
from lvms.grammars.table_grammar import TableGrammar

NEURAL_GRAMMARS: dict[str, type[NeuralGrammar]] = {"pcfg": NeuralPCFG, "ncfg": NeuralNCFG}
"""Grammars with embedded symbols: context-free, and conditioned on the parent."""


@dataclass(frozen=True, kw_only=True)
class Problem(HeldOutProblem):
    """Sentences to learn from, and the sizes of what learns; see `HeldOutProblem`.

    Attributes:
        vocabulary: V, how many words there are.
        max_words: N, the width of `x`.
        min_words: The length of the shortest sentence.
        nonterminals: K.
        preterminals: P.
        dim: Numbers that an embedded symbol has, where symbols are embedded.
        rate: Adam's learning rate, until it falls.
        tree: In which environment trees are built.
        start: The seed of a grammar's first weights: all methods with the same kind of grammar
            have the same.
    """

    vocabulary: int
    max_words: int
    min_words: int
    nonterminals: int
    preterminals: int
    dim: int
    rate: float
    tree: str
    start: int

    def make_grammar(self, kind: str, tree: str | None = None) -> Grammar:
        """Makes a grammar at its start.

        Args:
            kind: A key of `NEURAL_GRAMMARS`, `table` or `ncfg-table`.
            tree: In which environment trees are built; the problem's by default.
        """
        sizes: dict[str, Any] = {
            "nonterminals": self.nonterminals,
            "preterminals": self.preterminals,
            "vocabulary": self.vocabulary,
            "max_words": self.max_words,
            "min_words": self.min_words,
            "tree": tree or self.tree,
            "seed": self.start,
        }
        if kind in ("table", "ncfg-table"):
            return TableGrammar(**sizes, parent=kind == "ncfg-table")
        return NEURAL_GRAMMARS[kind](**sizes, dim=self.dim)
