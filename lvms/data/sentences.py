"""Sentences as numbers, with gold spans where there are any."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.errors import UserError
from lvms.data.parsed_sentence import ParsedSentence, Spans
from lvms.data.vocabulary import Vocabulary
from lvms.grammars.rules import PAD

MIN_WORDS = 2
"""A tree over fewer words has no node."""


@dataclass(frozen=True)
class Sentences:
    """Sentences of at most N words.

    Attributes:
        words: int64 `[n, N]`, the words' numbers, -1 behind the last.
        spans: The gold constituents of each sentence, or None where there are no gold trees.
    """

    words: Tensor
    spans: tuple[Spans, ...] | None = None

    def __len__(self) -> int:
        return len(self.words)

    @property
    def lengths(self) -> Tensor:
        """How many words each sentence has, int64 `[n]`."""
        return (self.words != PAD).sum(-1)

    def select(self, rows: Tensor) -> "Sentences":
        """Takes some of the sentences.

        Args:
            rows: bool `[n]`, or int64 with their numbers in any order.
        """
        if rows.dtype == torch.bool:
            (rows,) = rows.nonzero(as_tuple=True)
        spans = self.spans and tuple(self.spans[row] for row in rows.tolist())
        return Sentences(self.words[rows], spans)

    def at_most(self, num_words: int) -> "Sentences":
        """Takes the sentences of at most so many words; `words` stays as wide as it is."""
        return self.select(self.lengths <= num_words)


def encode_sentences(
    sentences: Sequence[ParsedSentence], vocabulary: Vocabulary, max_words: int
) -> Sentences:
    """Turns text into numbers.

    Args:
        sentences: Of 2 to `max_words` words.
        vocabulary: Which words there are.
        max_words: N.

    Returns:
        The sentences in their order; without spans if any sentence has none.

    Raises:
        UserError: If a sentence is too short or too long, or has a word that the vocabulary
            cannot express.
    """
    words = torch.full((len(sentences), max_words), PAD)
    for row, sentence in enumerate(sentences):
        length = len(sentence.words)
        if not MIN_WORDS <= length <= max_words:
            raise UserError(
                f"Sentence {row + 1} has {length} word(s), '{' '.join(sentence.words[:5])} ...': "
                f"from {MIN_WORDS} to {max_words} (max_words) are possible."
            )
        words[row, :length] = torch.tensor(vocabulary.encode(sentence.words))
    spans = tuple(sentence.spans for sentence in sentences if sentence.spans is not None)
    return Sentences(words, spans if len(spans) == len(sentences) else None)
