"""What a learned grammar is worth on sentences that it has not seen."""

import torch
from torch import Tensor

from algorithms.minibatch_em import MinibatchEM
from algorithms.policy import Policy
from algorithms.rollout import rollout
from benchmarks.grammar.inference import AT_ONCE, AnyGrammar, ExactInference, Inference
from lvms.data.sentences import Sentences
from lvms.grammars.grammar import Grammar
from lvms.grammars.parse_scores import ParseScores, score_trees
from lvms.grammars.rules import same_words
from lvms.grammars.table_grammar import without_words

PER_SENTENCE = "per-sentence.json"
"""What was measured on each test sentence, in each cell's folder."""

KL_TREES = 8
"""So many trees of each sentence a policy is measured by."""


def truth_nll(truth: Grammar, x: Tensor) -> Tensor:
    """Computes the NLL of sentences drawn from a grammar until they were of a length it takes.

    What is learned from such sentences learns their lengths too, so log p(x) of the whole grammar,
    which makes longer ones, would not be the most that can be learned: log p(x | length) is.

    Args:
        truth: The grammar; only sentences of `min_words` to `max_words` words were kept.
        x: int64 `[B, N]`.

    Returns:
        float64 `[B]`, nats.
    """
    return log_prob_of_lengths(truth) - ExactInference(truth).log_marginal(x).log_marginal


@torch.no_grad()
def log_prob_of_lengths(grammar: Grammar) -> Tensor:
    """Computes how probable it is that a sentence has `min_words` to `max_words` words.

    By the inside algorithm, if all words are the same word.

    Returns:
        A scalar, float64, nats.
    """
    lengths = torch.arange(grammar.min_words, grammar.max_words + 1)
    x = same_words(lengths, grammar.max_words)
    return without_words(grammar).log_marginal(x).double().logsumexp(0)


@torch.no_grad()
def posterior_kl(
    learner: MinibatchEM, model: AnyGrammar, policy: Policy, x: Tensor, log_partition: Tensor
) -> Tensor:
    """Estimates KL(q(z | x) || p(z | x)) of a policy q by trees that it draws.

    Each tree's log q(z | x) - log p(z | x) is exact if there is one way to build it, but for
    log_partition. Otherwise log P_F(tau | x) - log P_B(tau | z) stands for log q, and the mean is
    an upper bound.

    Args:
        learner: Whose objective knows P_B.
        model: Its grammar, or a copy.
        policy: Its policy, or a copy of that for the copy.
        x: int64 `[B, N]`.
        log_partition: What normalises p(z | x), float `[B]`, nats; see `MarginalEstimate`.

    Returns:
        Means over `KL_TREES` trees, the same randomness every time, float64 `[B]`, nats.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for some in x.split(AT_ONCE):
        rows = torch.arange(len(some)).repeat_interleave(KL_TREES)
        batch = rollout(
            model.env, policy, some, rows=rows, context=model.context(some), generator=generator
        )
        batch.log_reward = model.log_joint(some[rows], batch.z)
        log_ratio = learner.objective.log_ratio(model.env, policy, batch)
        found.append(log_ratio.double().view(-1, KL_TREES).mean(1))
    return torch.cat(found) + log_partition


def parse(inference: Inference, x: Tensor, parser: str) -> Tensor:
    """Parses sentences.

    Args:
        inference: Of a model.
        x: int64 `[B, N]`.
        parser: `mbr`, the trees with the greatest expected number of right spans, or `viterbi`,
            the most probable ones.

    Returns:
        Trees, int64 `[B, S]`.
    """
    return inference.mbr(x) if parser == "mbr" else inference.viterbi(x)


def score(inference: Inference, sentences: Sentences, parser: str) -> ParseScores | None:
    """Compares a model's parses with gold trees; None where there are none."""
    if sentences.spans is None:
        return None
    return score_trees(parse(inference, sentences.words, parser), sentences.spans)
