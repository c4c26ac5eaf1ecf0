"""Grammars at fixed parameters whose trees are few enough for a table: posteriors of parses.

Members of `lvms.models.models`; see there for what the entropies mean. All sentences are of one
length, so that those of a task have the same trees. In order `fixed` trees are built top-down,
each in one way; in order `any` bottom-up, merges in any order.
"""

import torch

from gfn_envs.errors import unknown_name
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.table_grammar import TableGrammar

TREE_OF_ORDER = {"fixed": "top-down", "any": "bottom-up"}
"""In which environment trees are built, by the order that the other models have too."""

LABELS, PRETERMINALS, WORDS = 3, 4, 6

RULE_SPREAD = 2.5
"""The standard deviation of a rule's logit: some rules are common, and words tell of the tree."""

ENERGY_SPREAD = 1.0
"""That of what a shape's features contribute to its energy."""


def pcfg_tiny(seed: int = 0, order: str = "fixed") -> TableGrammar:
    """Context-free grammar, 5 words, 3 labels; posterior entropy 2.4 to 3.8 of 7.0 nats."""
    return _grammar(5, seed, order)


def pcfg_small(seed: int = 0, order: str = "fixed") -> TableGrammar:
    """Context-free grammar, 6 words, 3 labels; posterior entropy 3.3 to 5.1 of 9.2 nats."""
    return _grammar(6, seed, order)


def ncfg_tiny(seed: int = 0, order: str = "fixed") -> TableGrammar:
    """Grammar given the parent, 5 words, 3 labels; posterior entropy 1.4 to 3.5 of 7.0 nats."""
    return _grammar(5, seed, order, parent=True)


def energy_tiny(seed: int = 0, order: str = "fixed") -> EnergyGrammar:
    """Grammar with energies of shapes, 5 words; posterior entropy 1.6 to 3.5 of 7.0 nats."""
    # Another stream than that of the rules.
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    model = EnergyGrammar(_grammar(5, seed, order), generator=generator)
    with torch.no_grad():
        model.energy.contribution.weight.normal_(std=ENERGY_SPREAD, generator=generator)
        for parameter in model.energy.parameters():
            if not parameter.any():  # the biases
                parameter.normal_(std=0.2, generator=generator)
    return model


def _grammar(words: int, seed: int, order: str, parent: bool = False) -> TableGrammar:
    """A grammar of uneven rules whose sentences all have so many words."""
    if order not in TREE_OF_ORDER:
        raise unknown_name("order", order, TREE_OF_ORDER)
    model = TableGrammar(
        LABELS, PRETERMINALS, WORDS, max_words=words, min_words=words,
        tree=TREE_OF_ORDER[order], parent=parent, seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        for logits in model.parameters():
            logits.mul_(RULE_SPREAD)
    return model
