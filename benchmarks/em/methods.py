"""Every EM method by its standard name.

A method is a function of a `Problem` that returns a `Learner` of its model. One of your own is such
a function in a file of yours and one call, `em_methods.register("my-em", "my_package.em:my_em")`;
a known one with other settings is the call alone, with those settings as keywords.
"""

from typing import Any

from algorithms.alternation import Alternation, FixedUpdates
from algorithms.e_step import ExactEStep, MeanFieldEStep, MetropolisEStep, require_table
from algorithms.em import EM, ModelT
from algorithms.exploration import EpsilonUniform, Exploration, OnPolicy
from algorithms.forward_kl import ForwardKL
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.gibbs_e_step import GibbsEStep
from algorithms.marginalisation import Marginalisation
from algorithms.mixture import Mixture
from algorithms.objective import Objective
from algorithms.objectives import objectives
from algorithms.residual_loss import Huber
from algorithms.reverse_kl import ReverseKL
from algorithms.reweighted_e_step import ReweightedEStep
from algorithms.reweighted_wake import ReweightedWake
from algorithms.schedule import Exponential, Schedule
from algorithms.sleep import Sleep
from algorithms.sleep_phase import SleepPhase
from algorithms.tempered_reward import TemperedReward
from benchmarks.em.problem import Problem, adam
from benchmarks.posterior.training import make_policy
from gfn_envs.catalogue import Catalogue

em_methods = Catalogue("EM method")

TEMPERED = {
    "last_beta": 0.5, "learning_rate": (0.02, 0.003), "batch_size": 128, "samples_per_x": 8,
}  # fmt: skip
"""Settings of methods whose M-step sees importance-weighted samples: a policy that stays flatter
than the posterior proposes better, and the weights correct for it."""

UNTEMPERED = {**TEMPERED, "last_beta": 1.0}
"""The same of methods whose policy aims at the posterior itself in the end."""

DREAMING = {**UNTEMPERED, "dreams": 3.0}
"""The same of methods that learn from dreams too, which come from the posterior itself."""

em_methods.register("exact-em", "benchmarks.em.methods:exact_em")
em_methods.register("annealed-em", "benchmarks.em.methods:annealed_em")
em_methods.register("mean-field-em", "benchmarks.em.methods:mean_field_em")
em_methods.register("monte-carlo-em", "benchmarks.em.methods:monte_carlo_em", samples=4)
em_methods.register("monte-carlo-em-1", "benchmarks.em.methods:monte_carlo_em", samples=1)
em_methods.register(
    "monte-carlo-em-short", "benchmarks.em.methods:monte_carlo_em", samples=1, moves=8
)
em_methods.register("gibbs-em", "benchmarks.em.methods:gibbs_em")
em_methods.register("gibbs-em-2", "benchmarks.em.methods:gibbs_em", sweeps=2)
em_methods.register("gflownet-em", "benchmarks.em.methods:gflownet_em")
em_methods.register(
    "gflownet-em-sleep",
    "benchmarks.em.methods:gflownet_em",
    objective="tb",
    sleep=0.5,
    samples_per_x=8,  # as many from the data as gflownet-em has, and as many dreams
)
em_methods.register(
    "gflownet-em-weighted",
    "benchmarks.em.methods:gflownet_em",
    weighted=True,
    epsilon=0.01,
    **TEMPERED,
)
em_methods.register(
    "gflownet-em-untempered",
    "benchmarks.em.methods:gflownet_em",
    weighted=True,
    epsilon=0.01,
    **UNTEMPERED,
)
em_methods.register(
    "gflownet-em-dreams",
    "benchmarks.em.methods:gflownet_em",
    weighted=True,
    epsilon=0.01,
    **DREAMING,
)
em_methods.register("reinforce-em", "benchmarks.em.methods:reinforce_em")
em_methods.register(
    "reinforce-em-weighted", "benchmarks.em.methods:reinforce_em", weighted=True, **TEMPERED
)
em_methods.register(
    "reinforce-em-untempered", "benchmarks.em.methods:reinforce_em", weighted=True, **UNTEMPERED
)
em_methods.register(
    "reinforce-em-dreams", "benchmarks.em.methods:reinforce_em", weighted=True, **DREAMING
)
em_methods.register("wake-sleep", "benchmarks.em.methods:wake_sleep")
em_methods.register("reweighted-wake-sleep", "benchmarks.em.methods:reweighted_wake_sleep")
em_methods.register(
    "reweighted-wake-sleep-tempered", "benchmarks.em.methods:reweighted_wake_sleep", **TEMPERED
)
em_methods.register(
    "reweighted-wake-sleep-untempered",
    "benchmarks.em.methods:reweighted_wake_sleep",
    **UNTEMPERED,
)
em_methods.register(
    "reweighted-wake-sleep-dreams", "benchmarks.em.methods:reweighted_wake_sleep", **DREAMING
)
em_methods.register("marginalisation", "benchmarks.em.methods:marginalisation")


# -- without a policy ------------------------------------------------------------------------------


def exact_em(problem: Problem[ModelT]) -> EM[ModelT]:
    """EM with the exact posterior."""
    require_table(problem.num_structures)
    return problem.em(ExactEStep(problem.model))


def annealed_em(
    problem: Problem[ModelT], beta: float = 0.3, beta_iterations: int = 15
) -> EM[ModelT]:
    """EM with the exact posterior, raised at first to a power below 1 (deterministic annealing)."""
    require_table(problem.num_structures)
    return problem.em(ExactEStep(problem.model, Exponential(beta, 1.0, beta_iterations)))


def mean_field_em(problem: Problem[ModelT], sweeps: int = 10) -> EM[ModelT]:
    """EM with the best factorised posterior that coordinate ascent finds."""
    require_table(problem.num_structures)
    return problem.em(MeanFieldEStep(problem.model, sweeps))


def monte_carlo_em(problem: Problem[ModelT], moves: int = 20, samples: int = 1) -> EM[ModelT]:
    """EM with Metropolis chains that go on from one E-step to the next."""
    return problem.em(
        MetropolisEStep(problem.model, moves, samples, problem.generator, problem.annealing()),
        posterior_samples=samples,
    )


def gibbs_em(problem: Problem[ModelT], sweeps: int = 1, samples: int = 1) -> EM[ModelT]:
    """EM with Gibbs chains that go on from one E-step to the next."""
    return problem.em(
        GibbsEStep(problem.model, sweeps, samples, problem.generator, problem.annealing()),
        posterior_samples=samples,
    )


def marginalisation(problem: Problem[ModelT], steps: int = 20) -> Marginalisation:
    """No EM: gradient ascent on the exact likelihood."""
    return Marginalisation(problem.model, adam(problem.model), problem.x, steps)


# -- with a policy ---------------------------------------------------------------------------------


def gflownet_em(
    problem: Problem[ModelT],
    *,
    objective: str = "vargrad",
    sleep: float = 0.0,
    epsilon: float = 0.1,
    huber_delta: float = 5.0,
    weighted: bool = False,
    last_beta: float = 1.0,
    **training: Any,
) -> EM[ModelT]:
    """EM with a GFlowNet that is trained to sample the posterior.

    Args:
        problem: What is learned.
        objective: A registered objective.
        sleep: The share of training trajectories that are dreams of the model; an objective that
            compares trajectories of one observation, as vargrad does, cannot have any.
        epsilon: The share of uniform actions in the others.
        huber_delta: Residuals beyond this cost linearly, nats.
        weighted: Whether the M-step sees importance-weighted samples; see `ReweightedEStep`.
        last_beta: The power of the posterior that the policy aims at in the end; below 1 the
            samples should be weighted.
        **training: See `amortised_em`.
    """
    exploration: Exploration = EpsilonUniform(epsilon)
    if sleep:
        exploration = Mixture([exploration, Sleep()], [1 - sleep, sleep])
    return amortised_em(
        problem,
        objectives.make(objective, residual_loss=Huber(huber_delta)),
        annealed(exploration, problem.annealing(last_beta)),
        e_step=ReweightedEStep if weighted else GFlowNetEStep,
        **training,
    )


def reinforce_em(
    problem: Problem[ModelT], weighted: bool = False, last_beta: float = 1.0, **training: Any
) -> EM[ModelT]:
    """Variational EM: a policy that REINFORCE brings closer to the posterior in reverse KL."""
    e_step = ReweightedEStep if weighted else GFlowNetEStep
    exploration = annealed(OnPolicy(), problem.annealing(last_beta))
    return amortised_em(problem, ReverseKL(), exploration, e_step=e_step, **training)


def wake_sleep(problem: Problem[ModelT], **training: Any) -> EM[ModelT]:
    """Wake-sleep: a policy that learns from the model's dreams alone."""
    return amortised_em(problem, ForwardKL(), Sleep(), **training)


def reweighted_wake_sleep(
    problem: Problem[ModelT], last_beta: float = 1.0, **training: Any
) -> EM[ModelT]:
    """Reweighted wake-sleep: importance-weighted samples train the policy and the model."""
    exploration = annealed(OnPolicy(), problem.annealing(last_beta))
    return amortised_em(problem, ReweightedWake(), exploration, e_step=ReweightedEStep, **training)


def annealed(exploration: Exploration, beta: Schedule | float) -> TemperedReward:
    """Raises the reward to a power that a schedule moves over EM iterations."""
    return TemperedReward(exploration, beta, per_m_step=True)


def amortised_em(
    problem: Problem[ModelT],
    objective: Objective,
    exploration: Exploration,
    *,
    alternation: Alternation | None = None,
    hidden: int = 64,
    learning_rate: tuple[float, float] = (0.03, 0.003),
    batch_size: int = 256,
    samples_per_x: int = 4,
    min_log_reward: float = -float("inf"),
    dreams: float = 0.0,
    e_step: type[GFlowNetEStep] = GFlowNetEStep,
) -> EM[ModelT]:
    """Makes EM whose E-step trains the problem's policy network.

    Args:
        problem: What is learned.
        objective: The policy's loss.
        exploration: Where its trajectories come from.
        alternation: How long each E-step lasts; as the problem has it by default.
        hidden: The width of its hidden layers.
        learning_rate: Adam's, first and last, falling by a constant factor an iteration.
        batch_size: Observations an update.
        samples_per_x: Trajectories for each observation of an update.
        min_log_reward: Lower log rewards are raised to this, nats.
        dreams: The weight of maximum likelihood on dreams, as many as an update has observations,
            in the policy's loss; see `SleepPhase`.
        e_step: What makes samples of the policy's structures.

    Raises:
        UserError: See `GFlowNetEStep`.
    """
    seed = problem.generator.initial_seed()
    policy = make_policy(problem.model, problem.x, seed, problem.policy, hidden=hidden)
    trained = e_step(
        problem.model,
        policy,
        objective,
        exploration=exploration,
        alternation=alternation or FixedUpdates(problem.e_updates, problem.first_e_updates),
        batch_size=batch_size,
        samples_per_x=samples_per_x,
        learning_rate=Exponential(*learning_rate, problem.iterations),
        min_log_reward=min_log_reward,
        sleep=SleepPhase(1.0, dreams) if dreams else None,
        generator=problem.generator,
    )
    return problem.em(trained, problem.posterior_samples, problem.m_step_points)
