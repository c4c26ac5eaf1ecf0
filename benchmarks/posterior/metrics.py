"""Every metric of a posterior sampler by name, one number for each observation.

A metric is a function of an `Evaluation` that returns float `[B]`. One of your own is a function in
a file of yours and one call, `metrics.register("my_metric", "my_package.metrics:my_metric")`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.policy import HasLogPartition, HasStateFlow
from benchmarks.posterior.evaluation import Evaluation
from gfn_envs.catalogue import Catalogue
from gfn_envs.errors import UserError
from gfn_envs.registration import load

metrics = Catalogue("metric")

metrics.register("total_variation", "benchmarks.posterior.metrics:total_variation")
metrics.register("jensen_shannon", "benchmarks.posterior.metrics:jensen_shannon")
metrics.register("forward_kl", "benchmarks.posterior.metrics:forward_kl")
metrics.register("reverse_kl", "benchmarks.posterior.metrics:reverse_kl")
metrics.register("elbo", "benchmarks.posterior.metrics:elbo")
metrics.register("eubo", "benchmarks.posterior.metrics:eubo")
metrics.register("elbo_gap", "benchmarks.posterior.metrics:elbo_gap")
metrics.register("eubo_gap", "benchmarks.posterior.metrics:eubo_gap")
metrics.register("iwae", "benchmarks.posterior.metrics:iwae")
metrics.register("ess", "benchmarks.posterior.metrics:ess")
metrics.register("log_z_error", "benchmarks.posterior.metrics:log_z_error")
metrics.register("initial_flow_error", "benchmarks.posterior.metrics:initial_flow_error")
metrics.register("top_coverage", "benchmarks.posterior.metrics:top_coverage", top=10)
metrics.register("mass_coverage", "benchmarks.posterior.metrics:mass_coverage")


@torch.no_grad()
def measure(evaluation: Evaluation, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Computes metrics and averages each over the observations.

    Args:
        evaluation: What is measured.
        names: Registered metrics.

    Returns:
        For each name what `summarise` returns.

    Raises:
        UserError: If a name is unknown, or a metric cannot be had of this policy or model.
    """
    found = [metrics[name] for name in names]  # an unknown one is refused before any work
    return {
        entry.name: summarise(load(entry.entry_point)(evaluation, **entry.kwargs))
        for entry in found
    }


def summarise(values: Tensor) -> dict[str, float]:
    """Averages a metric over observations.

    Args:
        values: float `[B]`.

    Returns:
        `mean`, its `standard_error` over observations (NaN where there is only one) and `n`.
    """
    spread = values.std().item() if len(values) > 1 else float("nan")
    return {
        "mean": values.mean().item(),
        "standard_error": spread / len(values) ** 0.5,
        "n": len(values),
    }


# -- distances to the exact posterior: summed over every structure --------------------------------


def total_variation(evaluation: Evaluation) -> Tensor:
    """Half the sum over z of |p(z | x) - q(z | x)|, 0 to 1."""
    return (evaluation.log_p.exp() - evaluation.log_q.exp()).abs().sum(-1) / 2


def jensen_shannon(evaluation: Evaluation) -> Tensor:
    """Jensen-Shannon divergence of p(z | x) and q(z | x), 0 to log 2 nats.

    JS = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2. Lin: "Divergence measures based on
    the Shannon entropy", IEEE Transactions on Information Theory 1991.
    """
    log_p, log_q = evaluation.log_p, evaluation.log_q
    log_m = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def forward_kl(evaluation: Evaluation) -> Tensor:
    """KL(p || q) of the policy from the exact posterior, nats; large where q misses a mode."""
    return _kl(evaluation.log_p, evaluation.log_q)


def reverse_kl(evaluation: Evaluation) -> Tensor:
    """KL(q || p) of the policy from the exact posterior, nats; large where q strays."""
    return _kl(evaluation.log_q, evaluation.log_p)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Computes KL(p || q) of tables `[B, Z]`, float `[B]`; infinite where q misses part of p."""
    # A structure without mass under p adds nothing, even where q has none either.
    ratio = torch.where(log_p > -torch.inf, log_p - log_q, 0.0)
    return (log_p.exp() * ratio).sum(-1)


# -- bounds on log p(x), estimated from k trajectories an observation ------------------------------


def elbo(evaluation: Evaluation) -> Tensor:
    """Evidence lower bound E_{P_F}[log p(x, z) P_B(tau | z) / P_F(tau)], nats.

    On a tree it is log p(x) - KL(q || p). With many build orders it is that of trajectories, lower
    by KL(P_F(tau | z) || P_B(tau | z)) averaged over q(z | x). Averaged over `k` samples.
    """
    return evaluation.log_weights.mean(-1)


def eubo(evaluation: Evaluation) -> Tensor:
    """Evidence upper bound E_{p(z | x) P_B}[log p(x, z) P_B(tau | z) / P_F(tau)], nats.

    On a tree it is log p(x) + KL(p || q): it rises where q misses a mode, which the ELBO does not
    see. Blessing, Jia, Esslinger, Vargas, Neumann: "Beyond ELBOs", ICML 2024. Averaged over `k`
    exact posterior samples with trajectories from P_B.
    """
    return evaluation.exact_log_weights.mean(-1)


def elbo_gap(evaluation: Evaluation) -> Tensor:
    """How far the `elbo` is below log p(x), nats: KL(q || p) where there is one build order.

    An estimate from `k` samples, for structures too many to be summed over.
    """
    return evaluation.log_marginal - elbo(evaluation)


def eubo_gap(evaluation: Evaluation) -> Tensor:
    """How far the `eubo` is above log p(x), nats: KL(p || q) where there is one build order.

    An estimate from `k` exact samples, for structures too many to be summed over.
    """
    return eubo(evaluation) - evaluation.log_marginal


def iwae(evaluation: Evaluation) -> Tensor:
    """Importance-weighted bound log (1 / k) sum_i w_i on log p(x), nats.

    w = p(x, z) P_B(tau | z) / P_F(tau). Burda, Grosse, Salakhutdinov: "Importance weighted
    autoencoders", ICLR 2016, equation 8.
    """
    log_k = torch.log(evaluation.log_weights.new_tensor(float(evaluation.k)))
    return evaluation.log_weights.logsumexp(-1) - log_k


def ess(evaluation: Evaluation) -> Tensor:
    """Effective sample size (sum_i w_i)^2 / (k sum_i w_i^2) of k samples, 1 / k to 1.

    w = p(x, z) P_B(tau | z) / P_F(tau). Kong: "A note on importance sampling using standardized
    weights", 1992. It is blind to modes that none of the k samples has met.
    """
    log_w = evaluation.log_weights
    return (2 * log_w.logsumexp(-1) - (2 * log_w).logsumexp(-1)).exp() / evaluation.k


# -- what the policy says log p(x) is --------------------------------------------------------------


def log_z_error(evaluation: Evaluation) -> Tensor:
    """|log Z(x) - log p(x)| of the learned partition function, nats.

    Raises:
        UserError: If the policy has no `log_partition`.
    """
    policy = evaluation.policy
    if not isinstance(policy, HasLogPartition):
        raise UserError(f"{type(policy).__name__} has no log_partition; leave out log_z_error.")
    log_z = policy.log_partition(policy.encode(evaluation.x))
    return (log_z.double() - evaluation.log_marginal).abs()


def initial_flow_error(evaluation: Evaluation) -> Tensor:
    """|log F(s_0; x) - log p(x)| of the learned state flow, nats.

    Raises:
        UserError: If the policy has no `state_flow`.
    """
    policy, x = evaluation.policy, evaluation.x
    if not isinstance(policy, HasStateFlow):
        raise UserError(f"{type(policy).__name__} has no state_flow; leave out initial_flow_error.")
    start, rows = evaluation.env.initial_states(len(x)), torch.arange(len(x), device=x.device)
    log_flow = policy.state_flow(start, policy.encode(x), rows)
    return (log_flow.double() - evaluation.log_marginal).abs()


# -- what the samples have met ---------------------------------------------------------------------


def top_coverage(evaluation: Evaluation, top: int = 10) -> Tensor:
    """Share of the posterior's most probable structures that k samples hit, 0 to 1.

    Args:
        evaluation: What is measured.
        top: How many structures; all of them where there are fewer.
    """
    best = evaluation.log_p.topk(min(top, len(evaluation.structures))).indices
    wanted = evaluation.structures[best]
    drawn = evaluation.samples.z.view(len(evaluation.x), evaluation.k, -1)
    # One wanted structure at a time: all pairs at once would need k times the memory.
    hit = [(drawn == one[:, None]).all(-1).any(-1) for one in wanted.unbind(1)]
    return torch.stack(hit, dim=1).double().mean(-1)


def mass_coverage(evaluation: Evaluation) -> Tensor:
    """Posterior mass of the structures that k samples hit, each counted once, 0 to 1.

    Exact samples do not reach 1 either: compare policies at the same k.
    """
    batch = evaluation.samples
    distinct = torch.cat([batch.rows[:, None], batch.z], dim=1).unique(dim=0)
    rows, z = distinct[:, 0], distinct[:, 1:]
    mass = evaluation.exact.posterior_log_prob(evaluation.x[rows], z).double().exp()
    return mass.new_zeros(len(evaluation.x)).index_add(0, rows, mass.detach())
