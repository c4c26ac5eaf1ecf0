"""Every method that learns a grammar by its standard name.

A method is a function of a `Problem` that returns a `MinibatchLearner` of a grammar. One of your
own is such a function in a file of yours and one call,
`grammar_methods.register("my-method", "my_package.grammars:my_method")`; a known one with other
settings is the call alone, with those settings as keywords.
"""

from typing import Any

from torch import Tensor

from algorithms.batch_sampler import SimilarSizes
from algorithms.exact_sampling_em import ExactSamplingEM
from algorithms.grammar_gibbs import GrammarGibbs
from algorithms.markov_kernel import SymmetricMetropolis
from algorithms.minibatch_marginalisation import MinibatchMarginalisation
from algorithms.monte_carlo_em import MonteCarloEM
from benchmarks.grammar.problem import Problem
from gfn_envs.catalogue import Catalogue
from lvms.grammars.tree_moves import TreeMoves

grammar_methods = Catalogue("grammar method")

_HERE = "benchmarks.grammar.methods"
grammar_methods.register("marginalisation", f"{_HERE}:marginalisation")
grammar_methods.register("exact-sampling", f"{_HERE}:exact_sampling")
grammar_methods.register("monte-carlo", f"{_HERE}:monte_carlo")
grammar_methods.register("gibbs", f"{_HERE}:gibbs")
grammar_methods.register("energy-monte-carlo", f"{_HERE}:monte_carlo", kind="energy")
grammar_methods.register("energy-gibbs", f"{_HERE}:gibbs", kind="energy")
grammar_methods.register("energy-likelihood-gibbs", f"{_HERE}:gibbs", kind="energy-likelihood")
grammar_methods.register("ncfg-marginalisation", f"{_HERE}:marginalisation", kind="ncfg")
grammar_methods.register("ncfg-exact-sampling", f"{_HERE}:exact_sampling", kind="ncfg")
grammar_methods.register("ncfg-monte-carlo", f"{_HERE}:monte_carlo", kind="ncfg")
grammar_methods.register("ncfg-gibbs", f"{_HERE}:gibbs", kind="ncfg")
grammar_methods.register(
    "table-marginalisation", f"{_HERE}:marginalisation", kind="table", rate=0.1
)
grammar_methods.register(
    "ncfg-table-marginalisation", f"{_HERE}:marginalisation", kind="ncfg-table", rate=0.1
)

_GFLOWNET = "benchmarks.grammar.gflownet_methods"
grammar_methods.register("gflownet-em", f"{_GFLOWNET}:gflownet_em")
grammar_methods.register("gflownet-em-sleep", f"{_GFLOWNET}:gflownet_em", sleep=0.5)
grammar_methods.register("gflownet-em-vargrad", f"{_GFLOWNET}:gflownet_em", objective="vargrad")
grammar_methods.register(
    "gflownet-em-explored", f"{_GFLOWNET}:gflownet_em", exploration="back-and-forth"
)
grammar_methods.register("gflownet-em-improved", f"{_GFLOWNET}:gflownet_em", m_step="improved")
grammar_methods.register("gflownet-em-adaptive", f"{_GFLOWNET}:gflownet_em", alternation="adaptive")
grammar_methods.register(
    "gflownet-em-neural",
    f"{_GFLOWNET}:gflownet_em",
    policy="neural",
    objective="vargrad",
    sleep=0.5,
)
grammar_methods.register("gflownet-em-paper", f"{_GFLOWNET}:paper")
# Its first guess is nearly right, and larger steps would lead away from there. What little it is
# wrong by makes rules forget the parent, unless trees count as much as they are probable.
grammar_methods.register(
    "ncfg-gflownet-em",
    f"{_GFLOWNET}:gflownet_em",
    kind="ncfg",
    policy_rate=1e-3,
    samples_per_x=8,
    m_step="reweighted",
)
grammar_methods.register(
    "energy-gflownet-em", f"{_GFLOWNET}:gflownet_em", kind="energy", objective="vargrad"
)

BETAS = (0.75, 0.999)
"""Adam's, as neural PCFGs are trained with (Kim, Dyer and Rush 2019)."""

MAX_NORM = 3.0
"""Longer gradients are scaled down to this norm, likewise."""


def marginalisation(
    problem: Problem, kind: str = "pcfg", **training: Any
) -> MinibatchMarginalisation:
    """No EM: gradient ascent on the exact likelihood, by the inside algorithm.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        **training: See `settings`.
    """
    return MinibatchMarginalisation(problem.make_grammar(kind), **settings(problem, **training))


def exact_sampling(
    problem: Problem, kind: str = "pcfg", samples_per_x: int = 1, **training: Any
) -> ExactSamplingEM:
    """EM on trees drawn from the exact posterior.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        samples_per_x: Trees for each sentence of a mini-batch.
        **training: See `settings`.
    """
    return ExactSamplingEM(
        problem.make_grammar(kind), samples_per_x=samples_per_x, **settings(problem, **training)
    )


def monte_carlo(
    problem: Problem, kind: str = "pcfg", moves: int = 20, chains: int = 1, **training: Any
) -> MonteCarloEM:
    """EM on Markov chains of trees, one of each sentence, whose moves rotate or relabel.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        moves: How many moves a chain makes whenever its sentence is in a mini-batch.
        chains: How many there are of each sentence.
        **training: See `settings`.
    """
    return MonteCarloEM(
        problem.make_grammar(kind),
        SymmetricMetropolis(TreeMoves(problem.nonterminals), moves),
        chains=chains,
        **settings(problem, **training),
    )


def gibbs(
    problem: Problem, kind: str = "pcfg", moves: int = 20, chains: int = 1, **training: Any
) -> MonteCarloEM:
    """EM on Markov chains of trees whose moves turn and relabel an edge as its rules weigh it.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        moves: How many moves a chain makes whenever its sentence is in a mini-batch.
        chains: How many there are of each sentence.
        **training: See `settings`.
    """
    return MonteCarloEM(
        problem.make_grammar(kind), GrammarGibbs(moves), chains=chains,
        **settings(problem, **training),
    )  # fmt: skip


def settings(problem: Problem, rate: float | None = None, **more: Any) -> dict[str, Any]:
    """Gives what all learners share: arguments of a `ModelLearner` or a `MinibatchEM`.

    Args:
        problem: What is learned from.
        rate: Adam's learning rate of the grammar, until it falls; the problem's if None.
        **more: Other arguments of the learner.
    """
    return {
        "model_rate": problem.slowed(rate or problem.rate),
        "betas": BETAS,
        "max_norm": MAX_NORM,
        "sampler": SimilarSizes(num_words),
        **problem.schedule,
        **more,
    }


def num_words(x: Tensor) -> Tensor:
    """Counts the words of sentences, int64 `[N, max_words]` to `[N]`."""
    return (x >= 0).sum(-1)
