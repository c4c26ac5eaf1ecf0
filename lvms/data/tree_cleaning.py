"""What of a treebank's trees grammar induction keeps: words, and spans without punctuation."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from lvms.data.bracketed_trees import BracketedTree
from lvms.data.parsed_sentence import ParsedSentence, Span

PUNCTUATION_TAGS = frozenset([".", ",", ":", "``", "''", "-LRB-", "-RRB-", "$", "#", "HYPH", "SYM"])
"""Parts of speech that are not words: punctuation, currency signs and other symbols."""

EMPTY_ELEMENT = "-NONE-"
"""The part of speech of what is not spoken: traces and the like."""

NUMBER = "N"
"""Stands for every number."""

_NUMBER = re.compile(r"[0-9][0-9.,]*")
_LABEL = re.compile(r"[^-=]+")


@dataclass(frozen=True)
class Cleaning:
    """How trees become sentences with spans.

    The defaults are those of the compound PCFG work (Kim et al. 2019), which takes `SYM` for words,
    however, and was made for a treebank without `HYPH`.

    Attributes:
        lower_case: Whether words are written in lower case.
        numbers: Whether the digits of a number become one `N`, also inside a word.
        removed_tags: Words with these parts of speech are left out.
        collapse_unary: Whether constituents of the same words become one, whose label joins
            theirs from the top with `+`.
    """

    lower_case: bool = True
    numbers: bool = True
    removed_tags: frozenset[str] = PUNCTUATION_TAGS | {EMPTY_ELEMENT}
    collapse_unary: bool = False

    def word(self, word: str) -> str:
        """Cleans one word."""
        if self.lower_case:
            word = word.lower()
        return _NUMBER.sub(NUMBER, word) if self.numbers else word

    def sentence(self, tree: BracketedTree) -> ParsedSentence:
        """Cleans one tree.

        Args:
            tree: As it was written.

        Returns:
            Its words, possibly none, and the constituents that still have two words or more, each
            once, parents before children. Labels are cut before what only says their function
            (`NP-SBJ-1` is `NP`).
        """
        kept = [tag not in self.removed_tags for tag in tree.tags]
        words = tuple(self.word(word) for word, keep in zip(tree.words, kept, strict=True) if keep)
        fencepost = list(accumulate(kept, initial=0))
        labels: dict[tuple[int, int], list[str]] = {}
        for left, right, label in tree.constituents:
            span = (fencepost[left], fencepost[right])
            if span[1] - span[0] >= 2:
                labels.setdefault(span, []).append(_category(label))
        return ParsedSentence(words, tuple(self._spans(labels)))

    def _spans(self, labels: dict[tuple[int, int], list[str]]) -> Iterable[Span]:
        """Lists the constituents, each with one of the labels that its words have."""
        for (left, right), chain in labels.items():
            named = list(dict.fromkeys(filter(None, chain))) or [""]
            for label in ["+".join(named)] if self.collapse_unary else named:
                yield left, right, label


def _category(label: str) -> str:
    """Cuts a label before its functions and indices; `-LRB-` and the like stay whole."""
    found = _LABEL.match(label)
    return found[0] if found else label
