"""Parses under a grammar with energies of shapes, from weighted trees of its grammar."""

import torch
from torch import Tensor

from gfn_envs.binary_tree import tree_nodes
from lvms.grammars.annealed_trees import annealed_trees
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.mbr_tree import mbr_tree
from lvms.model import WeightedSamples


def weighted_trees(
    model: EnergyGrammar,
    x: Tensor,
    samples: int,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> WeightedSamples:
    """Draws trees that stand for p(z | x); see `annealed_trees` for the arguments."""
    z, log_weight = annealed_trees(model.grammar, x, model.shape_score, samples, steps, generator)
    return WeightedSamples(z, log_weight.log_softmax(-1))


def span_shares(trees: WeightedSamples, labels: int) -> Tensor:
    """Weighs each labelled span by the trees that have it, float `[B, N + 1, N + 1, K]`.

    Args:
        trees: z `[B, M, 3 (N - 1)]`.
        labels: K.
    """
    batch, samples, _ = trees.z.shape
    nodes = tree_nodes(trees.z.flatten(0, 1))
    tree, gap = (nodes.label >= 0).nonzero(as_tuple=True)
    label, left, right = (part[tree, gap] for part in nodes)
    side = nodes.label.shape[1] + 2
    shares = trees.log_w.new_zeros(batch, side, side, labels)
    weight = trees.log_w.exp().flatten()[tree]
    return shares.index_put_((tree // samples, left, right, label), weight, accumulate=True)


def mbr_of(trees: WeightedSamples, x: Tensor, labels: int) -> Tensor:
    """Finds the tree `[B, 3 (N - 1)]` of the most right unlabelled spans in expectation.

    Args:
        trees: What stands for p(z | x).
        x: int64 `[B, N]`.
        labels: K.
    """
    return mbr_tree(span_shares(trees, labels), x)


@torch.no_grad()
def best_of(model: EnergyGrammar, trees: WeightedSamples, x: Tensor) -> Tensor:
    """Finds the one among the trees of each sentence with the highest log p(x, z).

    Args:
        model: The grammar with energies.
        trees: z `[B, M, 3 (N - 1)]`; their weights do not matter.
        x: int64 `[B, N]`.

    Returns:
        int64 `[B, 3 (N - 1)]`.
    """
    pairs = x.repeat_interleave(trees.z.shape[1], 0)
    log_joint = model.log_joint(pairs, trees.z.flatten(0, 1)).view(trees.z.shape[:2])
    return trees.z[torch.arange(len(x), device=x.device), log_joint.argmax(1)]
