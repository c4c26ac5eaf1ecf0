"""Grammars whose rule probabilities are free parameters."""

from typing import Self

import torch
from torch import nn

from lvms.grammars.grammar import Grammar
from lvms.grammars.rules import GrammarRules


class TableGrammar(Grammar):
    """A grammar with one logit for each rule.

    Attributes:
        root_logits: A parameter `[K]`.
        binary_logits: A parameter `[K, M, M]`, or `[K + 1, K, M, M]` where expansions depend on
            the parent; a rule's probability is the softmax over the last two.
        emission_logits: A parameter `[P, V]`.
    """

    def __init__(
        self,
        nonterminals: int,
        preterminals: int,
        vocabulary: int,
        max_words: int,
        min_words: int = 2,
        tree: str = "bottom-up",
        parent: bool = False,
        seed: int = 0,
    ) -> None:
        """Builds the tables, each logit standard normal.

        Args:
            nonterminals: K.
            preterminals: P.
            vocabulary: V.
            max_words: N, the length of the longest sentence.
            min_words: The length of the shortest, at least 2.
            tree: In which environment z is built, `bottom-up` or `top-down`.
            parent: Whether an expansion depends on the label of the parent.
            seed: Of the logits.

        Raises:
            UserError: If a size is too small or the environment unknown.
        """
        super().__init__(nonterminals, preterminals, vocabulary, max_words, min_words, tree)
        symbols = nonterminals + preterminals
        parents = (nonterminals + 1,) if parent else ()
        self.root_logits = nn.Parameter(torch.empty(nonterminals))
        self.binary_logits = nn.Parameter(torch.empty(*parents, nonterminals, symbols, symbols))
        self.emission_logits = nn.Parameter(torch.empty(preterminals, vocabulary))
        self._start(torch.Generator().manual_seed(seed))

    @classmethod
    def from_rules(
        cls, rules: GrammarRules, max_words: int, min_words: int = 2, tree: str = "bottom-up"
    ) -> Self:
        """Builds the grammar that has these rules.

        Args:
            rules: In nats.
            max_words: N, the length of the longest sentence.
            min_words: The length of the shortest, at least 2.
            tree: In which environment z is built, `bottom-up` or `top-down`.

        Raises:
            UserError: If the lengths are not in order, or the environment is unknown.
        """
        sizes = rules.nonterminals, rules.preterminals, rules.vocabulary
        parent = rules.conditioned_on_parent
        model = cls(*sizes, max_words, min_words, tree, parent)
        with torch.no_grad():
            model.root_logits.copy_(rules.root)
            model.binary_logits.copy_(rules.binary)
            model.emission_logits.copy_(rules.emission)
        return model

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """Draws standard normal logits."""
        for logits in self.parameters():
            logits.normal_(generator=generator)

    def _tables(self) -> GrammarRules:
        """Normalises the logits."""
        binary = self.binary_logits.flatten(-2).log_softmax(-1)
        return GrammarRules(
            self.root_logits.log_softmax(-1),
            binary.view_as(self.binary_logits),
            self.emission_logits.log_softmax(-1),
        )


def without_words(grammar: Grammar) -> TableGrammar:
    """Makes the grammar of the same trees in which all words are the same word.

    See `GrammarRules.without_words`.
    """
    with torch.no_grad():
        rules = grammar.rules().without_words()
    return TableGrammar.from_rules(rules, grammar.max_words, grammar.min_words)
