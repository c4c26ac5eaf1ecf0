"""What parses are held against: trees that know nothing, the best ones, and the truth's."""

from collections.abc import Mapping

import torch

from benchmarks.grammar.inference import ExactInference
from benchmarks.grammar.judgement import score
from benchmarks.grammar.learner import Judges
from lvms.data.sentences import Sentences
from lvms.grammars.grammar import Grammar
from lvms.grammars.parse_scores import ParseScores, score_trees
from lvms.grammars.trivial_trees import (
    left_branching_trees,
    oracle_trees,
    random_trees,
    right_branching_trees,
)

SEED = 0
"""Of the random trees."""

TRUTH = "the truth"
"""What the grammar is called that the sentences were drawn from."""


def reference_scores(judges: Judges, truth: Grammar | None) -> Mapping[str, ParseScores]:
    """Scores trees that nobody learned on the test sentences; nothing where no gold trees are.

    Args:
        judges: The test sentences, and how the truth parses them.
        truth: The grammar that they were drawn from, where it is known.

    Returns:
        The scores by the trees' name.
    """
    test = judges.test
    if test.spans is None:
        return {}
    scores = trivial_scores(test)
    if truth is not None:
        found = score(ExactInference(truth), test, judges.parser)
        assert found is not None
        scores[TRUTH] = found
    return scores


def trivial_scores(sentences: Sentences) -> dict[str, ParseScores]:
    """Scores left-branching, right-branching, random and the best binary trees."""
    assert sentences.spans is not None
    lengths, max_words = sentences.lengths, sentences.words.shape[1]
    generator = torch.Generator().manual_seed(SEED)
    trees = {
        "left-branching": left_branching_trees(lengths, max_words),
        "right-branching": right_branching_trees(lengths, max_words),
        "random trees": random_trees(lengths, max_words, generator),
        "best binary trees": oracle_trees(sentences.spans, lengths, max_words),
    }
    return {name: score_trees(z, sentences.spans) for name, z in trees.items()}
