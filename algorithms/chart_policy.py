"""A policy over trees that guesses the inside weights of spans and acts by the grammar's rules."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.policy import Memory
from algorithms.sentence_encoder import SentenceEncoder, span_number
from algorithms.span_policy import Expansion, SpanPolicy, Spans
from gfn_envs.errors import UserError
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.rules import GrammarRules

LEAST_RULE = -20.0
"""Rules that are less probable than this, in nats below the likeliest, count as so probable: a
policy must reach every tree that exploration draws, or its log-probability is -inf."""

TINY = 1e-30
"""Sums below are raised to this before their log is taken."""

PARENT_RANK = 16
"""How many numbers of a span and label the parent's label is combined with, at most."""


class _Tables(NamedTuple):
    """Rules as probabilities, divided by the largest; L left-hand sides, with parents if need be.

    Attributes:
        inner: `[L, K, K]`, at [l, B, C]: both children nonterminals.
        first: `[L, P K]`, at [l, p K + C]: the left child is preterminal p.
        last: `[L, P K]`, at [l, p K + B]: the right child is.
        log_scale: What they were divided by, `[]`, nats.
    """

    inner: Tensor
    first: Tensor
    last: Tensor
    log_scale: Tensor


class _Chart(NamedTuple):
    """What is remembered of B sentences; S spans, each under K' parents' labels or one for all.

    Attributes:
        log_weight: b, `[B, S, K', K]`, nats.
        share: exp(b), divided by its largest over the last dimension.
        scale: The log of that largest, `[B, S, K']`, without gradient.
        word: How well each preterminal emits each word, relative to the best, `[B, n, P]`.
        word_scale: The log of the best, `[B, n]`, nats.
        lengths: int64 `[B]`.
    """

    log_weight: Tensor
    share: Tensor
    scale: Tensor
    word: Tensor
    word_scale: Tensor
    lengths: Tensor


class ChartPolicy(SpanPolicy):
    """P_F(k, B, C | A, i, j) proportional to R[A -> B C] exp(b(B, i, k) + b(C, k, j)).

    b(A, i, j) is to be the log of the inside weight of a span, predicted from a sentence encoder
    that reads x once; a word's is known. With the right b it is the exact posterior of a
    context-free grammar. Where expansions depend on the label of A's parent, so does b, and the
    same holds. The rules are the model's, always the present ones; no gradient reaches them.

    At first b is the inside weight of a grammar whose rules are all alike and whose words are as
    frequent as the model's.
    """

    def __init__(
        self,
        model: Grammar | EnergyGrammar,
        embedding: int = 64,
        encoder_size: int = 96,
        hidden: int = 128,
    ) -> None:
        """Builds the networks.

        Args:
            model: The grammar, whose trees are built top-down, or one with energies beside it,
                which the rules know nothing of. It is not a part of the policy.
            embedding: The size of a word's embedding.
            encoder_size: The size of each LSTM's state.
            hidden: The size of the layers that read a span.

        Raises:
            UserError: If the trees are built bottom-up or a size is below 1.
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
        parents = labels + 1 if self.by_parent else 1
        rank = min(parents, PARENT_RANK)
        self.encoder = SentenceEncoder(
            grammar.vocabulary, grammar.max_words, embedding, encoder_size
        )
        self.read_span = nn.Sequential(
            nn.Linear(self.encoder.size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = zero_linear(hidden, rank * labels)
        # Each parent mixes what the head says in its own way; without parents it is taken as it is.
        mixing = torch.randn(parents, rank) if self.by_parent else torch.ones(1, 1)
        self.parent = nn.Parameter(mixing / math.sqrt(rank))
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
        """Guesses all inside weights of sentences `[B, N]`; see `_Chart`."""
        lengths = (x >= 0).sum(-1)
        words = x[:, : int(lengths.max())]
        with torch.no_grad():
            rules = self.grammar.rules()
            emission = F.embedding(words.clamp_min(0), rules.emission.T).clamp_min(-1e4)
            word_scale = emission.amax(-1)
            word = (emission - word_scale[..., None]).exp()
            log_weight = self._first_guess(emission)
        labels = self.grammar.nonterminals
        guess = self.head(self.read_span(self.encoder(words))).unflatten(-1, (-1, labels))
        log_weight = log_weight[..., None, None] + self.parent @ guess
        scale = log_weight.detach().amax(-1)
        share = (log_weight - scale[..., None]).exp()
        return _Chart(log_weight, share, scale, word, word_scale, lengths)

    def _first_guess(self, emission: Tensor) -> Tensor:
        """Gives the inside weights of a grammar whose rules are alike, `[B, S]`, nats.

        Args:
            emission: `[B, n, P]`, nats.
        """
        each = emission.logsumexp(-1) - math.log(emission.shape[-1])
        until = F.pad(each.cumsum(-1), (1, 0))
        spans = emission.shape[1] * (emission.shape[1] - 1) // 2
        left, right = self.encoder.left[:spans], self.encoder.right[:spans]
        return until[:, right] - until[:, left] + self.flat_weight[right - left]

    # -- SpanPolicy -----------------------------------------------------------------------------

    def root_logits(self, memory: Memory) -> Tensor:
        """Scores labels of the whole sentence, float `[B, K]`; see `SpanPolicy`."""
        chart = _Chart(*memory)
        with torch.no_grad():
            root = self.grammar.rules().root.clamp_min(LEAST_RULE)
        rows = torch.arange(len(chart.lengths), device=root.device)
        whole = span_number(torch.zeros_like(rows), chart.lengths)
        start = self.grammar.nonterminals if self.by_parent else 0
        return root + chart.log_weight[rows, whole, start]

    def log_partition(self, memory: Memory) -> Tensor:
        """Sums the guessed weights of the whole sentence, float `[B]`, nats."""
        return self.root_logits(memory).logsumexp(-1)

    def span_flow(self, memory: Memory, spans: Spans) -> Tensor:
        """Looks b up, float `[M]`, nats; see `SpanPolicy.span_flow`."""
        chart = _Chart(*memory)
        place = self._place(chart, spans.row, spans.left, spans.left + spans.width, spans.parent)
        entry = place * self.grammar.nonterminals + spans.label
        return chart.log_weight.flatten().index_select(0, entry)

    def expand(self, memory: Memory, spans: Spans) -> "ChartExpansion":
        """Weighs all splits of spans and the rules for them; see `SpanPolicy.expand`."""
        return ChartExpansion(self, _Chart(*memory), spans)

    def parts(
        self, chart: _Chart, row: Tensor, left: Tensor, right: Tensor, parent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Looks spans of two words or more up.

        Args:
            chart: What is guessed.
            row: int64 `[M]` or `[M, 1]`, as the others.
            left: Fenceposts.
            right: Fenceposts, `[M]` or `[M, s]`.
            parent: The label of the span that they are parts of.

        Returns:
            The shares of labels, float `[M, K]` or `[M, s, K]`, and the log of their scales.
        """
        place = self._place(chart, row, left, right, parent)
        share = chart.share.flatten(0, 2).index_select(0, place.flatten())
        return share.view(*place.shape, -1), chart.scale.flatten()[place]

    def _place(
        self, chart: _Chart, row: Tensor, left: Tensor, right: Tensor, parent: Tensor
    ) -> Tensor:
        """Finds spans under their parents in a flat `[B S K']`."""
        _, spans, parents, _ = chart.log_weight.shape
        place = (row * spans + span_number(left, right)) * parents
        return place + parent if self.by_parent else place

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
                largest,
            )
            self._made_tables = rules, made
        return self._made_tables[1]


class ChartExpansion(Expansion):
    """The weights of all splits of some spans of one width, and of the labels of their parts.

    Weights are divided by scales, whose logs are kept beside them.
    """

    def __init__(self, policy: ChartPolicy, chart: _Chart, spans: Spans) -> None:
        """Weighs them.

        Args:
            policy: Knows rules and places.
            chart: What is guessed of the sentences.
            spans: Of three words or more.
        """
        row, left, label, parent, width = spans
        end = left + width
        self.width = width
        self.tables = policy.tables()
        self.side = parent * policy.grammar.nonterminals + label if policy.by_parent else label
        # A word and a span, by the span's label, `[M, K]`; for the left word, then for the right.
        weight, scale = policy.parts(chart, row, left + 1, end, label)
        rules, word_scale = self._word(chart, row, left, self.tables.first)
        self.behind_word = weight * rules
        scales = [(scale + word_scale)[:, None]]
        weight, scale = policy.parts(chart, row, left, end - 1, label)
        rules, word_scale = self._word(chart, row, end - 1, self.tables.last)
        self.before_word = weight * rules
        last_scale = (scale + word_scale)[:, None]
        totals = [self.behind_word.sum(-1, keepdim=True)]
        if width > 3:  # two spans, by the left one's label, `[M, w - 3, K]`
            middle = left[:, None] + torch.arange(2, width - 1, device=left.device)
            row, label = row[:, None], label[:, None]
            lefts, left_scale = policy.parts(chart, row, left[:, None], middle, label)
            self.rights, right_scale = policy.parts(chart, row, middle, end[:, None], label)
            self.rules = self.tables.inner.index_select(0, self.side)
            self.lefts = lefts * (self.rights @ self.rules.mT)
            totals.append(self.lefts.sum(-1))
            scales.append(left_scale + right_scale)
        totals.append(self.before_word.sum(-1, keepdim=True))
        total, scale = torch.cat(totals, 1), torch.cat([*scales, last_scale], 1)
        self.split_logits = _log(total) + scale

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
        self, chart: _Chart, row: Tensor, position: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sums a word's preterminals into the rules, `[M, K]`, and gives its scale, `[M]`."""
        emitted = chart.word[row, position]
        rules = table.index_select(0, self.side).unflatten(1, (emitted.shape[1], -1))
        return (emitted[:, None] @ rules).squeeze(1), chart.word_scale[row, position]

    def _at(self, each: Tensor, split: Tensor) -> Tensor:
        """Picks a split between two spans from `[M, w - 3, K]`, any other where it is none."""
        place = (split - 1).clamp(0, self.width - 4)[:, None, None]
        return each.gather(1, place.expand(-1, 1, each.shape[-1])).squeeze(1)


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
