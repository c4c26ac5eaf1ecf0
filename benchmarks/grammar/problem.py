"""What a method of the grammar task is given: the same for every method of one seed."""

from dataclasses import dataclass
from typing import Any

import torch

from algorithms.schedule import Exponential
from benchmarks.grammar.inference import AnyGrammar
from benchmarks.held_out.problem import HeldOutProblem
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.neural_grammar import NeuralGrammar, NeuralNCFG, NeuralPCFG
from lvms.grammars.table_grammar import TableGrammar

NEURAL_GRAMMARS: dict[str, type[NeuralGrammar]] = {"pcfg": NeuralPCFG, "ncfg": NeuralNCFG}
"""Grammars with embedded symbols: context-free, and conditioned on the parent."""

ENERGIES = {
    "energy": ("pcfg", "shapes", 1000.0),
    "ncfg-energy": ("ncfg", "shapes", 1000.0),
    "energy-likelihood": ("pcfg", "model", 1.0),
}
"""Of grammars with energies of shapes: what rules they have, what posterior shapes are contrasted
with, and to what the temperature rises from 1, see `EnergyGrammar`. As in section 5.2 of Hu et al.
2023, and as the gradient of log p(x) asks for."""


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

    def make_grammar(self, kind: str, tree: str | None = None) -> AnyGrammar:
        """Makes a grammar at its start.

        Args:
            kind: A key of `NEURAL_GRAMMARS` or `ENERGIES`, `table` or `ncfg-table`.
            tree: In which environment trees are built; the problem's by default.
        """
        if kind not in ENERGIES:
            return self._make_plain(kind, tree or self.tree)
        rules, contrast, end = ENERGIES[kind]
        return EnergyGrammar(
            self._make_plain(rules, tree or self.tree),
            temperature=Exponential(1.0, end, self.num_updates).at,
            contrast=contrast,
            generator=torch.Generator().manual_seed(self.start),
        )

    def _make_plain(self, kind: str, tree: str) -> Grammar:
        """Makes a grammar without energies."""
        sizes: dict[str, Any] = {
            "nonterminals": self.nonterminals,
            "preterminals": self.preterminals,
            "vocabulary": self.vocabulary,
            "max_words": self.max_words,
            "min_words": self.min_words,
            "tree": tree,
            "seed": self.start,
        }
        if kind in ("table", "ncfg-table"):
            return TableGrammar(**sizes, parent=kind == "ncfg-table")
        return NEURAL_GRAMMARS[kind](**sizes, dim=self.dim)
