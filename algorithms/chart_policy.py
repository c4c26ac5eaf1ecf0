"""A policy over trees that guesses the inside weights of spans and acts by the grammar's rules."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.parent_lookahead import Lookahead, begin_lookahead, look_ahead
from algorithms.policy import Memory
from algorithms.sentence_encoder import SentenceEncoder, span_number
from algorithms.span_policy import Expansion, LabelledSpans, SpanPolicy, Spans
from algorithms.span_rules import (
    LEAST_RULE,
    LEAST_WEIGHT,
    RuleTables,
    SentenceWords,
    SpanRules,
    log_of,
)
from gfn_envs.errors import UserError, unknown_name
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.inside_chart import inside_chart, log_span_weights

FIRST_GUESSES = ("alike", "inside", "lookahead")
"""What a policy that knows nothing takes for inside weights; see `ChartPolicy`."""

GUESS_UNIT = 3.0
"""So many nats are one in what the network reads of a first guess."""


class _Memory(NamedTuple):
    """What is remembered of B sentences, with S spans.

    Attributes:
        log_weight: b of a context-free grammar; else what it is measured from, the first guess,
            `[B, S, K]`, nats.
        hidden: What is read of each span, `[B, S, H]`; where parents do not count, of no use.
        words: What the grammar says of the words.
        ahead: Of spans under their parents, what is worked out when it is asked for; () where the
            first guess knows no parents.
        lengths: int64 `[B]`.
    """

    log_weight: Tensor
    hidden: Tensor
    words: SentenceWords
    ahead: Lookahead | tuple[()]
    lengths: Tensor


class ChartPolicy(SpanPolicy):
    """P_F(k, B, C | A, i, j) proportional to R[A -> B C] exp(b(B, i, k) + b(C, k, j)).

    b(A, i, j) is to be the log of the inside weight of a span, predicted from a sentence encoder
    that reads x once; a word's is known. With the right b it is the exact posterior of a
    context-free grammar. Where expansions depend on the label of A's parent, so does b, and the
    same holds. The rules are the model's, always the present ones; no gradient reaches them.

    The network says how far b is from a first guess, which is one of

    * `alike`: the inside weight of a grammar whose rules are all alike and whose words are as
      frequent as the model's: all that is known of its rules is learned;
    * `inside`: the inside weight of the context-free grammar nearest to the model, by the inside
      algorithm. For a context-free grammar that is exact inference and nothing is left to learn;
      where parents or energies count, what they change is;
    * `lookahead`: for rules given the parent, these inside weights for a span's parts, and for the
      span itself the rules of its parent; see `parent_lookahead`.
    """

    def __init__(
        self,
        model: Grammar | EnergyGrammar,
        embedding: int = 64,
        encoder_size: int = 96,
        hidden: int = 128,
        first_guess: str | None = None,
    ) -> None:
        """Builds the networks.

        Args:
            model: The grammar, whose trees are built top-down, or one with energies beside it,
                which the rules know nothing of. It is not a part of the policy.
            embedding: The size of a word's embedding.
            encoder_size: The size of each LSTM's state.
            hidden: The size of the layers that read a span.
            first_guess: One of `FIRST_GUESSES`; by default `alike` for a context-free grammar
                alone, `lookahead` for rules given the parent, and `inside` otherwise.

        Raises:
            UserError: If the trees are built bottom-up, a size is below 1, the first guess is
                unknown, or it looks ahead to parents that do not count.
        """
        super().__init__(model.env)
        if min(embedding, encoder_size, hidden) < 1:
            raise UserError("A ChartPolicy needs sizes of at least 1.")
        self.rules = SpanRules(model)
        grammar, by_parent = self.rules.grammar, self.rules.by_parent
        labels = grammar.nonterminals
        plain = grammar is model and not by_parent
        default = "lookahead" if by_parent else "alike" if plain else "inside"
        self.first_guess = first_guess or default
        if self.first_guess not in FIRST_GUESSES:
            raise unknown_name("first guess", self.first_guess, FIRST_GUESSES)
        if self.first_guess == "lookahead" and not by_parent:
            raise UserError(
                "The first guess 'lookahead' is for grammars whose rules depend on the parent; use "
                "'inside'."
            )
        self.encoder = SentenceEncoder(
            grammar.vocabulary, grammar.max_words, embedding, encoder_size, hidden
        )
        informed = self.first_guess != "alike"
        self.read_guess = nn.Linear(labels, hidden, bias=False) if informed else None
        self.read_again = nn.Linear(hidden, hidden)
        self.parent = nn.Embedding(labels + 1, hidden) if by_parent else None
        self.head = zero_linear(hidden, labels)

    def encode(self, x: Tensor) -> Memory:
        """Reads all spans of sentences `[B, N]`; see `Policy.encode`."""
        lengths = (x >= 0).sum(-1)
        words = x[:, : int(lengths.max())]
        known_words = self.rules.words(words)
        log_weight = self._guess(x, known_words)
        hidden = self.encoder(words)
        if self.read_guess is not None:
            known = (log_weight - log_weight.amax(-1, keepdim=True)).clamp_min(LEAST_RULE)
            hidden = hidden + self.read_guess(known / GUESS_UNIT)
        hidden = self.read_again(F.relu(hidden))
        if self.parent is None:
            log_weight = log_weight + self.head(F.relu(hidden))
        elif log_weight.shape[-1] == 1:
            log_weight = log_weight.expand(-1, -1, self.env.labels)
        looks_ahead = self.first_guess == "lookahead"
        ahead = begin_lookahead(log_weight, words.shape[1]) if looks_ahead else ()
        return _Memory(log_weight, hidden, known_words, ahead, lengths)

    @torch.no_grad()
    def _guess(self, x: Tensor, words: SentenceWords) -> Tensor:
        """Gives the first guess of sentences `[B, N]`, `[B, S, K]` or `[B, S, 1]`, nats."""
        left, right = self.encoder.spans(words.scale.shape[1])
        if self.first_guess != "alike":
            chart = inside_chart(self.rules.context_free(), x)
            return log_span_weights(chart)[:, left, right].clamp_min(LEAST_WEIGHT)
        rows = torch.arange(len(x), device=x.device)[:, None]
        return self.rules.alike(words, rows, left, right)[..., None]

    def log_weights(self, memory: _Memory, place: Tensor, parent: Tensor) -> Tensor:
        """Gives b of spans under their parents, float `[R, K]`, nats.

        Args:
            memory: What `encode` returned.
            place: Where they are in a flat `[B S]`, int64 `[R]`.
            parent: The label of the span that each is a part of, int64 `[R]`; K for none.
        """
        if memory.ahead:
            ends = self.encoder.spans(memory.words.scale.shape[1])
            log_weight = look_ahead(self.rules, memory.words, memory.ahead, place, *ends, parent)
        else:
            # Unlike indexing, index_select has a gradient that does not sort.
            log_weight = memory.log_weight.flatten(0, 1).index_select(0, place)
        if self.parent is None:
            return log_weight
        hidden = memory.hidden.flatten(0, 1).index_select(0, place)
        above = self.parent.weight.index_select(0, parent)
        return log_weight + self.head(F.relu(hidden + above))

    # -- SpanPolicy -----------------------------------------------------------------------------

    def root_logits(self, memory: Memory) -> Tensor:
        """Scores labels of the whole sentence, float `[B, K]`; see `SpanPolicy`."""
        chart = _read(memory)
        rows = torch.arange(len(chart.lengths), device=chart.lengths.device)
        whole = place_of(chart, rows, torch.zeros_like(rows), chart.lengths)
        none = torch.full_like(rows, self.env.labels)
        return self.rules.log_root() + self.log_weights(chart, whole, none)

    def log_partition(self, memory: Memory) -> Tensor:
        """Sums the guessed weights of the whole sentence, float `[B]`, nats."""
        return self.root_logits(memory).logsumexp(-1)

    def span_flow(self, memory: Memory, spans: LabelledSpans) -> Tensor:
        """Looks b up, float `[M]`, nats; see `SpanPolicy.span_flow`."""
        chart = _read(memory)
        place = place_of(chart, spans.row, spans.left, spans.right)
        log_weight = self.log_weights(chart, place, spans.parent)
        return log_weight.gather(1, spans.label[:, None]).squeeze(1)

    def expand_all(self, memory: Memory, groups: Sequence[Spans]) -> Sequence[Expansion]:
        """Weighs all splits and the rules for them; see `SpanPolicy.expand_all`."""
        if not groups:
            return []
        chart = _read(memory)
        # Each part of each split: the first word's fellow, both of two spans, the last word's.
        places, parents = [], []
        for row, left, label, _, width in groups:
            start = left[:, None] + torch.arange(width - 1, device=left.device)
            lefts = place_of(chart, row[:, None], left[:, None], start[:, 1:] + 1)
            rights = place_of(chart, row[:, None], start[:, 1:], left[:, None] + width)
            both = torch.cat([lefts, rights], 1)
            places.append(both.flatten())
            parents.append(label[:, None].expand_as(both).flatten())
        log_weight = self.log_weights(chart, torch.cat(places), torch.cat(parents))
        scale = log_weight.detach().amax(-1)
        share = (log_weight - scale[:, None]).exp()
        sizes = [len(place) for place in places]
        tables, sides = self.rules.tables(), self.rules.side
        return [
            ChartExpansion(tables, chart.words, spans, sides(spans.label, spans.parent), *parts)
            for spans, *parts in zip(groups, share.split(sizes), scale.split(sizes), strict=True)
        ]


class ChartExpansion(Expansion):
    """The weights of all splits of some spans of one width, and of the labels of their parts.

    Weights are divided by scales, whose logs are kept beside them.
    """

    def __init__(
        self, tables: RuleTables, words: SentenceWords, spans: Spans, side: Tensor, share: Tensor,
        scale: Tensor,
    ) -> None:  # fmt: skip
        """Weighs them.

        Args:
            tables: The rules.
            words: What they say of the words.
            spans: Of three words or more.
            side: Their left-hand sides, int64 `[M]`.
            share: The weights of the labels of their parts, `[M 2 (w - 2), K]`: for each first of
                the left parts of two words and more, then of the right ones, wide to narrow.
            scale: The log that each of them was divided by, `[M 2 (w - 2)]`, nats.
        """
        row, left, _, _, width = spans
        self.width, last = width, left + width - 1
        lefts, rights = share.view(len(row), 2, width - 2, -1).unbind(1)
        left_scale, right_scale = scale.view(len(row), 2, width - 2).unbind(1)
        # A word and a span, by the span's label, `[M, K]`; for the left word, then for the right.
        self.behind_word = rights[:, 0] * tables.with_first(words, row, left, side)
        self.before_word = lefts[:, -1] * tables.with_last(words, row, last, side)
        totals = [self.behind_word.sum(-1, keepdim=True), self.before_word.sum(-1, keepdim=True)]
        if width > 3:  # two spans, by the left one's label, `[M, w - 3, K]`
            self.rights = rights[:, 1:]
            self.rules = tables.inner.index_select(0, side)
            self.lefts = lefts[:, :-1] * (self.rights @ self.rules.mT)
            totals.insert(1, self.lefts.sum(-1))
        log_scale = F.pad(left_scale, (1, 0)) + F.pad(right_scale, (0, 1))
        log_scale = log_scale + F.pad(words.scale[row, left, None], (0, width - 2))
        log_scale = log_scale + F.pad(words.scale[row, last, None], (width - 2, 0))
        self.split_logits = log_of(torch.cat(totals, 1)) + log_scale

    def left_logits(self, split: Tensor) -> Tensor:
        """Scores labels of the left part, float `[M, K]`; see `Expansion`."""
        weight = self.before_word
        if self.width > 3:
            is_last = (split == self.width - 2)[:, None]
            weight = torch.where(is_last, weight, self._at(self.lefts, split))
        return log_of(weight)

    def right_logits(self, split: Tensor, left_label: Tensor) -> Tensor:
        """Scores labels of the right part, float `[M, K]`; see `Expansion`."""
        weight = self.behind_word
        if self.width > 3:
            spans = torch.arange(len(split), device=split.device)
            inner = self.rules[spans, left_label] * self._at(self.rights, split)
            weight = torch.where((split == 0)[:, None], weight, inner)
        return log_of(weight)

    def _at(self, each: Tensor, split: Tensor) -> Tensor:
        """Picks a split between two spans from `[M, w - 3, K]`, any other where it is none."""
        place = (split - 1).clamp(0, self.width - 4)[:, None, None]
        return each.gather(1, place.expand(-1, 1, each.shape[-1])).squeeze(1)


def _read(memory: Memory) -> _Memory:
    """Gives the parts of a memory their names again, which are lost where batches are joined."""
    log_weight, hidden, words, ahead, lengths = memory
    ahead = Lookahead(*ahead) if ahead else ()
    return _Memory(log_weight, hidden, SentenceWords(*words), ahead, lengths)


def place_of(memory: _Memory, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Finds spans of two words or more in a flat `[B S]`."""
    return row * memory.log_weight.shape[1] + span_number(left, right)
