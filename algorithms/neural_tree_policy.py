"""A policy over trees whose networks score splits and labels, with or without the rules."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.policy import Memory
from algorithms.sentence_encoder import SentenceEncoder
from algorithms.span_policy import Expansion, LabelledSpans, SpanPolicy, Spans
from algorithms.span_rules import RuleTables, SentenceWords, SpanRules, log_of
from gfn_envs.errors import UserError
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar


class _Memory(NamedTuple):
    """What is remembered of B sentences, with S spans of one word and more.

    The first layer of a split is linear in the vectors of the span and of its two parts, so what
    each span adds to it in each of these roles is computed once.

    Attributes:
        roles: What each adds as the span that is split, as its left and as its right part,
            `[B, S, 3, H]`.
        flow: What each adds to the first layer of flows, `[B, S, H]`.
        words: What the grammar says of the words.
        lengths: int64 `[B]`.
    """

    roles: Tensor
    flow: Tensor
    words: SentenceWords
    lengths: Tensor


class NeuralTreePolicy(SpanPolicy):
    """P_F(k | A, i, j), then P_F(B | k, A, i, j), then P_F(C | B, k, A, i, j), by perceptrons.

    They read the vectors of the span and of its two parts, from a sentence encoder that reads x
    once, their widths, the label A and, where expansions depend on it, the label of A's parent. So
    they can learn what no rules say, as under a prior over shapes, as far as it can be told from a
    span: what is above and beside it they do not see.

    With the rules in its logits the policy starts as the posterior of a grammar in which all rules
    but those of the expansion itself are alike, and learns how the parts' inside weights differ;
    without them it starts uniform. No gradient reaches the rules, which are always the present
    ones.

    log Z(x) and span flows have layers of their own, whose large values would drown what P_F needs
    of shared ones, and are measured from the inside weights of a grammar whose rules are all alike.
    """

    def __init__(
        self,
        model: Grammar | EnergyGrammar,
        rule_scores: bool = True,
        embedding: int = 64,
        encoder_size: int = 96,
        hidden: int = 96,
    ) -> None:
        """Builds the networks.

        Args:
            model: The grammar, whose trees are built top-down, or one with energies beside it,
                which the rules know nothing of. It is not a part of the policy.
            rule_scores: Whether the log-probabilities of its rules are in the logits.
            embedding: The size of a word's embedding.
            encoder_size: The size of each LSTM's state.
            hidden: The size of each hidden layer.

        Raises:
            UserError: If the trees are built bottom-up or a size is below 1.
        """
        super().__init__(model.env)
        if min(embedding, encoder_size, hidden) < 1:
            raise UserError("A NeuralTreePolicy needs sizes of at least 1.")
        self.rules = SpanRules(model)
        self.rule_scores = rule_scores
        grammar, labels = self.rules.grammar, self.env.labels
        self.encoder = SentenceEncoder(
            grammar.vocabulary, grammar.max_words, embedding, encoder_size, 2 * hidden, shortest=1
        )
        self.width = nn.Embedding(grammar.max_words + 1, 2 * hidden)
        self.read_roles = nn.Linear(hidden, 3 * hidden)
        # The last label stands for the start symbol, which becomes a whole sentence.
        self.label = nn.Embedding(labels + 1, hidden)
        self.parent = nn.Embedding(labels + 1, hidden) if self.rules.by_parent else None
        self.left_label = nn.Embedding(labels + 1, hidden)
        self.root_head = zero_linear(hidden, labels)
        self.split_head = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.split_head.weight)
        self.left_head = zero_linear(hidden, labels)
        self.right_head = zero_linear(hidden, labels)
        self.flow_label = nn.Embedding(labels + 1, hidden)
        self.flow_parent = nn.Embedding(labels + 1, hidden) if self.rules.by_parent else None
        self.flow_layer = nn.Linear(hidden, hidden)
        self.flow_head = zero_linear(hidden, 1)

    def encode(self, x: Tensor) -> Memory:
        """Reads all spans of sentences `[B, N]`; see `Policy.encode`."""
        lengths = (x >= 0).sum(-1)
        words = x[:, : int(lengths.max())]
        left, right = self.encoder.spans(words.shape[1])
        span = self.encoder(words) + self.width(right - left)
        own, flow = span.chunk(2, -1)
        roles = self.read_roles(F.relu(own)).unflatten(-1, (3, -1))
        return _Memory(roles, flow, self.rules.words(words), lengths)

    # -- SpanPolicy -----------------------------------------------------------------------------

    def root_logits(self, memory: Memory) -> Tensor:
        """Scores labels of the whole sentence, float `[B, K]`; see `SpanPolicy`."""
        known = _read(memory)
        whole = self._role(known, 0, *self._sentences(known))
        hidden = known.roles.flatten(0, 2).index_select(0, whole) + self.label.weight[-1]
        logits = self.root_head(F.relu(hidden))
        return logits + self.rules.log_root() if self.rule_scores else logits

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates what the start symbol makes of the sentence, float `[B]`, nats."""
        known = _read(memory)
        row, left, right = self._sentences(known)
        start = torch.full_like(row, self.env.labels)
        return self.span_flow(memory, LabelledSpans(row, left, right, start, start))

    def span_flow(self, memory: Memory, spans: LabelledSpans) -> Tensor:
        """Estimates inside weights, float `[M]`, nats; see `SpanPolicy.span_flow`."""
        known = _read(memory)
        row, left, right, label, parent = spans
        place = row * known.flow.shape[1] + self.encoder.number(left, right)
        # Unlike indexing, index_select has a gradient that does not sort.
        hidden = known.flow.flatten(0, 1).index_select(0, place)
        hidden = hidden + self.flow_label.weight.index_select(0, label)
        if self.flow_parent is not None:
            hidden = hidden + self.flow_parent.weight.index_select(0, parent)
        flow = self.flow_head(F.relu(self.flow_layer(F.relu(hidden)))).squeeze(-1)
        return flow + self.rules.alike(known.words, row, left, right)

    def expand_all(self, memory: Memory, groups: Sequence[Spans]) -> Sequence[Expansion]:
        """Scores all splits of all spans together; see `SpanPolicy.expand_all`."""
        if not groups:
            return []
        known = _read(memory)
        row, left, label, parent = (
            torch.cat([getattr(spans, name) for spans in groups])
            for name in ("row", "left", "label", "parent")
        )
        width = torch.cat([torch.full_like(spans.row, spans.width) for spans in groups])
        above = self.label.weight.index_select(0, label)
        if self.parent is not None:
            above = above + self.parent.weight.index_select(0, parent)
        # Every split of every span, those of a span one after the other.
        splits = width - 1
        which = torch.arange(len(row), device=row.device).repeat_interleave(splits)
        first = splits.cumsum(0) - splits
        split = torch.arange(len(which), device=row.device) - first[which]
        whose, start, end = row[which], left[which], (left + width)[which]
        middle = start + 1 + split
        roles = [
            self._role(known, 0, whose, start, end),
            self._role(known, 1, whose, start, middle),
            self._role(known, 2, whose, middle, end),
        ]
        # The sum of one row for each role, without a tensor for each.
        spans_sum = F.embedding_bag(torch.stack(roles, 1), known.roles.flatten(0, 2), mode="sum")
        first_layer = spans_sum + above.index_select(0, which)
        logits = self.split_head(F.relu(first_layer)).squeeze(-1)
        tables = self.rules.tables()
        sizes = [len(spans.row) * (spans.width - 1) for spans in groups]
        return [
            NeuralExpansion(self, tables, known.words, spans, *parts)
            for spans, *parts in zip(
                groups, first_layer.split(sizes), logits.split(sizes), strict=True
            )
        ]

    def _role(self, known: _Memory, role: int, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Finds what spans add in a role in a flat `[B S 3]`."""
        return 3 * (row * known.roles.shape[1] + self.encoder.number(left, right)) + role

    def _sentences(self, known: _Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Gives the rows of all sentences and their fenceposts, int64 `[B]` each."""
        rows = torch.arange(len(known.lengths), device=known.lengths.device)
        return rows, torch.zeros_like(rows), known.lengths


class NeuralExpansion(Expansion):
    """Scores of all splits of some spans of one width, and of the labels of their parts."""

    def __init__(
        self, policy: NeuralTreePolicy, tables: RuleTables, words: SentenceWords, spans: Spans,
        first_layer: Tensor, logits: Tensor,
    ) -> None:  # fmt: skip
        """Adds what the rules say of the splits.

        Args:
            policy: Has the heads.
            tables: The rules.
            words: What they say of the words.
            spans: Of three words or more.
            first_layer: The first hidden layer of each split, before its activation,
                `[M (w - 1), H]`.
            logits: What the network says of each split, `[M (w - 1)]`.
        """
        self.policy, self.words, self.spans, self.first_layer = policy, words, spans, first_layer
        self.side = policy.rules.side(spans.label, spans.parent)
        self.tables = tables
        self.split_logits = logits.view(-1, spans.width - 1)
        if policy.rule_scores:
            self.split_logits = self.split_logits + self._split_rules()

    def left_logits(self, split: Tensor) -> Tensor:
        """Scores labels of the left part, float `[M, K]`; see `Expansion`."""
        logits = self.policy.left_head(F.relu(self._at(split)))
        if not self.policy.rule_scores:
            return logits
        by_word = log_of(self.before_word)
        by_span = self.tables.log_left.index_select(0, self.side)
        is_last = (split == self.spans.width - 2)[:, None]
        return logits + torch.where(is_last, by_word, by_span)

    def right_logits(self, split: Tensor, left_label: Tensor) -> Tensor:
        """Scores labels of the right part, float `[M, K]`; see `Expansion`."""
        label = left_label.where(split > 0, self.policy.env.labels)
        hidden = self._at(split) + self.policy.left_label.weight.index_select(0, label)
        logits = self.policy.right_head(F.relu(hidden))
        if not self.policy.rule_scores:
            return logits
        by_word = log_of(self.behind_word)
        inner = self.tables.inner
        place = self.side * inner.shape[1] + left_label
        by_span = log_of(inner.flatten(0, 1).index_select(0, place))
        return logits + torch.where((split == 0)[:, None], by_word, by_span)

    def _split_rules(self) -> Tensor:
        """Sums the rules for each split over the labels of the parts, `[M, w - 1]`, nats.

        As if labels made no difference to what parts of two words and more become.
        """
        tables, rules, words = self.tables, self.policy.rules, self.words
        row, left, _, _, width = self.spans
        last = left + width - 1
        self.behind_word = tables.with_first(words, row, left, self.side)
        self.before_word = tables.with_last(words, row, last, self.side)
        inner = tables.log_inner.index_select(0, self.side)
        log_rules = inner[:, None].expand(-1, width - 1).clone()
        # Words are known: what all rules that make them add, and not how frequent they are.
        log_rules[:, 0] = log_of(self.behind_word.sum(-1)) + self._surplus(row, left)
        log_rules[:, -1] = log_of(self.before_word.sum(-1)) + self._surplus(row, last)
        part = torch.arange(1, width, device=row.device)
        return log_rules + rules.alike_rules(part) + rules.alike_rules(width - part)

    def _surplus(self, row: Tensor, position: Tensor) -> Tensor:
        """Says how much likelier words are under their best preterminal than on average, `[M]`."""
        until = self.words.until
        average = until[row, position + 1] - until[row, position]
        return self.words.scale[row, position] - average

    def _at(self, split: Tensor) -> Tensor:
        """Picks the first layer of given splits, `[M, H]`."""
        splits = self.spans.width - 1
        first = torch.arange(0, len(split) * splits, splits, device=split.device)
        # Of spans that are not split yet `SpanPolicy.logits` asks for anything.
        return self.first_layer.index_select(0, first + split.clamp_max(splits - 1))


def _read(memory: Memory) -> _Memory:
    """Gives the parts of a memory their names again, which are lost where batches are joined."""
    roles, flow, words, lengths = memory
    return _Memory(roles, flow, SentenceWords(*words), lengths)
