"""Sentences to learn a grammar from, and gold trees to judge it by."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gfn_envs.errors import UserError
from lvms.data.parsed_sentence import ParsedSentence
from lvms.data.sentences import MIN_WORDS, Sentences, encode_sentences
from lvms.data.tree_cleaning import Cleaning
from lvms.data.treebank_sources import read_parts
from lvms.data.vocabulary import Vocabulary

FEWEST_SENTENCES = 10


@dataclass(frozen=True)
class Treebank:
    """Sentences of 2 to N words.

    Attributes:
        train: To learn from.
        validation: To choose settings by.
        test: To be judged by.
        vocabulary: The words of the training sentences.
        too_short: How many sentences were left out for having less than 2 words.
        too_long: How many were left out for having more than N.
    """

    train: Sentences
    validation: Sentences
    test: Sentences
    vocabulary: Vocabulary
    too_short: int
    too_long: int


def load_treebank(
    source: str | Path,
    max_words: int = 20,
    *,
    cleaning: Cleaning | None = None,
    vocabulary: Vocabulary | None = None,
    vocabulary_size: int = 10_000,
    min_count: int = 1,
    seed: int = 0,
) -> Treebank:
    """Loads sentences and, where there are any, gold trees.

    Sentences that were published in one piece are shuffled and a tenth each is kept for validation
    and for testing. Where only test sentences were published apart, validation sentences are drawn
    from those for training: as many as for testing, but no more than a fifth.

    Args:
        source: `ptb-text` (the Penn Treebank's text, without trees); a bracketed file; or a
            directory with bracketed files, span files or the Penn Treebank's sections, see
            `lvms.data.treebank_sources.read_parts`.
        max_words: N: longer sentences are left out, counted after cleaning.
        cleaning: What of trees is kept, the defaults if None.
        vocabulary: The words to use; if None, those of the training sentences that are kept.
        vocabulary_size: How many words such a vocabulary has at most.
        min_count: How often each of them must occur; the others are `<unk>`.
        seed: Of the split.

    Returns:
        The sentences.

    Raises:
        UserError: If the source is unknown, its package is not installed, a file is damaged, a
            word is not in the given vocabulary, or there are fewer than 10 sentences to learn
            from.
    """
    if max_words < MIN_WORDS:
        raise UserError(f"max_words must be at least {MIN_WORDS}; got {max_words}.")
    parts = read_parts(source, cleaning or Cleaning())
    lengths = [len(sentence.words) for part in parts for sentence in part]
    kept = [
        [sentence for sentence in part if MIN_WORDS <= len(sentence.words) <= max_words]
        for part in parts
    ]
    train, validation, test = _split(kept, torch.Generator().manual_seed(seed))
    if len(train) < FEWEST_SENTENCES or not (validation and test):
        counts = " + ".join(str(len(part)) for part in (train, validation, test))
        raise UserError(
            f"{source} holds {counts} sentences of {MIN_WORDS} to {max_words} words to learn from, "
            f"for validation and for testing; at least {FEWEST_SENTENCES} + 1 + 1 are needed."
        )
    if vocabulary is None:
        words = (sentence.words for sentence in train)
        vocabulary = Vocabulary.from_sentences(words, vocabulary_size, min_count)
    return Treebank(
        train=encode_sentences(train, vocabulary, max_words),
        validation=encode_sentences(validation, vocabulary, max_words),
        test=encode_sentences(test, vocabulary, max_words),
        vocabulary=vocabulary,
        too_short=sum(length < MIN_WORDS for length in lengths),
        too_long=sum(length > max_words for length in lengths),
    )


def _split(
    parts: list[list[ParsedSentence]], generator: torch.Generator
) -> tuple[list[ParsedSentence], list[ParsedSentence], list[ParsedSentence]]:
    """Makes parts for training, validation and testing of one, two or three."""
    match parts:
        case [everything]:
            tenth = len(everything) // 10
            test, rest = _draw(everything, tenth, generator)
            validation, train = _draw(rest, tenth, generator)
        case [rest, test]:
            validation, train = _draw(rest, min(len(test), len(rest) // 5), generator)
        case _:
            train, validation, test = parts
    return train, validation, test


def _draw(
    sentences: list[ParsedSentence], size: int, generator: torch.Generator
) -> tuple[list[ParsedSentence], list[ParsedSentence]]:
    """Draws so many sentences without replacement; returns them and the others."""
    order = torch.randperm(len(sentences), generator=generator).tolist()
    return [sentences[i] for i in order[:size]], [sentences[i] for i in order[size:]]
