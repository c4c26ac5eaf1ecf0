"""Grammars written down as text, a line for each symbol."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.errors import UserError
from lvms.grammars.rules import GrammarRules

FLOOR = 1e-7
"""The probability, before normalising, of a rule or word that is not written down. Every sentence
has some probability and every tree a finite log-joint, but next to none of these is ever drawn."""


@dataclass(frozen=True)
class WrittenGrammar:
    """A grammar and what its symbols are called.

    Attributes:
        rules: The probabilities.
        labels: K names of nonterminals.
        preterminals: P names.
        words: V words.
    """

    rules: GrammarRules
    labels: Sequence[str]
    preterminals: Sequence[str]
    words: Sequence[str]


def read_grammar(text: str) -> WrittenGrammar:
    """Reads a grammar.

    A line `A -> B C .7 | D E .3` gives the expansions of A, and `A^Q -> ...` those of A where its
    parent is Q, `A^start` where A has none; without a parent the line holds for every parent that
    has no line of its own. A line `D = the a` gives the words of a preterminal, all alike. The
    first symbol expanded is the root. What follows a `#` is left out.

    Args:
        text: The lines.

    Raises:
        UserError: If a line is none of these, an expansion has not two known symbols and a
            probability, or a nonterminal has no expansion.
    """
    expansions: dict[tuple[str, str], str] = {}
    lexicon: dict[str, list[str]] = {}
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        side, arrow, right = (part.strip() for part in line.partition("->"))
        tag, equals, its_words = (part.strip() for part in line.partition("="))
        if arrow:
            label, _, parent = side.partition("^")
            expansions[label, parent] = right
        elif equals:
            lexicon[tag] = its_words.split()
        elif line:
            raise UserError(f"A grammar's line must hold '->' or '='; got '{line}'.")
    labels = list(dict.fromkeys(label for label, _ in expansions))
    words = list(dict.fromkeys(word for some in lexicon.values() for word in some))
    if not labels or not words:
        raise UserError("A grammar needs expansions (A -> B C 1.) and words (D = the a).")
    number = {symbol: index for index, symbol in enumerate([*labels, *lexicon])}
    given_parent = any(parent for _, parent in expansions)
    parents = [*labels, "start"] if given_parent else [""]
    binary = torch.full((len(parents), len(labels), len(number), len(number)), FLOOR)
    for above, parent in enumerate(parents):
        for index, label in enumerate(labels):
            written = expansions.get((label, parent), expansions.get((label, "")))
            if written is None:
                raise UserError(f"{label} has no expansion under {parent}; write '{label} -> ...'.")
            for first, second, probability in _alternatives(written, number):
                binary[above, index, first, second] += probability
    root = torch.full((len(labels),), FLOOR)
    root[0] = 1.0
    emission = torch.full((len(lexicon), len(words)), FLOOR)
    for row, some in zip(emission, lexicon.values(), strict=True):
        for word in some:
            row[words.index(word)] += 1 / len(some)
    if not given_parent:
        binary = binary.squeeze(0)
    tables = _log_normalised(root, 1), _log_normalised(binary, 2), _log_normalised(emission, 1)
    return WrittenGrammar(GrammarRules(*tables), labels, list(lexicon), words)


def _alternatives(written: str, number: Mapping[str, int]) -> Iterator[tuple[int, int, float]]:
    """Reads `B C .7 | D E .3`: two symbols' numbers and a probability each."""
    for alternative in written.split("|"):
        *symbols, probability = alternative.split() or [""]
        try:
            first, second = (number[symbol] for symbol in symbols)
            yield first, second, float(probability)
        except (KeyError, ValueError):
            raise UserError(
                f"An expansion must be two symbols of the grammar and a probability, as in "
                f"'Det Noun .5'; got '{alternative.strip()}'."
            ) from None


def _log_normalised(weight: Tensor, dims: int) -> Tensor:
    """Takes logs of weights normalised over the last dimensions."""
    return (weight / weight.sum(tuple(range(-dims, 0)), keepdim=True)).log()
