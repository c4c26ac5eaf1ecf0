"""The distribution that an E-step has arrived at, as a table."""

from torch import Tensor

from algorithms.e_step import ExactEStep, MeanFieldEStep
from algorithms.em import EM
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.learner import Learner
from algorithms.policy_distribution import policy_log_probs


def e_step_log_probs(learner: Learner, x: Tensor) -> Tensor | None:
    """Computes log q(z | x) of a learner's E-step for every structure.

    Args:
        learner: The learner.
        x: Observations of one context, `[B, ...]`.

    Returns:
        float `[B, Z]`, nats, in the order of `env.enumerate`; None where the learner has no E-step,
        or one that has no distribution of its own, as Markov chains do not.
    """
    if not isinstance(learner, EM):
        return None
    model, e_step = learner.model, learner.e_step
    if isinstance(e_step, GFlowNetEStep):
        return policy_log_probs(model.env, e_step.policy, x, model.context(x)[0])
    if isinstance(e_step, MeanFieldEStep | ExactEStep):
        return e_step.posterior(x, 1).log_w
    return None
