"""What policies that expand spans ask of a grammar: its present rules and what its words say."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lvms.grammars.context_free import without_parents
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.rules import GrammarRules

LEAST_RULE = -20.0
"""Rules that are less probable than this, in nats below the likeliest, count as so probable: a
policy must reach every tree that exploration draws, or its log-probability is -inf."""

TINY = 1e-30
"""Sums below are raised to this before their log is taken."""

LEAST_WEIGHT = -1e4
"""Log-weights that are guessed are at least this: what a grammar cannot derive has weight 0."""


class RuleTables(NamedTuple):
    """Rules as probabilities, divided by the largest; L left-hand sides, with parents if need be.

    Attributes:
        inner: `[L, K, K]`, at [l, B, C]: both children nonterminals.
        first: `[L, P K]`, at [l, p K + C]: the left child is preterminal p.
        last: `[L, P K]`, at [l, p K + B]: the right child is.
        both_words: `[L, P P]`: both are.
        log_largest: The log of what they were divided by, `[]`, nats.
        log_left: Of `inner`, summed over the right child: the log, `[L, K]`, nats.
        log_inner: Summed over both, `[L]`, nats.
    """

    inner: Tensor
    first: Tensor
    last: Tensor
    both_words: Tensor
    log_largest: Tensor
    log_left: Tensor
    log_inner: Tensor

    def with_first(self, words: "SentenceWords", row: Tensor, left: Tensor, side: Tensor) -> Tensor:
        """Sums over the preterminals of first words, by the label of the right part.

        Args:
            words: What `SpanRules.words` returned.
            row: The sentence of each span, int64 `[M]`.
            left: Where it begins.
            side: Its left-hand side.

        Returns:
            The rules, divided by the largest, times the words' weights, `[M, K]`.
        """
        return _with_word(words.weight, self.first, words.first, row, left, side)

    def with_last(self, words: "SentenceWords", row: Tensor, last: Tensor, side: Tensor) -> Tensor:
        """Does the same for last words, by the label of the left part; see `with_first`."""
        return _with_word(words.weight, self.last, words.last, row, last, side)


class SentenceWords(NamedTuple):
    """What a grammar says of the words of B sentences, n of them in the longest.

    Attributes:
        weight: How well each preterminal emits each word, relative to the best, `[B, n, P]`.
        scale: The log of the best, `[B, n]`, nats.
        until: The log-probabilities of the words before each fencepost, summed, if preterminals
            are equally frequent, `[B, n + 1]`, nats.
        first: By the label of a span that begins with the word, and by that of its right part, all
            rules that make the word a left part, `[B, n, K, K]`. Where rules depend on the parent
            they would be too many, and it is `[B, n, 0, 0]`.
        last: The same for its last word and its left part.
    """

    weight: Tensor
    scale: Tensor
    until: Tensor
    first: Tensor
    last: Tensor


class SpanRules:
    """The rules of a model's grammar, always the present ones; no gradient reaches them.

    Attributes:
        grammar: The grammar; of one with energies beside it, which the rules know nothing of.
        by_parent: Whether rules depend on the parent's label.
    """

    def __init__(self, model: Grammar | EnergyGrammar) -> None:
        """Takes the model."""
        self.grammar = model.grammar if isinstance(model, EnergyGrammar) else model
        self.by_parent = self.now().conditioned_on_parent
        self._flat_weight = log_weights_of_alike_rules(
            self.grammar.nonterminals, self.grammar.preterminals, self.grammar.max_words
        )
        self._made: tuple[GrammarRules, RuleTables] | None = None
        self._averaged: tuple[GrammarRules, GrammarRules] | None = None

    @torch.no_grad()
    def now(self) -> GrammarRules:
        """Gives the present rules, nats."""
        return self.grammar.rules()

    def tables(self) -> RuleTables:
        """Gives the present rules as probabilities; made once until they change."""
        rules = self.now()
        if self._made is None or self._made[0] is not rules:
            labels = self.grammar.nonterminals
            binary = rules.binary.flatten(0, -3)
            log_largest = binary.amax()
            table = (binary - log_largest).clamp_min(LEAST_RULE).exp()
            inner = table[:, :labels, :labels].contiguous()
            made = RuleTables(
                inner,
                table[:, labels:, :labels].flatten(1),
                table[:, :labels, labels:].mT.flatten(1),
                table[:, labels:, labels:].flatten(1),
                log_largest,
                log_of(inner.sum(-1)),
                log_of(inner.sum((-2, -1))),
            )
            self._made = rules, made
        return self._made[1]

    def context_free(self) -> GrammarRules:
        """Gives the nearest context-free grammar, nats; made once until the rules change."""
        rules = self.now()
        if self._averaged is None or self._averaged[0] is not rules:
            self._averaged = rules, without_parents(rules)
        return self._averaged[1]

    def log_root(self) -> Tensor:
        """Gives how probable each label of a whole sentence is, float `[K]`, nats."""
        return self.now().root.clamp_min(LEAST_RULE)

    def side(self, label: Tensor, parent: Tensor) -> Tensor:
        """Numbers left-hand sides, in 0 .. L - 1, by labels and their parents' `[M]`."""
        return parent * self.grammar.nonterminals + label if self.by_parent else label

    @torch.no_grad()
    def words(self, words: Tensor) -> SentenceWords:
        """Looks words up.

        Args:
            words: int64 `[B, n]`, -1 behind the end.
        """
        emission = F.embedding(words.clamp_min(0), self.now().emission.T).clamp_min(LEAST_WEIGHT)
        scale = emission.amax(-1)
        weight = (emission - scale[..., None]).exp()
        each = emission.logsumexp(-1) - math.log(emission.shape[-1])
        until = F.pad(each.cumsum(-1), (1, 0))
        if self.by_parent:
            none = weight.new_empty(*words.shape, 0, 0)
            return SentenceWords(weight, scale, until, none, none)
        tables = self.tables()
        return SentenceWords(
            weight, scale, until,
            self._all_sides(weight, tables.first), self._all_sides(weight, tables.last),
        )  # fmt: skip

    def _all_sides(self, weight: Tensor, table: Tensor) -> Tensor:
        """Sums preterminals into the rules of all labels, `[B, n, K, K]`."""
        labels, preterminals = len(table), weight.shape[-1]
        by_preterminal = table.view(labels, preterminals, -1).transpose(0, 1).flatten(1)
        return (weight @ by_preterminal).unflatten(-1, (labels, -1))

    def alike(self, words: SentenceWords, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Gives inside weights, for any label, of a grammar whose rules are all alike.

        Args:
            words: What `words` returned.
            row: The sentence of each span, int64, of any shape that goes with the others.
            left: The fencepost before its first word.
            right: The fencepost behind its last.

        Returns:
            float, nats; of a word, how probable it is.
        """
        flat_weight = self._flat_weight.to(right.device)
        return words.until[row, right] - words.until[row, left] + flat_weight[right - left]

    def alike_rules(self, width: Tensor) -> Tensor:
        """Gives what the rules add to `alike`, nats, by the number of words; 0 for one word."""
        return self._flat_weight.to(width.device)[width]


def _with_word(
    weight: Tensor, table: Tensor, known: Tensor, row: Tensor, position: Tensor, side: Tensor
) -> Tensor:
    """Looks sums over preterminals up, or makes those that are asked for if none are known."""
    place = row * weight.shape[1] + position
    if known.numel():
        place = place * known.shape[2] + side
        return known.flatten(0, 2).index_select(0, place)
    emitted = weight.flatten(0, 1).index_select(0, place)
    rules = table.index_select(0, side).unflatten(1, (emitted.shape[1], -1))
    return (emitted[:, None] @ rules).squeeze(1)


def log_weights_of_alike_rules(nonterminals: int, preterminals: int, max_words: int) -> Tensor:
    """Computes the inside weights of spans where all rules and all words are alike.

    Args:
        nonterminals: K.
        preterminals: P.
        max_words: N.

    Returns:
        float `[N + 1]`, nats, by the number of words; 0 below 2.
    """
    log_rule = -2 * math.log(nonterminals + preterminals)
    # Summed over the labels that a part of so many words can have.
    log_part = torch.full((max_words + 1,), math.log(preterminals), dtype=torch.float64)
    log_weight = torch.zeros_like(log_part)
    for width in range(2, max_words + 1):
        both = log_part[1:width] + log_part[1:width].flip(0)
        log_weight[width] = log_rule + both.logsumexp(0)
        log_part[width] = log_weight[width] + math.log(nonterminals)
    return log_weight.float()


def log_of(weight: Tensor) -> Tensor:
    """Takes the log of weights, which must not be 0."""
    return weight.clamp_min(TINY).log()
