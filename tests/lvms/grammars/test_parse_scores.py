"""F1 against a slow plain reference, and against known figures on a treebank."""

import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gfn_envs.binary_tree import tree_nodes
from lvms.data.treebank import load_treebank
from lvms.grammars.parse_scores import LabelRecall, score_spans, score_trees
from lvms.grammars.trivial_trees import (
    left_branching_trees,
    oracle_trees,
    random_trees,
    right_branching_trees,
)
from tests.lvms.craft import CRAFT, needs_craft

MAX_WORDS = 7


@st.composite
def laminar_spans(draw, num_words, labels="ABC"):
    """Spans of a tree, some of which repeat, have one word, or have several labels."""
    spans, opened = [], [(0, num_words)]
    while opened:
        left, right = opened.pop()
        chain = draw(st.lists(st.sampled_from(labels), max_size=2))
        spans += [(left, right, label) for label in chain]
        if right - left > 1:
            cuts = draw(st.sets(st.integers(left + 1, right - 1), min_size=1))
            posts = [left, *sorted(cuts), right]
            opened += pairwise(posts)
    return spans


@st.composite
def corpora(draw):
    lengths = draw(st.lists(st.integers(2, MAX_WORDS), min_size=1, max_size=6))
    return torch.tensor(lengths), [draw(laminar_spans(length)) for length in lengths]


def spans_of(z):
    """The spans of each tree."""
    nodes = tree_nodes(z)
    rows = zip(nodes.left.tolist(), nodes.right.tolist(), strict=True)
    return [[(a, b, "") for a, b in zip(*row, strict=True) if a >= 0] for row in rows]


def reference(predicted, gold, lengths):
    """Sentence F1s, corpus F1 and recall by label, sentence after sentence."""
    each, together, found, total = [], [0, 0, 0], {}, {}
    for here, there, length in zip(predicted, gold, lengths.tolist(), strict=True):

        def counting(spans, length=length):
            return {s for s in spans if 1 < s[1] - s[0] < length}

        here, labelled = {s[:2] for s in counting(here)}, counting(there)
        there = {s[:2] for s in labelled}
        both = len(here & there)
        if not there:
            each.append(100.0 if not here else 0.0)
        else:
            precision, recall = both / max(len(here), 1), both / len(there)
            each.append(200 * precision * recall / max(precision + recall, 1e-300))
        together = [a + b for a, b in zip(together, (both, len(here), len(there)), strict=True)]
        for left, right, label in labelled:
            total[label] = total.get(label, 0) + 1
            found[label] = found.get(label, 0) + ((left, right) in here)
    both, first, second = together
    corpus = 200 * both / (first + second) if first + second else 100.0
    return each, corpus, {label: LabelRecall(found[label], total[label]) for label in total}


def agree(scores, expected):
    each, corpus, labels = expected
    assert scores.each.tolist() == pytest.approx(each)
    assert scores.sentence_f1 == pytest.approx(sum(each) / len(each))
    assert scores.corpus_f1 == pytest.approx(corpus)
    assert scores.labels == labels
    totals = [one.total for one in scores.labels.values()]
    assert totals == sorted(totals, reverse=True)


@given(corpora(), st.integers(0, 1000))
def test_trees_score_as_the_plain_reference_says(corpus, seed):
    lengths, gold = corpus
    z = random_trees(lengths, MAX_WORDS, torch.Generator().manual_seed(seed))
    agree(score_trees(z, gold), reference(spans_of(z), gold, lengths))


@given(corpora(), st.data())
def test_spans_score_as_the_plain_reference_says(corpus, data):
    lengths, gold = corpus
    predicted = [data.draw(laminar_spans(length)) for length in lengths.tolist()]
    agree(score_spans(predicted, gold, lengths), reference(predicted, gold, lengths))
    itself = score_spans(gold, gold, lengths)
    assert (itself.each == 100).all()
    assert itself.corpus_f1 == 100
    assert all(one.recall == 100 for one in itself.labels.values())


def test_by_hand():
    gold = [
        [(0, 4, "S"), (0, 2, "NP"), (0, 2, "NP"), (2, 4, "VP"), (2, 4, "X"), (3, 4, "NP")],
        [(0, 3, "S")],
        [(0, 2, "S")],
    ]
    lengths = torch.tensor([4, 3, 2])
    z = right_branching_trees(lengths, 4)
    scores = score_trees(z, gold)
    # (1, 4) and (2, 4) against (0, 2) and (2, 4); something against nothing; nothing and nothing.
    assert scores.each.tolist() == [50, 0, 100]
    assert scores.sentence_f1 == 50
    assert scores.corpus_f1 == pytest.approx(100 * 2 * 1 / (2 + 2 + 1))
    assert scores.labels == {
        "NP": LabelRecall(0, 1), "VP": LabelRecall(1, 1), "X": LabelRecall(1, 1)
    }  # fmt: skip
    assert scores.labels["VP"].recall == 100


def test_what_does_not_fit_is_refused():
    lengths = torch.tensor([3, 4])
    z = right_branching_trees(lengths, 4)
    with pytest.raises(ValueError, match="1 rows of gold spans for 2 sentences"):
        score_trees(z, [[]])
    with pytest.raises(ValueError, match="ends behind its sentence"):
        score_trees(z, [[(0, 4, "")], []])
    with pytest.raises(ValueError, match="1 rows of spans for 2"):
        score_spans([[]], [[], []], lengths)
    with pytest.raises(ValueError, match="no sentences"):
        score_spans([], [], lengths[:0])


def test_thousands_of_sentences_are_scored_at_once():
    lengths = torch.full((5000,), 20)
    z = random_trees(lengths, 20, torch.Generator().manual_seed(0))
    gold = spans_of(random_trees(lengths, 20, torch.Generator().manual_seed(1)))
    start = time.process_time()
    scores = score_trees(z, gold)
    assert time.process_time() - start < 1  # about 0.1 s
    assert 0 < scores.sentence_f1 < 30


@needs_craft
@pytest.mark.xdist_group("craft")
@pytest.mark.parametrize(
    ("part", "right", "left"),
    [("train", 45.46, 19.35), ("validation", 45.15, 23.46), ("test", 45.49, 18.10)],
)
def test_trivial_trees_score_on_craft_what_they_should(craft, part, right, left):
    sentences = getattr(craft, part)
    lengths, gold = sentences.lengths, sentences.spans
    for trees, expected in ((right_branching_trees, right), (left_branching_trees, left)):
        scores = score_trees(trees(lengths, 20), gold)
        assert abs(scores.sentence_f1 - expected) < 0.0051
    itself = score_spans(gold, gold, lengths)
    assert (itself.sentence_f1, itself.corpus_f1) == (100, 100)
    best = score_trees(oracle_trees(gold, lengths, 20), gold)
    assert all(one.recall == 100 for one in best.labels.values())
    assert 84 < best.sentence_f1 < 87


@pytest.fixture(scope="module")
def craft():
    return load_treebank(CRAFT)
