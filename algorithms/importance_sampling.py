"""log p(x) by importance sampling from a policy, where no exact sum is possible."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.backward_policy import default_backward_policy
from algorithms.policy import Memory, Policy
from algorithms.rollout import rollout
from gfn_envs.errors import UserError
from lvms.log_mean import LogMean, log_mean
from lvms.model import LatentVariableModel

FEW_SAMPLES = 50
"""The samples of the smaller importance-weighted bound."""

ROWS_AT_A_TIME = 128
"""How many structures are scored at a time: what bounds the memory, and a decoder of 128 channels
is then a third faster than with four times as many, which no cache holds."""

TRAJECTORIES_AT_A_TIME = 8192
"""How many trajectories are sampled at a time."""


@dataclass(frozen=True)
class ImportanceEstimate:
    """What samples from q(z | x) say of log p(x), a number for each observation.

    Attributes:
        log_marginal: float `[B]`, log of the mean of M weights p(x, z) / q(z | x), nats: the
            importance-weighted bound of M samples (Burda, Grosse, Salakhutdinov, ICLR 2016).
        standard_error: float `[B]`, of that, by the delta method, nats. It knows nothing of modes
            that no sample has hit.
        few: float `[B]`, the mean bound of `FEW_SAMPLES` samples, nats; of all where M is smaller.
        elbo: float `[B]`, the mean of the log weights, nats.
        effective_samples: float `[B]`, (sum w)^2 / sum w^2 as a share of M.
        decoded: float `[B]`, the distinct structures among the samples as a share of M.
    """

    log_marginal: Tensor
    standard_error: Tensor
    few: Tensor
    elbo: Tensor
    effective_samples: Tensor
    decoded: Tensor

    @classmethod
    def of(cls, log_weight: Tensor, decoded: Tensor) -> "ImportanceEstimate":
        """Summarises log weights `[B, M]` and the number of distinct structures `[B]`."""
        num = log_weight.shape[1]
        mean = LogMean.of(log_weight)
        size = min(FEW_SAMPLES, num)
        groups = log_weight[:, : num // size * size].unflatten(1, (-1, size))
        return cls(
            mean.value,
            mean.standard_error,
            log_mean(groups).mean(1),
            log_weight.mean(1),
            mean.effective_samples,
            decoded / num,
        )


@torch.no_grad()
def importance_sample(
    model: LatentVariableModel,
    policy: Policy,
    x: Tensor,
    samples: int,
    generator: torch.Generator | None = None,
    show: Callable[[int], object] | None = None,
) -> ImportanceEstimate:
    """Estimates log p(x) with a policy as the proposal.

    Each x is encoded once and each distinct structure of its samples scored once, so many at a
    time, so that memory does not grow with `samples` but for the structures themselves.

    Args:
        model: The model.
        policy: The proposal; it must reach every structure.
        x: Observations, `[B, ...]`.
        samples: M.
        generator: Source of randomness.
        show: Called with the number of observations that were just finished.

    Returns:
        The estimates.

    Raises:
        UserError: If M is below 1.
    """
    if samples < 1:
        raise UserError(f"Importance sampling needs at least 1 sample; got {samples}.")
    weights, decoded = [], []
    for some in x.split(max(1, TRAJECTORIES_AT_A_TIME // samples)):
        memory = policy.encode(some)
        parts = [
            _sample(model, policy, some, memory, count, generator)
            for count in _shares(samples, TRAJECTORIES_AT_A_TIME)
        ]
        z, log_q = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        log_joint, distinct = log_joint_once(model, some, z)
        weights.append(log_joint - log_q)
        decoded.append(distinct)
        if show is not None:
            show(len(some))
    return ImportanceEstimate.of(torch.cat(weights), torch.cat(decoded))


def _sample(
    model: LatentVariableModel,
    policy: Policy,
    x: Tensor,
    memory: Memory,
    count: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Draws so many structures for each x, `[B, count, S]`, and log P_F / P_B, `[B, count]`."""
    env = model.env
    rows = torch.arange(len(x), device=x.device).repeat_interleave(count)
    batch = rollout(
        env, policy, x, rows=rows, context=model.context(x), generator=generator, memory=memory
    )
    log_pb = default_backward_policy(env).total(env, policy, batch)
    log_q = (batch.total_log_pf() - log_pb).view(len(x), count)
    return batch.z.view(len(x), count, -1), log_q


@torch.no_grad()
def log_joint_once(model: LatentVariableModel, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Computes log p(x, z) of samples, each distinct structure of an observation once.

    Args:
        model: The model.
        x: Observations, `[B, ...]`.
        z: int64 `[B, M, S]`.

    Returns:
        float `[B, M]`, nats, and int64 `[B]`, how many structures of each were distinct.
    """
    rows = torch.arange(len(x), device=x.device)[:, None, None].expand(-1, z.shape[1], 1)
    pairs, inverse = torch.unique(torch.cat([rows, z], 2).flatten(0, 1), dim=0, return_inverse=True)
    scored = [
        model.log_joint(x.index_select(0, some[:, 0]), some[:, 1:])
        for some in pairs.split(ROWS_AT_A_TIME)
    ]
    distinct = torch.bincount(pairs[:, 0], minlength=len(x))
    return torch.cat(scored)[inverse].view(z.shape[:2]), distinct


def _shares(total: int, most: int) -> list[int]:
    """Splits a number into parts of at most `most`."""
    return [min(most, total - start) for start in range(0, total, most)]
