"""The policy of Hu et al. (2023) over parse trees: a Transformer over the roots of the forest."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.policy import Memory, Policy
from algorithms.ragged_transformer import RaggedTransformer
from gfn_envs.binary_tree import UNSET, children, tree_nodes
from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.errors import UserError
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar


class _Memory(NamedTuple):
    """What is remembered of B sentences of at most N words.

    Attributes:
        word: The words' vectors, float `[B, N, D]`.
        length: How many words there are, int64 `[B]`.
    """

    word: Tensor
    length: Tensor


class _Roots(NamedTuple):
    """The R roots of M forests, one forest after the other and each from left to right.

    Attributes:
        vector: float `[R, D]`, of each root's tree alone.
        forest: Which forest each is in, int64 `[R]`.
        place: Its number in the forest, from 0 on, int64 `[R]`.
        left: The fencepost before its first word, int64 `[R]`.
        tree: Those that are not single words, int64 `[Q]`.
        gap: The gaps at which those split, int64 `[Q]`.
    """

    vector: Tensor
    forest: Tensor
    place: Tensor
    left: Tensor
    tree: Tensor
    gap: Tensor


class _Reading(NamedTuple):
    """What the networks say of M forests of sentences that have G gaps between words at most.

    Attributes:
        merge: Logits of merging at each gap under each label, float `[M, G K]`.
        take_off: Logits of each gap's node as the last one made, float `[M, G]`.
        flow: float `[M]`, nats.
    """

    merge: Tensor
    take_off: Tensor
    flow: Tensor


class _Kept(NamedTuple):
    """The forests that were read last.

    Attributes:
        memory: That of their sentences.
        with_grad: Whether the reading has a gradient.
        state: int64 `[M, S]`.
        rows: int64 `[M]`.
        reading: What was read.
    """

    memory: Memory
    with_grad: bool
    state: Tensor
    rows: Tensor
    reading: _Reading


class ForestPolicy(Policy):
    """P_F that merges neighbours, learned P_B and log F(s; x), by a Transformer over the roots.

    Hu et al. 2023, section 5. A word's vector is an embedding, a node's is computed from its label
    and its two children's, so a root's tells of its whole tree. The Transformer reads the roots'
    vectors, to each of which is added one of the place of its first word. Two neighbours' outputs
    score the labels to merge them under, the output of a root that is not a word scores taking it
    off, and a sum over all roots is the flow. The outputs start at zero: P_F uniform over gaps and
    labels, P_B over roots, flows 1.

    The flow through a complete tree is its reward and need not be learned: `state_flow` is 0
    there, which is also what a forward-looking flow has to learn of it.

    The layer that flows have to themselves is `partition`, which `MinibatchEM` gives a learning
    rate of its own.

    P_F, P_B and flows of the same states come from one reading: what `logits` has read is kept
    until other states are read or other sentences encoded.
    """

    scores_in_parallel = True

    def __init__(
        self, model: Grammar | EnergyGrammar, dim: int = 128, layers: int = 2, heads: int = 4
    ) -> None:
        """Builds the networks.

        Args:
            model: The grammar, whose trees are built bottom-up, or one with energies beside it.
                Its sizes alone are read.
            dim: D, the size of the vectors, a multiple of `heads`.
            layers: Of the Transformer.
            heads: Of each layer's attention.

        Raises:
            UserError: If the trees are built top-down, or the sizes do not fit.
        """
        super().__init__()
        grammar = model.grammar if isinstance(model, EnergyGrammar) else model
        if not isinstance(grammar.env, BottomUpTree):
            raise UserError(
                "A ForestPolicy merges trees from the words up; make the grammar with "
                'tree="bottom-up".'
            )
        self.env = grammar.env
        self.transformer = RaggedTransformer(dim, layers, heads)
        self.word = nn.Embedding(grammar.vocabulary, dim)
        self.label = nn.Embedding(grammar.nonterminals, 2 * dim)
        self.read_children = nn.Linear(2 * dim, 2 * dim)
        self.compose = nn.Linear(2 * dim, dim)
        self.composed_norm = nn.LayerNorm(dim)
        self.position = nn.Embedding(grammar.max_words, dim)
        self.read_pair = nn.Linear(2 * dim, dim)
        self.merge_head = zero_linear(dim, grammar.nonterminals)
        self.take_off_head = zero_linear(dim, 1)
        self.partition = zero_linear(dim, 1)
        size, generator = self.env.state_shape[0] + 1, torch.Generator().manual_seed(0)
        factors = torch.randint(-(2**62), 2**62, (size,), generator=generator)
        self.register_buffer("factors", factors, persistent=False)
        self._kept: _Kept | None = None

    factors: Tensor

    def __getstate__(self) -> dict[str, Any]:
        """Leaves what was kept out of copies: it is part of another graph."""
        return {**self.__dict__, "_kept": None}

    def encode(self, x: Tensor) -> Memory:
        """Embeds the words of sentences `[B, N]`; see `Policy.encode`."""
        self._kept = None
        return _Memory(self.word(x.clamp_min(0)), (x >= 0).sum(-1))

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores merges by gap and label, and exit as 0, float `[N, A + 1]`; see `Policy`."""
        reading = self._read(state, _Memory(*memory), rows)
        self._kept = _Kept(memory, torch.is_grad_enabled(), state, rows, reading)
        return F.pad(reading.merge, (0, 1))

    def backward_logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores roots as the last one made, float `[N, A]`; see `HasBackwardPolicy`.

        A complete tree has but one root to take off: its score is 0.
        """
        take_off = self._of_partial(state, memory, rows).take_off
        return take_off.repeat_interleave(self.env.labels, 1)

    def state_flow(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Sums what all roots say, float `[N]`, nats; see `HasStateFlow`."""
        return self._of_partial(state, memory, rows).flow

    def log_partition(self, memory: Memory) -> Tensor:
        """Gives the flow of the words alone, float `[B]`, nats; see `HasLogPartition`."""
        length = _Memory(*memory).length
        rows = torch.arange(len(length), device=length.device)
        return self.state_flow(self.env.initial_states(len(rows)), memory, rows)

    def _of_partial(self, state: Tensor, memory: Memory, rows: Tensor) -> _Reading:
        """Reads forests, or finds them among those that were read; complete trees are all 0."""
        length = _Memory(*memory).length.index_select(0, rows)
        partial = (~self.env.is_complete(state, length[:, None])).nonzero().squeeze(1)
        state, rows, num = state.index_select(0, partial), rows.index_select(0, partial), len(state)
        found = self._find(state, memory, rows)
        reading = self._read(state, _Memory(*memory), rows) if found is None else found

        def spread(part: Tensor) -> Tensor:
            return part.new_zeros(num, *part.shape[1:]).index_copy(0, partial, part)

        return _Reading(*map(spread, reading))

    def _find(self, state: Tensor, memory: Memory, rows: Tensor) -> _Reading | None:
        """Finds forests among those that `logits` read; None if not all are there.

        Objectives ask for the flows and P_B of other parts of the same trajectories: some states
        more, some less, so they are told by what they are.
        """
        kept = self._kept
        if kept is None or kept.memory is not memory or kept.with_grad != torch.is_grad_enabled():
            return None
        known = torch.cat([kept.state, kept.rows[:, None]], 1)
        wanted = torch.cat([state, rows[:, None]], 1)
        # Equal states have equal hashes, so each is looked for at one place.
        hashes, order = (known * self.factors).sum(-1).sort()
        at = torch.searchsorted(hashes, (wanted * self.factors).sum(-1))
        at = order.index_select(0, at.clamp_max(len(order) - 1))
        if not torch.equal(known.index_select(0, at), wanted):
            return None
        return _Reading(*(part.index_select(0, at) for part in kept.reading))

    def _read(self, state: Tensor, memory: _Memory, rows: Tensor) -> _Reading:
        """Reads the roots of forests `[M, S]` together."""
        num, gaps = len(state), self.env.num_gaps
        roots = self._roots(state, memory, rows)
        tokens = roots.vector + self.position(roots.left)
        output = self.transformer(tokens, roots.forest, roots.place)
        # Every root but a forest's first has the neighbour before it, on this side of a gap.
        second = (roots.left > 0).nonzero().squeeze(1)
        pair = torch.cat([output.index_select(0, second - 1), output.index_select(0, second)], 1)
        score = self.merge_head(F.relu(self.read_pair(pair)))
        between = roots.forest[second] * gaps + roots.left[second] - 1
        merge = score.new_zeros(num * gaps, score.shape[1]).index_copy(0, between, score)
        last, flow = self.take_off_head(output).squeeze(1), self.partition(output).squeeze(1)
        at = roots.forest[roots.tree] * gaps + roots.gap
        take_off = last.new_zeros(num * gaps).index_copy(0, at, last.index_select(0, roots.tree))
        return _Reading(
            merge.view(num, self.env.num_actions),
            take_off.view(num, gaps),
            flow.new_zeros(num).index_add(0, roots.forest, flow),
        )

    def _roots(self, state: Tensor, memory: _Memory, rows: Tensor) -> _Roots:
        """Finds the roots of forests `[M, S]` and embeds them."""
        nodes = tree_nodes(state)
        # Trees end at gaps without a node; gap i lies at fencepost i + 1.
        ends = F.pad(nodes.label == UNSET, (1, 1), value=True)
        outer = ends.gather(1, nodes.left.clamp_min(0)) & ends.gather(1, nodes.right.clamp_min(0))
        forest, gap = (outer & (nodes.label != UNSET)).nonzero(as_tuple=True)
        position = torch.arange(ends.shape[1] - 1, device=state.device)
        begins = ends[:, :-1] & (position < memory.length.index_select(0, rows)[:, None])
        number = begins.cumsum(1)
        # Where the vector of the tree that begins at each word lies.
        vectors, node = self._vectors(state, memory, rows)
        source = rows[:, None] * len(position) + position
        left = nodes.left[forest, gap]
        source[forest, left] = node[forest, gap]
        before = F.pad(number[:-1, -1].cumsum(0), (1, 0))
        in_forest, first = begins.nonzero(as_tuple=True)
        return _Roots(
            vectors.index_select(0, source[in_forest, first]),
            in_forest,
            number[in_forest, first] - 1,
            first,
            before[forest] + number[forest, left] - 1,
            gap,
        )

    def _vectors(self, state: Tensor, memory: _Memory, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds all nodes of forests, together those whose children are ready.

        Returns:
            The vectors of words and nodes, float `[B N + nodes, D]`, words first; and where among
            them that of each node is, int64 `[M, G]`, -1 where there is no node.
        """
        nodes = tree_nodes(state)
        vectors = memory.word.flatten(0, 1)
        words, num, gaps = len(vectors), *nodes.label.shape
        gap = torch.arange(gaps, device=state.device)
        own_word = rows[:, None] * memory.word.shape[1] + gap
        first = words + torch.arange(0, num * gaps, gaps, device=state.device)[:, None]
        left_gap, right_gap = children(nodes)
        left = (left_gap + first).where(left_gap >= 0, own_word).flatten()
        right = (right_gap + first).where(right_gap >= 0, own_word + 1).flatten()
        both = torch.stack([left, right], 1)
        label = nodes.label.flatten()
        # Where in `vectors` that of each word and node is, -1 as long as it is not known.
        place = torch.full((words + num * gaps,), -1, device=state.device)
        place[:words] = torch.arange(words, device=state.device)
        waiting = (label != UNSET).nonzero().squeeze(1)
        while len(waiting):
            parts = place[both.index_select(0, waiting)]
            ready = (parts >= 0).all(1)
            node, parts = waiting[ready], parts[ready]
            place[words + node] = torch.arange(len(node), device=state.device) + len(vectors)
            parts = vectors.index_select(0, parts.flatten()).view(len(node), -1)
            hidden = self.read_children(parts) + self.label(label.index_select(0, node))
            vectors = torch.cat([vectors, self.composed_norm(self.compose(F.relu(hidden)))])
            waiting = waiting[~ready]
        return vectors, place[words:].view(num, gaps)
