"""What a learned grammar is worth on sentences that it has not seen."""

import torch
from torch import Tensor

from lvms.data.sentences import Sentences
from lvms.grammars.grammar import Grammar
from lvms.grammars.parse_scores import ParseScores, score_trees

PER_SENTENCE = "per-sentence.json"
"""What was measured on each test sentence, in each cell's folder."""

AT_ONCE = 64
"""So many sentences are parsed at once, for their charts must fit into memory."""


@torch.no_grad()
def nll_of_sentences(model: Grammar, x: Tensor) -> Tensor:
    """Computes the exact -log p(x) of sentences `[B, N]`, float64 `[B]`, nats."""
    return torch.cat([-model.log_marginal(some).double() for some in x.split(AT_ONCE)])


@torch.no_grad()
def parse(model: Grammar, x: Tensor, parser: str) -> Tensor:
    """Parses sentences.

    Args:
        model: The grammar.
        x: int64 `[B, N]`.
        parser: `mbr`, the trees with the greatest expected number of right spans, or `viterbi`,
            the most probable ones.

    Returns:
        Trees, int64 `[B, S]`.
    """
    trees = [
        model.mbr(some) if parser == "mbr" else model.viterbi(some)[0] for some in x.split(AT_ONCE)
    ]
    return torch.cat(trees)


def score(model: Grammar, sentences: Sentences, parser: str) -> ParseScores | None:
    """Compares a model's parses with gold trees; None where there are none."""
    if sentences.spans is None:
        return None
    return score_trees(parse(model, sentences.words, parser), sentences.spans)
