"""The distribution that an E-step has arrived at: as a table, and its distance to the posterior."""

import copy

from torch import Tensor

from algorithms.e_step import ExactEStep, MeanFieldEStep
from algorithms.em import EM
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.learner import Learner
from algorithms.policy_distribution import policy_log_probs
from lvms.enumeration import EnumeratedPosterior


def e_step_log_probs(learner: Learner, x: Tensor) -> Tensor | None:
    """Computes log q(z | x) of a learner's E-step for every structure.

    Nothing of that counts as a likelihood evaluation of learning.

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
        # A copy, since these E-steps count the evaluations that their tables take.
        return copy.copy(e_step).posterior(x, 1).log_w
    return None


def e_step_total_variation(learner: Learner, x: Tensor) -> Tensor | None:
    """Compares a learner's E-step with the exact posterior at the parameters as they are.

    Args:
        learner: The learner.
        x: Observations of one context, `[B, ...]`.

    Returns:
        The total variation of each, float `[B]`, 0 to 1; None as in `e_step_log_probs`. Nothing of
        it counts as a likelihood evaluation of learning.
    """
    log_q = e_step_log_probs(learner, x)
    if log_q is None:
        return None
    assert isinstance(learner, EM)
    log_p = EnumeratedPosterior(learner.model).log_posterior_table(x)
    return (log_q.exp() - log_p.exp()).abs().sum(-1) / 2
