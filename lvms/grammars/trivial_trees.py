"""Trees that know nothing of the words, and the best trees that there are: bounds for a parser.

All are complete states as in `gfn_envs.binary_tree`, int64 `[B, 3 (N - 1)]`, with the label 0. A
length that is not 2 to N is a `UserError`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from gfn_envs.binary_tree import UNSET, TreeNodes, tree_state
from gfn_envs.errors import UserError
from lvms.data.parsed_sentence import Spans
from lvms.grammars.span_table import gold_table


def left_branching_trees(lengths: Tensor, max_words: int) -> Tensor:
    """Gives the trees `((((a b) c) d) e)` over `lengths` words, int64 `[B]`."""
    gap = _gaps(lengths, max_words)
    return _trees(torch.zeros_like(gap), gap + 2, lengths)


def right_branching_trees(lengths: Tensor, max_words: int) -> Tensor:
    """Gives the trees `(a (b (c (d e))))` over `lengths` words, int64 `[B]`."""
    gap = _gaps(lengths, max_words)
    return _trees(gap, lengths[:, None].expand_as(gap), lengths)


def random_trees(
    lengths: Tensor, max_words: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws uniformly among the binary trees over a sentence's words.

    The root of a span of m + 1 words splits behind its first k + 1 words with probability
    C(k) C(m - 1 - k) / C(m), where C(m), the m-th Catalan number, counts the binary trees over
    m + 1 words; likewise below. Note that the "random trees" of the literature are mostly not
    uniform: each split, or each step of a shift-reduce parser, is drawn uniformly there.

    Args:
        lengths: int64 `[B]`, at least 2.
        max_words: N.
        generator: Source of randomness.
    """
    left, right = _gaps(lengths, max_words).clone(), _gaps(lengths, max_words).clone()
    cumulative = _split_probabilities(max_words).cumsum(-1).to(lengths.device)
    row = torch.arange(len(lengths), device=lengths.device)
    start, end = torch.zeros_like(lengths), lengths
    while len(row):  # every round splits all spans of one depth, whichever their sentence
        uniform = torch.rand(
            len(row), 1, dtype=torch.float64, device=lengths.device, generator=generator
        )
        width = end - start
        # Rounding may leave the last sum below 1, so the last split takes what is left.
        first = 1 + torch.minimum((uniform >= cumulative[width]).sum(-1), width - 2)
        split = start + first
        left[row, split - 1], right[row, split - 1] = start, end
        row = row.repeat(2)
        start, end = torch.cat([start, split]), torch.cat([split, end])
        is_open = end - start >= 2
        row, start, end = row[is_open], start[is_open], end[is_open]
    return _trees(left, right, lengths)


def oracle_trees(gold: Sequence[Spans], lengths: Tensor, max_words: int) -> Tensor:
    """Gives binary trees with all gold spans: no binary tree has a higher F1.

    A gold constituent with more than two children branches to the right.

    Args:
        gold: The spans of each of B sentences; no two of a sentence may cross.
        lengths: The number of words of each, int64 `[B]`.
        max_words: N.
    """
    lengths = lengths.cpu()
    left, right = _gaps(lengths, max_words).clone(), _gaps(lengths, max_words).clone()
    chart = torch.zeros(len(lengths), max_words + 1, max_words + 1, dtype=torch.bool)
    chart[tuple(gold_table(gold))] = True
    chart[torch.arange(len(lengths)), 0, lengths] = True
    chart.diagonal(1, 1, 2)[:] = True  # words
    fencepost = torch.arange(max_words + 1)
    for split in range(1, max_words):
        # The spans around a gap lie in each other: the smallest begins last and ends first.
        around = chart[:, :split, split + 1 :]
        begin = fencepost[:split].where(around.any(2), 0).amax(1)
        right[:, split - 1] = fencepost[split + 1 :].where(around.any(1), max_words).amin(1)
        # The node at this gap begins where the child that ends here does: the largest such span.
        children = chart[:, :split, split] & (fencepost[:split] >= begin[:, None])
        left[:, split - 1] = fencepost[:split].where(children, split).amin(1)
    return _trees(left, right, lengths)


def _gaps(lengths: Tensor, max_words: int) -> Tensor:
    """Numbers the gaps of each sentence, those behind its end too, int64 `[B, N - 1]`."""
    impossible = lengths[(lengths < 2) | (lengths > max_words)]
    if len(impossible):
        raise UserError(
            f"There are no trees over {int(impossible[0])} word(s): from 2 to {max_words} "
            "(max_words) are possible."
        )
    gap = torch.arange(max_words - 1, device=lengths.device)
    return gap.expand(len(lengths), max_words - 1)


def _trees(left: Tensor, right: Tensor, lengths: Tensor) -> Tensor:
    """Makes states of the spans `[B, N - 1]` of the nodes, wiping out what no sentence reaches."""
    exists = _gaps(lengths, left.shape[1] + 1) < lengths[:, None] - 1
    label = torch.zeros_like(left)
    return tree_state(TreeNodes(*(part.where(exists, UNSET) for part in (label, left, right))))


def _split_probabilities(max_words: int) -> Tensor:
    """Tabulates how a uniform tree splits: at (w, k), a span of w words behind its first k + 1.

    Returns:
        float64 `[N + 1, N - 1]`.
    """
    catalan = [math.comb(2 * m, m) // (m + 1) for m in range(max_words)]
    table = torch.zeros(max_words + 1, max_words - 1, dtype=torch.float64)
    for width in range(2, max_words + 1):
        for k in range(width - 1):
            ways = catalan[k] * catalan[width - 2 - k]
            table[width, k] = float(Fraction(ways, catalan[width - 1]))
    return table
