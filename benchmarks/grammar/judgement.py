"""What a learned grammar is worth on sentences that it has not seen."""

import torch
from torch import Tensor

from algorithms.minibatch_em import MinibatchEM
from algorithms.policy import Policy
from algorithms.rollout import rollout
from lvms.data.sentences import Sentences
from lvms.grammars.grammar import Grammar
from lvms.grammars.parse_scores import ParseScores, score_trees
from lvms.grammars.rules import PAD, GrammarRules
from lvms.grammars.table_grammar import TableGrammar

PER_SENTENCE = "per-sentence.json"
"""What was measured on each test sentence, in each cell's folder."""

AT_ONCE = 64
"""So many sentences are parsed at once, for their charts must fit into memory."""

KL_TREES = 8
"""So many trees of each sentence a policy is measured by."""


@torch.no_grad()
def nll_of_sentences(model: Grammar, x: Tensor) -> Tensor:
    """Computes the exact -log p(x) of sentences `[B, N]`, float64 `[B]`, nats."""
    return torch.cat([-model.log_marginal(some).double() for some in x.split(AT_ONCE)])


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
    return nll_of_sentences(truth, x) + log_prob_of_lengths(truth)


@torch.no_grad()
def log_prob_of_lengths(grammar: Grammar) -> Tensor:
    """Computes how probable it is that a sentence has `min_words` to `max_words` words.

    By the inside algorithm, if all words are the same word.

    Returns:
        A scalar, float64, nats.
    """
    rules = grammar.rules()
    one_word = torch.zeros_like(rules.emission[:, :1])
    lengths = torch.arange(grammar.min_words, grammar.max_words + 1)
    x = torch.where(torch.arange(grammar.max_words) < lengths[:, None], 0, PAD)
    same = TableGrammar.from_rules(
        GrammarRules(rules.root, rules.binary, one_word), grammar.max_words, grammar.min_words
    )
    return same.log_marginal(x).double().logsumexp(0)


@torch.no_grad()
def posterior_kl(
    learner: MinibatchEM, model: Grammar, policy: Policy, x: Tensor, nll: Tensor
) -> Tensor:
    """Estimates KL(q(z | x) || p(z | x)) of a policy q by trees that it draws.

    Each tree's log q(z | x) - log p(z | x) is exact if there is one way to build it. Otherwise
    log P_F(tau | x) - log P_B(tau | z) stands for log q, and the mean is an upper bound.

    Args:
        learner: Whose objective knows P_B.
        model: Its grammar, or a copy.
        policy: Its policy, or a copy of that for the copy.
        x: int64 `[B, N]`.
        nll: -log p(x), float `[B]`, nats.

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
    return torch.cat(found) - nll


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
