"""Trees of a grammar's posterior, annealed until their shapes count in full."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gfn_envs.errors import UserError
from lvms.grammars.grammar import Grammar
from lvms.grammars.tree_gibbs import TreeGibbs

SENTENCES_AT_A_TIME = 64
"""So many sentences' charts fit into memory."""

TREES_AT_A_TIME = 4096
"""About so many trees are drawn at a time, for the same reason."""


@torch.no_grad()
def annealed_trees(
    grammar: Grammar,
    x: Tensor,
    shape_score: Callable[[Tensor], Tensor],
    samples: int,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws weighted trees of p(z | x) exp(s(z)) by annealed importance sampling.

    Neal: "Annealed importance sampling", Statistics and Computing 2001. A chain begins with an
    exact tree of the grammar's posterior. Step j of J raises the power of exp(s) from (j - 1) / J
    to j / J: the weight grows by what that makes of the present tree, and a Gibbs move follows that
    leaves the new distribution invariant. The mean weight estimates E_{z ~ p(z | x)} exp(s(z))
    without bias; one step is importance sampling from the grammar's posterior.

    Args:
        grammar: Gives p(z | x).
        x: int64 `[B, N]`.
        shape_score: s, what the shapes of trees `[M, 3 (N - 1)]` are worth, float `[M]`, nats.
        samples: M, the chains of each sentence.
        steps: J.
        generator: Source of randomness.

    Returns:
        z, int64 `[B, M, 3 (N - 1)]`, and their log-weights, float `[B, M]`, nats.

    Raises:
        UserError: If there are to be no samples or steps, or the grammar does not derive a
            sentence.
    """
    if min(samples, steps) < 1:
        raise UserError(
            f"Annealing trees needs at least 1 sample and 1 step; got {samples} and {steps}."
        )
    parts = []
    for some in x.split(min(SENTENCES_AT_A_TIME, max(1, TREES_AT_A_TIME // samples))):
        z = grammar.sample_posterior(some, samples, generator).flatten(0, 1)
        log_weight = shape_score(z) / steps
        if steps > 1:
            gibbs = TreeGibbs(grammar.rules(), some.repeat_interleave(samples, 0))
        for step in range(1, steps):
            z = gibbs.move(z, generator, partial(_tempered, shape_score, step / steps))
            log_weight = log_weight + shape_score(z) / steps
        parts.append((z.unflatten(0, (-1, samples)), log_weight.unflatten(0, (-1, samples))))
    trees, log_weights = zip(*parts, strict=True)
    return torch.cat(trees), torch.cat(log_weights)


def _tempered(shape_score: Callable[[Tensor], Tensor], power: float, z: Tensor) -> Tensor:
    """Computes the score of shapes to a power."""
    return power * shape_score(z)
