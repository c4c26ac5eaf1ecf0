"""How well trees agree with those of a treebank: unlabelled F1 and the recall of each gold label.

As in the evaluation of the compound PCFG (Kim et al. 2019): the spans of a sentence are a set,
those of one word and of the whole sentence, which every tree has, do not count, and the labels of
what is predicted do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lvms.data.parsed_sentence import Spans
from lvms.grammars.span_table import SpanTable, gold_table, num_words, tree_table


@dataclass(frozen=True)
class LabelRecall:
    """How many of the gold constituents with one label were found.

    Attributes:
        found: Those whose span was predicted.
        total: All of them.
    """

    found: int
    total: int

    @property
    def recall(self) -> float:
        """The share that was found, percent."""
        return 100 * self.found / self.total


@dataclass(frozen=True)
class ParseScores:
    """Agreement between predicted and gold spans, percent.

    Attributes:
        each: The F1 of each sentence, float64 `[B]`. Where no gold span counts it is 100 if nothing
            that counts was predicted either, and else 0.
        corpus_f1: The F1 of all spans of all sentences taken together.
        labels: What was found of each gold label, the most frequent first; spans without a label
            are left out, and one with several counts for each.
    """

    each: Tensor
    corpus_f1: float
    labels: dict[str, LabelRecall]

    @property
    def sentence_f1(self) -> float:
        """The mean F1 of a sentence: the usual figure."""
        return self.each.mean().item()


def score_trees(z: Tensor, gold: Sequence[Spans]) -> ParseScores:
    """Compares binary trees with gold spans.

    Args:
        z: Complete trees, int64 `[B, S]`, as in `gfn_envs.binary_tree`.
        gold: The spans of each of the B sentences.

    Raises:
        ValueError: If there are not B of them, B is 0, or a span ends behind its sentence.
    """
    z = z.cpu()
    return _score(tree_table(z), gold, num_words(z))


def score_spans(predicted: Sequence[Spans], gold: Sequence[Spans], lengths: Tensor) -> ParseScores:
    """Compares any spans, such as those of trees that are not binary, with gold spans.

    Args:
        predicted: The spans of each of B sentences; their labels do not matter.
        gold: Likewise.
        lengths: The number of words of each sentence, int64 `[B]`.

    Raises:
        ValueError: If there are not B of them, B is 0, or a span ends behind its sentence.
    """
    if len(predicted) != len(lengths):
        raise ValueError(f"{len(predicted)} rows of spans for {len(lengths)} sentences.")
    return _score(gold_table(predicted), gold, lengths.cpu())


def _score(predicted: SpanTable, gold: Sequence[Spans], lengths: Tensor) -> ParseScores:
    """Compares spans of B sentences of `lengths` words `[B]`."""
    if len(gold) != len(lengths):
        raise ValueError(f"{len(gold)} rows of gold spans for {len(lengths)} sentences.")
    if not len(gold):
        raise ValueError("There are no sentences to score.")
    table = gold_table(gold)
    keys, counts = _keys(table, lengths)
    gold_keys = keys[counts].unique()
    predicted_keys, predicted_count = _keys(predicted, lengths)
    predicted_keys = predicted_keys[predicted_count].unique()
    hits = _per_sentence(gold_keys[torch.isin(gold_keys, predicted_keys)], lengths)
    sizes = _per_sentence(gold_keys, lengths) + _per_sentence(predicted_keys, lengths)
    return ParseScores(
        each=(200 * hits / sizes).where(sizes > 0, 100.0),
        corpus_f1=200 * hits.sum().item() / sizes.sum().item() if sizes.any() else 100.0,
        labels=_recall(gold, counts, torch.isin(keys, predicted_keys)),
    )


def _keys(spans: SpanTable, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Gives each span one number of its own, and says which spans count, `[T]` each."""
    length = lengths[spans.row]
    if (spans.right > length).any():
        raise ValueError("A span ends behind its sentence: the trees are of other sentences.")
    side = _side(lengths)
    keys = (spans.row * side + spans.left) * side + spans.right
    width = spans.right - spans.left
    return keys, (width > 1) & (width < length)


def _per_sentence(keys: Tensor, lengths: Tensor) -> Tensor:
    """Counts the spans of each sentence, float64 `[B]`."""
    return (keys // _side(lengths) ** 2).bincount(minlength=len(lengths)).double()


def _side(lengths: Tensor) -> int:
    """How many fenceposts the longest sentence has."""
    return int(lengths.max()) + 1


def _recall(gold: Sequence[Spans], counts: Tensor, found: Tensor) -> dict[str, LabelRecall]:
    """Counts by label what was found of the gold spans that count.

    Args:
        gold: The T spans of all sentences.
        counts: Which of them count, bool `[T]`.
        found: Which of them were predicted, bool `[T]`.
    """
    seen: dict[str, dict[tuple[int, int, int], bool]] = {}
    flat = ((row, span) for row, spans in enumerate(gold) for span in spans)
    for (row, (left, right, label)), count, hit in zip(
        flat, counts.tolist(), found.tolist(), strict=True
    ):
        if count and label:
            seen.setdefault(label, {})[row, left, right] = hit
    recalls = {
        label: LabelRecall(sum(hits.values()), len(hits)) for label, hits in sorted(seen.items())
    }
    return dict(sorted(recalls.items(), key=lambda entry: -entry[1].total))
