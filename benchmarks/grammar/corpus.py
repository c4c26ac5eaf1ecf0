"""The sentences of a run: drawn from a built-in grammar, whose truth is known, or of a treebank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.provenance import derive_seed
from gfn_envs.binary_tree import tree_nodes
from gfn_envs.errors import UserError, unknown_name
from lvms.data.parsed_sentence import Spans
from lvms.data.sentences import Sentences
from lvms.data.treebank import load_treebank
from lvms.data.treebank_sources import treebank_sources
from lvms.grammars.built_in import built_in_grammars, make_grammar
from lvms.grammars.grammar import Grammar

if TYPE_CHECKING:
    from benchmarks.grammar.sweep import Options

HELD_OUT_SHARE = 4
"""For so many training sentences of a built-in grammar there is one to validate, one to test."""


@dataclass(frozen=True)
class Corpus:
    """Sentences to learn from and to be judged by.

    Attributes:
        train: To learn from; gold trees, if there are any, are never looked at.
        validation: To choose the best weights by.
        test: To be judged by.
        words: What each word id stands for.
        truth: The grammar that the sentences were drawn from, where it is known.
    """

    train: Sentences
    validation: Sentences
    test: Sentences
    words: tuple[str, ...]
    truth: Grammar | None


def load_corpus(options: Options) -> Corpus:
    """Draws sentences from a built-in grammar, or loads a treebank.

    Args:
        options: Of the task.

    Returns:
        Sentences of `min_words` to `max_words` words.

    Raises:
        UserError: If there is no such grammar or treebank, or it cannot be read.
    """
    return _draw(options) if options.data in built_in_grammars else _load(options)


def spans_of(z: Tensor, labels: Sequence[str]) -> list[Spans]:
    """Lists the constituents of trees `[B, S]`.

    Args:
        z: Complete trees.
        labels: The names of the labels 0, 1, ...
    """
    nodes = (part.tolist() for part in tree_nodes(z))
    return [
        [(left, right, labels[at]) for at, left, right in zip(*row, strict=True) if at >= 0]
        for row in zip(*nodes, strict=True)
    ]


def _draw(options: Options) -> Corpus:
    """Draws three sets of sentences with their trees from a built-in grammar."""
    built_in = make_grammar(options.data, options.max_words, options.min_words)
    truth = built_in.grammar
    generator = torch.Generator().manual_seed(derive_seed(options.data_seed, "sentences"))
    held_out = max(1, options.sentences // HELD_OUT_SHARE)

    def draw(size: int) -> Sentences:
        x, z = truth.sample(size, generator)
        return Sentences(x, tuple(spans_of(z, built_in.labels)))

    train, validation, test = draw(options.sentences), draw(held_out), draw(held_out)
    return Corpus(train, validation, test, tuple(built_in.words), truth)


def _load(options: Options) -> Corpus:
    """Loads a treebank."""
    if not (options.data in treebank_sources or Path(options.data).expanduser().exists()):
        raise unknown_name(
            "built-in grammar or treebank", options.data, [*built_in_grammars, *treebank_sources]
        )
    treebank = load_treebank(
        options.data, options.max_words, vocabulary_size=options.vocabulary,
        min_count=options.min_count, seed=options.data_seed,
    )  # fmt: skip
    train, validation, test = (
        part.select(part.lengths >= options.min_words)
        for part in (treebank.train, treebank.validation, treebank.test)
    )
    for name, part in {"training": train, "validation": validation, "test": test}.items():
        if not len(part):
            raise UserError(
                f"{options.data} holds no {name} sentence of {options.min_words} to "
                f"{options.max_words} words; lower --min-words or raise --max-words."
            )
    return Corpus(train, validation, test, treebank.vocabulary.words, None)
