"""GFlowNet-EM on grammars, by policies and objectives of every kind; see `methods`."""

from typing import Any

from algorithms.alternation import Alternation, FixedUpdates, LossThreshold
from algorithms.backward_policy import LearnedBackward
from algorithms.exploration import Exploration
from algorithms.explorations import explorations
from algorithms.grammar_gibbs import GrammarGibbs
from algorithms.markov_kernel import BackAndForthMoves, MarkovKernel, SymmetricMetropolis
from algorithms.minibatch_em import MinibatchEM
from algorithms.policy import Policy
from algorithms.schedule import Linear
from algorithms.sleep_phase import SleepPhase
from algorithms.tempered import Tempered
from algorithms.tree_policies import tree_order, tree_policies
from benchmarks.grammar.methods import settings
from benchmarks.grammar.problem import Problem
from benchmarks.posterior.training import make_objective
from gfn_envs.errors import unknown_name
from lvms.grammars.tree_moves import TreeMoves

ALTERNATIONS = ("joint", "turns", "adaptive")
"""When the model learns; see `gflownet_em`."""

KERNELS = ("gibbs", "metropolis", "back-and-forth")
"""What can improve the M-step's trees: `GrammarGibbs`, `TreeMoves`, `BackAndForthMoves`."""


def gflownet_em(
    problem: Problem,
    kind: str = "pcfg",
    *,
    policy: str = "chart",
    objective: str = "span-db",
    objective_settings: dict[str, Any] | None = None,
    exploration: str | Exploration = "on-policy",
    samples_per_x: int = 4,
    sleep: float = 0.0,
    sleep_weight: float = 0.1,
    m_step: str = "all",
    kernel: str = "gibbs",
    moves: int = 5,
    alternation: str = "joint",
    e_updates: int = 4,
    bound: tuple[float, float] = (6.0, 3.0),
    policy_rate: float = 5e-3,
    policy_max_norm: float = 3.0,
    **training: Any,
) -> MinibatchEM:
    """GFlowNet-EM: a policy trained to sample the posterior, and the grammar on its trees.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        policy: A registered policy over trees. It decides how trees are built, whatever the
            problem's `tree` is.
        objective: A registered objective.
        objective_settings: Further arguments of it.
        exploration: Where its trajectories come from, or the name of a registered exploration.
        samples_per_x: Trajectories for each sentence of a mini-batch.
        sleep: The share of updates that learn from dreams of the grammar too.
        sleep_weight: What the loss on dreams, nats a sentence, counts.
        m_step: What the grammar learns from; see `MinibatchEM`.
        kernel: What improves trees for the M-step `improved`, one of `KERNELS`.
        moves: How many moves it makes.
        alternation: `joint`: grammar and policy learn from every mini-batch; `turns`: one
            mini-batch for the grammar after every `e_updates` for the policy; `adaptive`: one
            after as many as bring the policy's average loss below `bound`.
        e_updates: See above; of adaptive E-steps, 25 times as many are the most.
        bound: On the loss, its first value and its last.
        policy_rate: Adam's, of the policy, until it falls.
        policy_max_norm: Longer gradients of the policy are scaled down to this norm.
        **training: See `methods.settings`, and others of a `MinibatchEM`.
    """
    grammar = problem.make_grammar(kind, tree=tree_order(policy))
    network = tree_policies.make(policy, grammar)
    return MinibatchEM(
        grammar,
        network,
        make_objective(objective, grammar, **(objective_settings or {})),
        samples_per_x=samples_per_x,
        policy_rate=problem.slowed(policy_rate),
        policy_max_norm=policy_max_norm,
        exploration=explorations.make(exploration) if isinstance(exploration, str) else exploration,
        sleep=SleepPhase(sleep, sleep_weight) if sleep else None,
        m_step=m_step,
        kernel=_kernel(kernel, moves, problem, network) if m_step == "improved" else None,
        alternation=_alternation(alternation, e_updates, bound, problem),
        **settings(problem, **training),
    )


def paper(
    problem: Problem,
    kind: str = "pcfg",
    *,
    bound: tuple[float, float] = (6.0, 3.0),
    rounds: int = 10,
    **changes: Any,
) -> MinibatchEM:
    """GFlowNet-EM with the policy, losses and devices of Hu et al. 2023, section 5.2.

    A Transformer over the roots of a forest at every step, forward-looking SubTB over all parts of
    a trajectory alike, P_B learned, actions tempered, dreams in every update, adaptive E-steps,
    and one tree of each sentence for the grammar, moved back and forth first.

    It differs from theirs where an M-step has a mini-batch of its own: at most half of all are the
    grammar's, and the bound falls over so many M-steps. E-steps end after 100 updates, or a
    twentieth of all, even if the loss stays above the bound. Rates fall in the end, and the
    grammar's optimiser is that of the other methods.

    Args:
        problem: What is learned from.
        kind: See `Problem.make_grammar`.
        bound: On the policy's average loss, its first value and its last: the paper's for `pcfg`;
            it has (7, 3.5) for `ncfg` and (4, 2) for a grammar with energies.
        rounds: How often trees are moved back and forth before an M-step.
        **changes: Other settings of `gflownet_em`.
    """
    own: dict[str, Any] = {
        "policy": "forest",
        "objective": "fl-subtb",
        "objective_settings": {"backward": LearnedBackward(), "lambda_": 1.0},
        "exploration": Tempered(1.1),
        "samples_per_x": 1,
        "sleep": 1.0,
        "sleep_weight": 10.0,
        "m_step": "improved",
        "kernel": "back-and-forth",
        "moves": rounds,
        "alternation": "adaptive",
        "e_updates": 4,
        "bound": bound,
        "policy_rate": 1e-4,
        "partition_rate": problem.slowed(3e-3),
        "policy_max_norm": float("inf"),
    }
    return gflownet_em(problem, kind, **{**own, **changes})


def _kernel(name: str, moves: int, problem: Problem, policy: Policy) -> MarkovKernel:
    """Makes what improves trees.

    Raises:
        UserError: If there is none of that name.
    """
    match name:
        case "gibbs":
            return GrammarGibbs(moves)
        case "metropolis":
            return SymmetricMetropolis(TreeMoves(problem.nonterminals), moves)
        case "back-and-forth":
            return BackAndForthMoves(policy, moves)
    raise unknown_name("kernel", name, KERNELS)


def _alternation(
    name: str, e_updates: int, bound: tuple[float, float], problem: Problem
) -> Alternation | None:
    """Makes what says when the grammar learns.

    Raises:
        UserError: If there is none of that name.
    """
    match name:
        case "joint":
            return None
        case "turns":
            return FixedUpdates(problem.turn(e_updates))
        case "adaptive":
            most = max(1, problem.num_updates // 2)
            return LossThreshold(Linear(*bound, most), problem.turn(25 * e_updates))
    raise unknown_name("alternation", name, ALTERNATIONS)
