"""Every tree of a short sentence with its probability, by the definition, and random grammars."""

import itertools

import torch
from hypothesis import strategies as st

from lvms.grammars.rules import PAD, GrammarRules


def random_rules(
    labels, preterminals, vocabulary=4, seed=0, impossible=0.0, low=-1e30, parent=False, spread=1.5
):
    """A grammar in double precision; a share of all rules and words has log-probability `low`."""
    generator = torch.Generator().manual_seed(seed)
    symbols = labels + preterminals

    def table(*shape):
        logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
        log_prob = logits.flatten(-2 if len(shape) > 2 else -1).log_softmax(-1).view(shape)
        never = torch.rand(shape, generator=generator) < impossible
        return log_prob.masked_fill(never, low)

    above = (labels + 1,) if parent else ()
    binary = table(*above, labels, symbols, symbols)
    return GrammarRules(table(labels), binary, table(preterminals, vocabulary))


def random_sentences(lengths, vocabulary=4, seed=0):
    """Word ids for sentences of these lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=generator)
    return x.where(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None], PAD)


FEW_WORDS = st.integers(2, 5)


@st.composite
def grammars(draw, lengths=FEW_WORDS, most=4, impossible=0.0, parent=False):
    """Small random rules and a batch of sentences of mixed lengths."""
    labels, preterminals = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    low = draw(st.sampled_from([-1e30, -float("inf")])) if impossible else 0.0
    rules = random_rules(labels, preterminals, 4, seed, impossible, low, parent)
    batch = draw(st.lists(lengths, min_size=1, max_size=most))
    return rules, random_sentences(batch, 4, seed)


def bracketings(left, right):
    """Every way to split a span: lists of nodes (left, middle, right), parents first."""
    if right - left == 1:
        return [[]]
    return [
        [(left, middle, right), *first, *second]
        for middle in range(left + 1, right)
        for first, second in itertools.product(
            bracketings(left, middle), bracketings(middle, right)
        )
    ]


def all_trees(rules, sentence):
    """Lists the labelled trees over a sentence.

    Returns:
        z, int64 `[Z, 3 (N - 1)]`, and log p(x, z), `[Z]`, preterminals summed out.
    """
    labels = rules.nonterminals
    num_gaps = len(sentence) - 1
    words = sentence[sentence >= 0]
    binary = rules.binary
    if not rules.conditioned_on_parent:
        binary = binary.expand(labels + 1, *binary.shape)
    states, scores = [], []
    for nodes in bracketings(0, len(words)):
        label = torch.cartesian_prod(*[torch.arange(labels)] * len(nodes)).view(-1, len(nodes))
        place = {(left, right): index for index, (left, _, right) in enumerate(nodes)}
        parent = {}
        for index, (left, middle, right) in enumerate(nodes):
            parent[left, middle] = parent[middle, right] = index
        state = torch.full((len(label), 3, num_gaps), -1)
        score = rules.root[label[:, 0]]
        for index, (left, middle, right) in enumerate(nodes):
            gap = middle - 1
            state[:, 0, gap], state[:, 1, gap], state[:, 2, gap] = label[:, index], left, right
            above = label[:, parent[left, right]] if index else torch.tensor(labels)
            table = binary[above, label[:, index]]
            table = _child(rules, table, place.get((middle, right)), label, words[middle])
            score = score + _child(rules, table, place.get((left, middle)), label, words[left])
        states.append(state.flatten(1))
        scores.append(score)
    return torch.cat(states), torch.cat(scores)


def _child(rules, table, node, label, word):
    """Fixes the last dimension of `table` `[Z, ..., M]`: a node's label, or a word summed over."""
    if node is None:
        return (table[..., rules.nonterminals :] + rules.emission[:, word]).logsumexp(-1)
    index = label[:, node].view(-1, *[1] * (table.dim() - 1)).expand(*table.shape[:-1], 1)
    return table.gather(-1, index).squeeze(-1)


def brute_log_marginal(rules, x):
    """log p(x) by summing over `all_trees`, `[B]`."""
    return torch.stack([all_trees(rules, sentence)[1].logsumexp(0) for sentence in x])


def spans_of(z):
    """The labelled spans of one state, as a set of (left, right, label)."""
    label, left, right = z.view(3, -1).tolist()
    return {(i, j, a) for a, i, j in zip(label, left, right, strict=True) if a >= 0}


def brute_marginals(rules, x):
    """Span marginals `[B, N + 1, N + 1, K]` by summing over `all_trees`."""
    side = x.shape[1] + 1
    marginals = torch.zeros(len(x), side, side, rules.nonterminals, dtype=torch.float64)
    for row, sentence in zip(marginals, x, strict=True):
        z, log_joint = all_trees(rules, sentence)
        posterior = log_joint.softmax(0)
        gaps = z.view(len(z), 3, -1)
        tree, gap = (gaps[:, 0] >= 0).nonzero(as_tuple=True)
        label, left, right = gaps[tree, :, gap].unbind(-1)
        row.index_put_((left, right, label), posterior[tree], accumulate=True)
    return marginals
