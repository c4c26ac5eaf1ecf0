"""A policy over trees that guesses the inside weights of spans and acts by the grammar's rules."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.policy import Memory
from algorithms.sentence_encoder import SentenceEncoder, span_number
from algorithms.span_policy import Expansion, SpanPolicy, Spans
from gfn_envs.errors import UserError, unknown_name
from lvms.grammars.context_free import without_parents
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.inside_chart import inside_chart, log_span_weights
from lvms.grammars.rules import GrammarRules

LEAST_RULE = -20.0
"""Rules that are less probable than this, in nats below the likeliest, count as so probable: a
policy must reach every tree that exploration draws, or its log-probability is -inf."""

TINY = 1e-30
"""Sums below are raised to this before their log is taken."""

LEAST_WEIGHT = -1e4
"""Inside weights that are guessed are at least this, nats: what a grammar cannot derive is 0."""


FIRST_GUESSES = ("alike", "inside")
"""What a policy that knows nothing takes for inside weights; see `ChartPolicy`."""


GUESS_UNIT = 3.0
"""So many nats are one in what the network reads of a first guess."""


class _Tables(NamedTuple):
    """Rules as probabilities, divided by the largest; L left-hand sides, with parents if need be.

    Attributes:
        inner: `[L, K, K]`, at [l, B, C]: both children nonterminals.
        first: `[L, P K]`, at [l, p K + C]: the left child is preterminal p.
        last: `[L, P K]`, at [l, p K + B]: the right child is.
        context_free: The rules of the nearest context-free grammar.
    """

    inner: Tensor
    first: Tensor
    last: Tensor
    context_free: GrammarRules


class _Memory(NamedTuple):
    """What is remembered of B sentences, with S spans.

    Attributes:
        log_weight: b of a context-free grammar; else what it is measured from, the first guess,
            `[B, S, K]`, nats.
        hidden: What is read of each span, `[B, S, H]`; where parents do not count, of no use.
        word: How well each preterminal emits each word, relative to the best, `[B, n, P]`.
        word_scale: The log of the best, `[B, n]`, nats.
        lengths: int64 `[B]`.
    """

    log_weight: Tensor
    hidden: Tensor
    word: Tensor
    word_scale: Tensor
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
      where parents or energies count, what they change is.
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
                alone, and `inside` otherwise.

        Raises:
            UserError: If the trees are built bottom-up, a size is below 1 or the first guess is
                unknown.
        """
        super().__init__(model.env)
        grammar = model.grammar if isinstance(model, EnergyGrammar) else model
        if min(embedding, encoder_size, hidden) < 1:
            raise UserError("A ChartPolicy needs sizes of at least 1.")
        # In a tuple, so that it is no submodule: its parameters are not the policy's.
        self._model = (grammar,)
        labels = grammar.nonterminals
        with torch.no_grad():
            self.by_parent = grammar.rules().conditioned_on_parent
        plain = grammar is model and not self.by_parent
        self.first_guess = first_guess or ("alike" if plain else "inside")
        if self.first_guess not in FIRST_GUESSES:
            raise unknown_name("first guess", self.first_guess, FIRST_GUESSES)
        self.encoder = SentenceEncoder(
            grammar.vocabulary, grammar.max_words, embedding, encoder_size
        )
        self.read_span = nn.Linear(self.encoder.size, hidden)
        informed = self.first_guess == "inside"
        self.read_guess = nn.Linear(labels, hidden, bias=False) if informed else None
        self.read_again = nn.Linear(hidden, hidden)
        self.parent = nn.Embedding(labels + 1, hidden) if self.by_parent else None
        self.head = zero_linear(hidden, labels)
        flat = log_weights_of_alike_rules(
            grammar.nonterminals, grammar.preterminals, grammar.max_words
        )
        self.register_buffer("flat_weight", flat, persistent=False)
        self._made_tables: tuple[GrammarRules, _Tables] | None = None

    flat_weight: Tensor

    @property
    def grammar(self) -> Grammar:
        """The model's grammar."""
        return self._model[0]

    def encode(self, x: Tensor) -> Memory:
        """Reads all spans of sentences `[B, N]`; see `Policy.encode`."""
        lengths = (x >= 0).sum(-1)
        words = x[:, : int(lengths.max())]
        with torch.no_grad():
            rules = self.grammar.rules()
            emission = F.embedding(words.clamp_min(0), rules.emission.T).clamp_min(LEAST_WEIGHT)
            word_scale = emission.amax(-1)
            word = (emission - word_scale[..., None]).exp()
            log_weight = self._guess(x, emission)
        hidden = self.read_span(self.encoder(words))
        if self.read_guess is not None:
            known = (log_weight - log_weight.amax(-1, keepdim=True)).clamp_min(LEAST_RULE)
            hidden = hidden + self.read_guess(known / GUESS_UNIT)
        hidden = self.read_again(F.relu(hidden))
        if not self.by_parent:
            log_weight = log_weight + self.head(F.relu(hidden))
        elif log_weight.shape[-1] == 1:
            log_weight = log_weight.expand(-1, -1, self.grammar.nonterminals)
        return _Memory(log_weight, hidden, word, word_scale, lengths)

    def _guess(self, x: Tensor, emission: Tensor) -> Tensor:
        """Gives the first guess, float `[B, S, K]` or `[B, S, 1]`, nats.

        Args:
            x: int64 `[B, N]`.
            emission: `[B, n, P]`, nats.
        """
        spans = emission.shape[1] * (emission.shape[1] - 1) // 2
        left, right = self.encoder.left[:spans], self.encoder.right[:spans]
        if self.first_guess == "inside":
            chart = inside_chart(self.tables().context_free, x)
            return log_span_weights(chart)[:, left, right].clamp_min(LEAST_WEIGHT)
        each = emission.logsumexp(-1) - math.log(emission.shape[-1])
        until = F.pad(each.cumsum(-1), (1, 0))
        guess = until[:, right] - until[:, left] + self.flat_weight[right - left]
        return guess[..., None]

    def log_weights(self, memory: _Memory, place: Tensor, parent: Tensor) -> Tensor:
        """Gives b of spans under their parents, float `[R, K]`, nats.

        Args:
            memory: What `encode` returned.
            place: Where they are in a flat `[B S]`, int64 `[R]`.
            parent: The label of the span that each is a part of, int64 `[R]`; K for none.
        """
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
        chart = _Memory(*memory)
        with torch.no_grad():
            root = self.grammar.rules().root.clamp_min(LEAST_RULE)
        rows = torch.arange(len(chart.lengths), device=root.device)
        whole = place_of(chart, rows, torch.zeros_like(rows), chart.lengths)
        none = torch.full_like(rows, self.grammar.nonterminals)
        return root + self.log_weights(chart, whole, none)

    def log_partition(self, memory: Memory) -> Tensor:
        """Sums the guessed weights of the whole sentence, float `[B]`, nats."""
        return self.root_logits(memory).logsumexp(-1)

    def span_flow(self, memory: Memory, spans: Spans) -> Tensor:
        """Looks b up, float `[M]`, nats; see `SpanPolicy.span_flow`."""
        chart = _Memory(*memory)
        place = place_of(chart, spans.row, spans.left, spans.left + spans.width)
        log_weight = self.log_weights(chart, place, spans.parent)
        return log_weight.gather(1, spans.label[:, None]).squeeze(1)

    def expand(self, memory: Memory, spans: Spans) -> Expansion:
        """Weighs all splits of spans and the rules for them; see `SpanPolicy.expand`."""
        return self.expand_all(memory, [spans])[0]

    def expand_all(self, memory: Memory, groups: Sequence[Spans]) -> Sequence[Expansion]:
        """Does so for groups of spans, looking all their parts up together."""
        if not groups:
            return []
        chart = _Memory(*memory)
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
        return [
            ChartExpansion(self, chart, spans, *parts)
            for spans, *parts in zip(groups, share.split(sizes), scale.split(sizes), strict=True)
        ]

    @torch.no_grad()
    def tables(self) -> _Tables:
        """Gives the present rules as probabilities; made once until they change."""
        rules = self.grammar.rules()
        if self._made_tables is None or self._made_tables[0] is not rules:
            labels = self.grammar.nonterminals
            binary = rules.binary.flatten(0, -3)
            largest = binary.amax()
            table = (binary - largest).clamp_min(LEAST_RULE).exp()
            made = _Tables(
                table[:, :labels, :labels].contiguous(),
                table[:, labels:, :labels].flatten(1),
                table[:, :labels, labels:].mT.flatten(1),
                without_parents(rules),
            )
            self._made_tables = rules, made
        return self._made_tables[1]


class ChartExpansion(Expansion):
    """The weights of all splits of some spans of one width, and of the labels of their parts.

    Weights are divided by scales, whose logs are kept beside them.
    """

    def __init__(
        self, policy: ChartPolicy, memory: _Memory, spans: Spans, share: Tensor, scale: Tensor
    ) -> None:
        """Weighs them.

        Args:
            policy: Knows the rules.
            memory: What `encode` returned.
            spans: Of three words or more.
            share: The weights of the labels of their parts, `[M 2 (w - 2), K]`: for each first of
                the left parts of two words and more, then of the right ones, wide to narrow.
            scale: The log that each of them was divided by, `[M 2 (w - 2)]`, nats.
        """
        row, left, label, parent, width = spans
        self.width = width
        self.tables = policy.tables()
        self.side = parent * policy.grammar.nonterminals + label if policy.by_parent else label
        lefts, rights = share.view(len(row), 2, width - 2, -1).unbind(1)
        left_scale, right_scale = scale.view(len(row), 2, width - 2).unbind(1)
        # A word and a span, by the span's label, `[M, K]`; for the left word, then for the right.
        rules, first_scale = self._word(memory, row, left, self.tables.first)
        self.behind_word = rights[:, 0] * rules
        rules, last_scale = self._word(memory, row, left + width - 1, self.tables.last)
        self.before_word = lefts[:, -1] * rules
        totals = [self.behind_word.sum(-1, keepdim=True), self.before_word.sum(-1, keepdim=True)]
        if width > 3:  # two spans, by the left one's label, `[M, w - 3, K]`
            self.rights = rights[:, 1:]
            self.rules = self.tables.inner.index_select(0, self.side)
            self.lefts = lefts[:, :-1] * (self.rights @ self.rules.mT)
            totals.insert(1, self.lefts.sum(-1))
        log_scale = F.pad(left_scale, (1, 0)) + F.pad(right_scale, (0, 1))
        words = F.pad(first_scale[:, None], (0, width - 2)) + F.pad(
            last_scale[:, None], (width - 2, 0)
        )
        self.split_logits = _log(torch.cat(totals, 1)) + log_scale + words

    def left_logits(self, split: Tensor) -> Tensor:
        """Scores labels of the left part, float `[M, K]`; see `Expansion`."""
        weight = self.before_word
        if self.width > 3:
            is_last = (split == self.width - 2)[:, None]
            weight = torch.where(is_last, weight, self._at(self.lefts, split))
        return _log(weight)

    def right_logits(self, split: Tensor, left_label: Tensor) -> Tensor:
        """Scores labels of the right part, float `[M, K]`; see `Expansion`."""
        weight = self.behind_word
        if self.width > 3:
            spans = torch.arange(len(split), device=split.device)
            inner = self.rules[spans, left_label] * self._at(self.rights, split)
            weight = torch.where((split == 0)[:, None], weight, inner)
        return _log(weight)

    def _word(
        self, chart: _Memory, row: Tensor, position: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums a word's preterminals into the rules, `[M, K]`, and gives its scale, `[M]`."""
        emitted = chart.word[row, position]
        rules = table.index_select(0, self.side).unflatten(1, (emitted.shape[1], -1))
        return (emitted[:, None] @ rules).squeeze(1), chart.word_scale[row, position]

    def _at(self, each: Tensor, split: Tensor) -> Tensor:
        """Picks a split between two spans from `[M, w - 3, K]`, any other where it is none."""
        place = (split - 1).clamp(0, self.width - 4)[:, None, None]
        return each.gather(1, place.expand(-1, 1, each.shape[-1])).squeeze(1)


def place_of(memory: _Memory, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Finds spans of two words or more in a flat `[B S]`."""
    return row * memory.log_weight.shape[1] + span_number(left, right)


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


def _log(weight: Tensor) -> Tensor:
    """Takes the log of weights, which must not be 0."""
    return weight.clamp_min(TINY).log()
