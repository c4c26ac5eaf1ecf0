"""Gibbs sampling of categorical latents: a control that learns nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import FactoredCategorical
from lvms.model import LatentVariableModel

ROWS_AT_A_TIME = 4096
"""About so many candidates are scored at a time: copies of many observations would not fit into a
cache, and cost more than what is done with them."""


@torch.no_grad()
def gibbs_sweep(
    model: LatentVariableModel,
    x: Tensor,
    z: Tensor,
    generator: torch.Generator | None = None,
    beta: float = 1.0,
) -> Tensor:
    """Redraws each variable in turn given all the others (Geman and Geman 1984).

    z_v is drawn from p(z_v | z_-v, x), proportional to p(x, z) over its K_v values. Every update
    leaves the posterior invariant, hence so does the sweep; `evaluations_per_sweep` is its cost.

    Args:
        model: A model whose latents are those of a `FactoredCategorical`.
        x: Observations, `[N, ...]`.
        z: Complete states, int64 `[N, V]`; at least one value of each variable must have a
            positive joint probability beside the others.
        generator: Source of randomness.
        beta: The power of p(z | x) that is sampled instead, positive.

    Returns:
        The next states, int64 `[N, V]`, a new tensor.

    Raises:
        UserError: If the model's environment is another.
    """
    z = z.clone()
    for variable, size in enumerate(_sizes(model)):
        values = torch.arange(size, device=z.device)
        log_joint = []
        for some in values.split(max(1, ROWS_AT_A_TIME // max(1, len(z)))):
            candidates = z.repeat_interleave(len(some), 0)
            candidates[:, variable] = some.repeat(len(z))
            pairs = x if len(some) == 1 else x.repeat_interleave(len(some), 0)
            log_joint.append(model.log_joint(pairs, candidates).view(-1, len(some)))
        probability = (beta * torch.cat(log_joint, 1)).softmax(-1)
        draw = torch.multinomial(probability, 1, generator=generator)
        z[:, variable] = draw.squeeze(-1)
    return z


def evaluations_per_sweep(model: LatentVariableModel) -> int:
    """Returns how often a sweep evaluates the log joint for each row: sum_v K_v.

    Raises:
        UserError: See `gibbs_sweep`.
    """
    return sum(_sizes(model))


def _sizes(model: LatentVariableModel) -> Sequence[int]:
    """The numbers of values of a model's latents."""
    env = model.env
    if not isinstance(env, FactoredCategorical):
        raise UserError(
            f"A Gibbs sweep needs the latents of a FactoredCategorical; {type(model).__name__} "
            f"builds its own in {type(env).__name__}. Use back-and-forth Metropolis-Hastings."
        )
    return env.sizes
