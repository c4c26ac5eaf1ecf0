"""Which words a model knows, and their numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from gfn_envs.errors import UserError

UNKNOWN = "<unk>"
"""Stands for every word that is not in the vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """A list of words; a word's number is its place in it.

    Attributes:
        words: Each once. Where `<unk>` is among them, it stands for all others.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self._number) < len(self.words):
            twice, _ = Counter(self.words).most_common(1)[0]
            raise UserError(f"The word '{twice}' is in the vocabulary more than once; remove it.")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def from_sentences(
        cls, sentences: Iterable[Sequence[str]], size: int = 10_000, min_count: int = 1
    ) -> Self:
        """Collects the most frequent words of sentences, and `<unk>` for all others.

        The defaults are those of the compound PCFG work (Kim et al. 2019). Note that nothing is
        learned about `<unk>` where all words of the sentences are kept: with a small treebank
        raise `min_count` to 2, or unknown words make test sentences all but impossible.

        Args:
            sentences: Those to learn from, and no others.
            size: How many words are kept at most, `<unk>` not counted.
            min_count: How often a kept word must occur at least.

        Returns:
            `<unk>`, then the words from the most frequent on; of two equally frequent ones the
            first in the alphabet comes first.

        Raises:
            UserError: If no word is left.
        """
        if size < 1 or min_count < 1:
            raise UserError(
                f"vocabulary_size and min_count must be at least 1; got {size} and {min_count}."
            )
        counts = Counter(word for sentence in sentences for word in sentence)
        del counts[UNKNOWN]
        frequent = sorted((-count, word) for word, count in counts.items() if count >= min_count)
        if not frequent:
            raise UserError(f"No word occurs {min_count} times (min_count): no vocabulary is left.")
        return cls((UNKNOWN, *(word for _, word in frequent[:size])))

    def encode(self, words: Sequence[str]) -> list[int]:
        """Gives the numbers of words.

        Raises:
            UserError: If a word is not in the vocabulary and neither is `<unk>`.
        """
        unknown = self._number.get(UNKNOWN)
        numbers = []
        for word in words:
            number = self._number.get(word, unknown)
            if number is None:
                raise UserError(
                    f"The word '{word}' in '{_shown(words)}' is not one of the {len(self)} words "
                    f"of the vocabulary, which has no {UNKNOWN} for others; use another word."
                )
            numbers.append(number)
        return numbers

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Gives the words with these numbers; negative ones, which are padding, are left out."""
        return [self.words[number] for number in numbers if number >= 0]

    @cached_property
    def _number(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}


def _shown(words: Sequence[str]) -> str:
    """Writes a sentence, cut where it is long."""
    text = " ".join(words)
    return text if len(text) <= 60 else text[:57] + "..."
