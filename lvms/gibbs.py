"""Gibbs sampling of categorical latents: a control that learns nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import FactoredCategorical
from lvms.model import LatentVariableModel


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
        candidates = z.repeat_interleave(size, 0)
        candidates[:, variable] = torch.arange(size, device=z.device).repeat(len(z))
        log_joint = model.log_joint(x.repeat_interleave(size, 0), candidates).view(-1, size)
        draw = torch.multinomial((beta * log_joint).softmax(-1), 1, generator=generator)
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
