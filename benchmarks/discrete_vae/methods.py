"""Every method that learns a discrete VAE by its standard name.

A method is a function of a `Problem` that returns an `AmortisedLearner` of its model. One of your
own is such a function in a file of yours and one call,
`dvae_methods.register("my-method", "my_package.dvae:my_method")`; a known one with other settings
is the call alone, with those settings as keywords.
"""

from typing import Any

from algorithms.alternation import FixedUpdates, LossThreshold
from algorithms.exploration import EpsilonUniform, OnPolicy
from algorithms.gumbel_softmax import GumbelSoftmax
from algorithms.image_mlp_policy import ImageMLPPolicy
from algorithms.image_policy import ImagePolicy
from algorithms.minibatch_em import MinibatchEM
from algorithms.objective import Objective
from algorithms.objectives import objectives
from algorithms.residual_loss import Scaled
from algorithms.reverse_kl import ReverseKL
from algorithms.reweighted_wake import ReweightedWake
from algorithms.schedule import Exponential
from algorithms.sleep_phase import SleepPhase
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from algorithms.vimco import VIMCO
from algorithms.vq_vae import VQVAE
from algorithms.warm_start import WarmStart
from benchmarks.discrete_vae.problem import Problem
from gfn_envs.catalogue import Catalogue

dvae_methods = Catalogue("discrete VAE method")

_HERE = "benchmarks.discrete_vae.methods"
dvae_methods.register("gflownet-em", f"{_HERE}:gflownet_em")
dvae_methods.register("gflownet-em-warm", f"{_HERE}:warm_gflownet_em")
dvae_methods.register("gflownet-em-tb", f"{_HERE}:gflownet_em", objective="tb")
dvae_methods.register(
    "gflownet-em-global-z", f"{_HERE}:gflownet_em", objective="tb", partition="global"
)
dvae_methods.register("gflownet-em-no-sleep", f"{_HERE}:gflownet_em", sleep=0.0)
dvae_methods.register("gflownet-em-dreams", f"{_HERE}:gflownet_em", sleep=1.0, sleep_weight=30.0)
dvae_methods.register("gflownet-em-reweighted", f"{_HERE}:gflownet_em", m_step="reweighted")
dvae_methods.register("gflownet-em-equal", f"{_HERE}:gflownet_em", m_step="all")
dvae_methods.register("gflownet-em-sampled", f"{_HERE}:gflownet_em", m_step="sampled")
dvae_methods.register("gflownet-em-greedy", f"{_HERE}:gflownet_em", m_step="greedy")
dvae_methods.register("gflownet-em-alternating", f"{_HERE}:alternating_em")
dvae_methods.register("gflownet-em-adaptive", f"{_HERE}:adaptive_em")
dvae_methods.register("paper", f"{_HERE}:paper")
dvae_methods.register("paper-greedy", f"{_HERE}:paper", m_step="greedy")
dvae_methods.register("reinforce", f"{_HERE}:reinforce")
dvae_methods.register("mean-field", f"{_HERE}:reinforce", autoregressive=False)
dvae_methods.register("reweighted-wake-sleep", f"{_HERE}:reweighted_wake_sleep")
dvae_methods.register("reweighted-wake-sleep-dreams", f"{_HERE}:reweighted_wake_sleep", sleep=1.0)
dvae_methods.register("vimco", f"{_HERE}:vimco")
dvae_methods.register("gumbel-softmax", f"{_HERE}:gumbel_softmax")
dvae_methods.register(
    "gumbel-softmax-autoregressive", f"{_HERE}:gumbel_softmax", autoregressive=True
)
dvae_methods.register("vq-vae", f"{_HERE}:vq_vae")

RATE = 1e-3
"""Adam's of policies and models, until it falls."""

PRIOR_FROM = 0.5
"""The share of the updates before a learned prior learns from the samples of a policy."""

WEIGHTED = "resampled"
"""How importance weights enter an M-step: one of 8 samples teaches the decoder as much as all of
them do (`reweighted`), on MNIST in three quarters of the time."""


# -- GFlowNet-EM -----------------------------------------------------------------------------------


def gflownet_em(
    problem: Problem,
    *,
    objective: str = "vargrad",
    partition: str = "per-image",
    autoregressive: bool = True,
    epsilon: float = 0.0,
    sleep: float = 0.5,
    sleep_weight: float = 3.0,
    m_step: str = WEIGHTED,
    **training: Any,
) -> MinibatchEM:
    """GFlowNet-EM: a policy trained to sample the posterior, and the model on its samples.

    Args:
        problem: What is learned.
        objective: A registered objective.
        partition: `per-image` or `global`; see `ImagePolicy`.
        autoregressive: Whether a code may depend on those before it.
        epsilon: The share of uniform actions.
        sleep: The share of updates that learn from dreams of the model too.
        sleep_weight: What the loss on dreams counts.
        m_step: What the model learns from; see `MinibatchEM`.
        **training: See `amortised_em`.
    """
    return amortised_em(
        problem,
        problem.make_policy(partition, autoregressive),
        objectives.make(objective),
        exploration=EpsilonUniform(epsilon) if epsilon else OnPolicy(),
        sleep=sleep,
        sleep_weight=sleep_weight,
        m_step=m_step,
        **training,
    )


def warm_gflownet_em(
    problem: Problem,
    relaxed_share: float = 0.5,
    sleep: float = 1.0,
    sleep_weight: float = 10.0,
    m_step: str = WEIGHTED,
) -> WarmStart:
    """GFlowNet-EM from where Gumbel-softmax has brought the same policy and model.

    What relaxed codes and few images have taught a policy, it knows by heart: on images that it has
    not seen it misses codes. Dreams, of which there are ever new ones, teach it those.

    Args:
        problem: What is learned.
        relaxed_share: The share of the updates that relax codes.
        sleep: The share of the others that learn from dreams of the model too.
        sleep_weight: What the loss on dreams counts.
        m_step: What the model learns from; see `MinibatchEM`.
    """
    return WarmStart(
        problem.model,
        problem.make_raster_policy(),
        VarGrad(),
        relaxed_share=relaxed_share,
        sleep=SleepPhase(sleep, sleep_weight),
        m_step=m_step,
        late=problem.model.prior,
        late_from=round(PRIOR_FROM * problem.num_updates),
        **problem.schedule,
    )


def alternating_em(problem: Problem, turn: int = 400, **settings: Any) -> MinibatchEM:
    """GFlowNet-EM whose policy and model learn in turns of the same length."""
    length = problem.turn(turn)
    return gflownet_em(problem, alternation=FixedUpdates(length), m_updates=length, **settings)


def adaptive_em(
    problem: Problem,
    bound: tuple[float, float] = (10.0, 1.0),
    turn: int = 100,
    longest: int = 4,
    **settings: Any,
) -> MinibatchEM:
    """GFlowNet-EM whose policy learns until its loss is low enough for the model's turn.

    Args:
        problem: What is learned.
        bound: On the average loss, nats squared: its first value and its last.
        turn: How many updates the model's turn lasts.
        longest: The policy's turn lasts at most so many times as long.
        **settings: See `gflownet_em`.
    """
    length = problem.turn(turn)
    falling = Exponential(*bound, max(1, problem.num_updates // 2))
    alternation = LossThreshold(falling, max_updates=longest * length)
    return gflownet_em(problem, alternation=alternation, m_updates=length, **settings)


def paper(
    problem: Problem, m_step: str = "sampled", turn: int = 400, rate: float = 2e-4
) -> MinibatchEM:
    """GFlowNet-EM with the losses, turns and rates of Hu et al. 2023, section 5.3.

    Args:
        problem: What is learned.
        m_step: `sampled` or `greedy`, which the authors tried both.
        turn: How many updates policy and model have in turn.
        rate: Adam's, of policy and model.
    """
    model = problem.model
    policy = ImageMLPPolicy(
        model.env, model.image_shape, problem.channels, problem.hidden, partition="global"
    )
    length = problem.turn(turn)
    return MinibatchEM(
        model,
        policy,
        TrajectoryBalance(residual_loss=Scaled(1 / model.env.max_steps)),
        samples_per_x=1,
        policy_rate=rate,
        partition_rate=0.1,
        model_rate=rate,
        sleep=SleepPhase(probability=0.3, weight=10.0),
        m_step=m_step,
        alternation=FixedUpdates(length),
        m_updates=length,
        centre=False,
        **problem.schedule,
    )


# -- variational inference and wake-sleep ----------------------------------------------------------


def reinforce(problem: Problem, autoregressive: bool = True, **training: Any) -> MinibatchEM:
    """Variational EM: the policy ascends the ELBO by REINFORCE with a leave-one-out baseline.

    Args:
        problem: What is learned.
        autoregressive: Whether a code may depend on those before it; otherwise q(z | x) is a
            product over places, the amortised mean field.
        **training: See `amortised_em`.
    """
    policy = problem.make_policy(autoregressive=autoregressive)
    return amortised_em(problem, policy, ReverseKL(), **training)


def reweighted_wake_sleep(problem: Problem, m_step: str = WEIGHTED, **training: Any) -> MinibatchEM:
    """Reweighted wake-sleep: importance-weighted samples train the policy and the model.

    The policy's wake update alone; with `sleep`, its sleep update beside it.

    Args:
        problem: What is learned.
        m_step: What the model learns from; see `MinibatchEM`.
        **training: See `amortised_em`.
    """
    policy = problem.make_policy()
    return amortised_em(problem, policy, ReweightedWake(), m_step=m_step, **training)


def vimco(problem: Problem, **training: Any) -> MinibatchEM:
    """The importance-weighted bound, ascended by VIMCO in the policy."""
    policy = problem.make_policy()
    return amortised_em(problem, policy, VIMCO(), m_step=WEIGHTED, **training)


def amortised_em(
    problem: Problem,
    policy: ImagePolicy,
    objective: Objective,
    *,
    rate: float = RATE,
    partition_rate: float = 1e-2,
    samples_per_x: int = 8,
    sleep: float = 0.0,
    sleep_weight: float = 10.0,
    **training: Any,
) -> MinibatchEM:
    """Makes EM on mini-batches whose prior learns later and whose rates fall in the end.

    Args:
        problem: What is learned.
        policy: Samples the posterior.
        objective: Its loss.
        rate: Adam's, of policy and model, until it falls.
        partition_rate: That of log Z.
        samples_per_x: Trajectories for each image.
        sleep: The share of updates whose policy learns from dreams of the model too.
        sleep_weight: What the loss on dreams counts.
        **training: See `MinibatchEM`.
    """
    return MinibatchEM(
        problem.model,
        policy,
        objective,
        samples_per_x=samples_per_x,
        policy_rate=problem.slowed(rate),
        partition_rate=problem.slowed(partition_rate),
        model_rate=problem.slowed(rate),
        sleep=SleepPhase(sleep, sleep_weight) if sleep else None,
        late=problem.model.prior,
        late_from=round(PRIOR_FROM * problem.num_updates),
        **problem.schedule,
        **training,
    )


# -- gradients through the decoder -----------------------------------------------------------------


def gumbel_softmax(
    problem: Problem, autoregressive: bool = False, rate: float = RATE
) -> GumbelSoftmax:
    """Relaxed codes, at a temperature that falls.

    Args:
        problem: What is learned.
        autoregressive: Whether a code may depend on those before it.
        rate: Adam's, of policy and model, until it falls.
    """
    return GumbelSoftmax(
        problem.model,
        problem.make_raster_policy(autoregressive=autoregressive),
        policy_rate=problem.slowed(rate),
        model_rate=problem.slowed(rate),
        **problem.schedule,
    )


def vq_vae(problem: Problem, decoder_share: float = 0.7) -> VQVAE:
    """VQ-VAE; over the last updates its prior and a policy are fitted.

    Args:
        problem: What is learned.
        decoder_share: The share of the updates before that.
    """
    return VQVAE(
        problem.model, problem.make_raster_policy(), VarGrad(), decoder_share=decoder_share,
        **problem.schedule,
    )  # fmt: skip
