"""What spans weigh under their parents' labels, by rules that know the parent one step deep.

Where a rule depends on the parent of its left-hand side, so does the weight of every span: the sum
over splits m and children B, C of R[Q, A -> B C] b(B, i, m) b(C, m, j) with A's parent Q, where b
depends on A in turn. Here it does not: b are inside weights of the nearest context-free grammar,
whose sums over the splits, a matrix [B, C] for each span, serve all A and Q. And only those spans
and parents are weighed that a policy asks for, each with one product of K such matrices, where the
exact inside algorithm weighs every span under every parent.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.sentence_encoder import span_number
from algorithms.span_rules import LEAST_WEIGHT, RuleTables, SentenceWords, SpanRules, log_of


class Lookahead(NamedTuple):
    """What is known of B sentences, with S spans of two words or more numbered as `span_number`.

    Attributes:
        weight: Of each label without parents, relative to the largest, `[B, S, K]`.
        scale: The log of the largest, `[B, S]`, nats.
        pairs: The weights of two parts of two words or more, summed over the splits, relative,
            `[B, S, K K]`, left part first.
        pair_scale: What they were divided by, the log, `[B, S]`, nats.
        log_weight: Under each parent, K for none, of each label, `[B, S, K + 1, K]`, nats;
            anything until it is asked for.
        known: Whether it has been, bool `[B, S, K + 1]`.
    """

    weight: Tensor
    scale: Tensor
    pairs: Tensor
    pair_scale: Tensor
    log_weight: Tensor
    known: Tensor


@torch.no_grad()
def begin_lookahead(log_weight: Tensor, num_words: int) -> Lookahead:
    """Sums over splits.

    Args:
        log_weight: Inside weights without parents, `[B, S, K]`, nats.
        num_words: n, of the longest sentence.
    """
    batch, spans, labels = log_weight.shape
    scale = log_weight.amax(-1)
    weight = (log_weight - scale[..., None]).exp()
    pairs = weight.new_zeros(batch, spans, labels, labels)
    pair_scale = torch.full_like(scale, LEAST_WEIGHT)
    for width in range(4, num_words + 1):
        left = torch.arange(num_words - width + 1, device=scale.device)[:, None]
        split = left + torch.arange(2, width - 1, device=scale.device)
        first = span_number(left.expand_as(split), split)
        second = span_number(split, (left + width).expand_as(split))
        both = scale[:, first] + scale[:, second]
        largest = both.amax(-1)
        share = (both - largest[..., None]).exp()
        here = span_number(left, left + width).squeeze(1)
        pairs[:, here] = (weight[:, first] * share[..., None]).mT @ weight[:, second]
        pair_scale[:, here] = largest
    return Lookahead(
        weight, scale, pairs.flatten(2), pair_scale,
        weight.new_empty(batch, spans, labels + 1, labels),
        torch.zeros(batch, spans, labels + 1, dtype=torch.bool, device=scale.device),
    )  # fmt: skip


@torch.no_grad()
def look_ahead(
    rules: SpanRules, words: SentenceWords, ahead: Lookahead, place: Tensor, left: Tensor,
    right: Tensor, parent: Tensor,
) -> Tensor:  # fmt: skip
    """Weighs spans under their parents; what has been asked before is remembered in `ahead`.

    Args:
        rules: The present rules, given the parent.
        words: What they say of the words.
        ahead: What `begin_lookahead` returned.
        place: Where the spans are in a flat `[B S]`, int64 `[R]`.
        left: The fenceposts before their first words, int64 `[S]`, by the number of a span.
        right: Those behind their last words, int64 `[S]`.
        parent: int64 `[R]`, K for none.

    Returns:
        Of each label, `[R, K]`, nats.
    """
    num_parents = ahead.known.shape[-1]
    index = place * num_parents + parent
    known, log_weight = ahead.known.view(-1), ahead.log_weight.view(-1, num_parents - 1)
    asked = torch.zeros_like(known)
    asked[index] = True
    new = (asked & ~known).nonzero().squeeze(1)
    known[new] = True
    number = new // num_parents % ahead.known.shape[1]
    is_pair = (right - left)[number] == 2
    tables = rules.tables()
    for these, products in ((new[is_pair], _of_two_words), (new[~is_pair], _of_more_words)):
        if len(these):
            above = these % num_parents
            these = these[above.argsort()]
            sizes = above.bincount(minlength=num_parents).tolist()
            at, num_spans = these // num_parents, ahead.known.shape[1]
            row, number = at // num_spans, at % num_spans
            parts, scale = products(tables, words, ahead, row, number, left, right)
            total = _sum_by_rules(parts, sizes)
            log_weight[these] = log_of(total) + (scale + tables.log_largest)[:, None]
    return log_weight.index_select(0, index)


Parts = list[tuple[Tensor, Tensor]]
"""Products of the weights of two parts, `[R, F]`, and the rules for them, `[(K + 1) K, F]`."""


def _of_two_words(
    tables: RuleTables, words: SentenceWords, ahead: Lookahead, row: Tensor, number: Tensor,
    left: Tensor, right: Tensor,
) -> tuple[Parts, Tensor]:  # fmt: skip
    """Multiplies two words.

    Args:
        tables: The present rules.
        words: What they say of the words.
        ahead: What is known of the spans.
        row: The spans' sentences, int64 `[R]`.
        number: Their numbers, int64 `[R]`.
        left: The fencepost before a span's first word, by its number, int64 `[S]`.
        right: That behind its last.

    Returns:
        See `Parts`; and the log of what they were divided by, `[R]`, nats.
    """
    first = left[number]
    both = words.weight[row, first][:, :, None] * words.weight[row, first + 1][:, None]
    scale = words.scale[row, first] + words.scale[row, first + 1]
    return [(both.flatten(1), tables.both_words)], scale


def _of_more_words(
    tables: RuleTables, words: SentenceWords, ahead: Lookahead, row: Tensor, number: Tensor,
    left: Tensor, right: Tensor,
) -> tuple[Parts, Tensor]:  # fmt: skip
    """Multiplies word and span, span and word, and two spans; see `_of_two_words`."""
    first, last = left[number], right[number] - 1
    behind, before = span_number(first + 1, last + 1), span_number(first, last)
    scale = torch.stack([
        words.scale[row, first] + ahead.scale[row, behind],
        words.scale[row, last] + ahead.scale[row, before],
        ahead.pair_scale[row, number],
    ])  # fmt: skip
    largest = scale.amax(0)
    share = (scale - largest).exp()[..., None]
    first_weight, last_weight = words.weight[row, first], words.weight[row, last]
    behind_weight = share[0] * ahead.weight[row, behind]
    before_weight = share[1] * ahead.weight[row, before]
    return [
        ((first_weight[:, :, None] * behind_weight[:, None]).flatten(1), tables.first),
        ((last_weight[:, :, None] * before_weight[:, None]).flatten(1), tables.last),
        (share[2] * ahead.pairs[row, number], tables.inner.flatten(1)),
    ], largest


def _sum_by_rules(parts: Parts, sizes: list[int]) -> Tensor:
    """Multiplies by the rules of each row's parent, `[R, K]`.

    Args:
        parts: See `Parts`; rows of one parent lie together.
        sizes: How many rows each parent has.
    """
    labels = len(sizes) - 1
    total = parts[0][0].new_zeros(len(parts[0][0]), labels)
    for product, rules in parts:
        of_parents = rules.unflatten(0, (-1, labels))
        each = zip(total.split(sizes), product.split(sizes), of_parents, sizes, strict=True)
        for sum_, of_rows, of_rules, size in each:
            if size:
                sum_.addmm_(of_rows, of_rules.T)
    return total
