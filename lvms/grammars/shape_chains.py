"""Persistent contrastive divergence on the shapes of trees."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gfn_envs.binary_tree import TreeNodes, tree_state
from lvms.grammars.tree_energy import TreeEnergy
from lvms.grammars.tree_moves import num_nodes, rotate

Walk = Callable[[Tensor, torch.Generator | None], Tensor]
"""Moves trees `[M, 3 (N - 1)]` in a way that leaves a distribution invariant."""


class ShapeChains(nn.Module):
    """Markov chains of trees, some for each number of words, that follow E as it is learned.

    Tieleman: "Training restricted Boltzmann machines using approximations to the likelihood
    gradient", ICML 2008. A move keeps the number of words. The chains are part of the module's
    state, so that learning can be resumed.

    Attributes:
        z: Trees of 2, 3, .. N words, a buffer int64 `[N - 1, C, 3 (N - 1)]`.
        moves: How many moves a chain makes before it is compared with data.
    """

    z: Tensor

    def __init__(
        self,
        max_words: int,
        chains: int = 16,
        moves: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        """Starts the chains.

        Args:
            max_words: N.
            chains: C, how many there are for each number of words.
            moves: How many moves a chain makes before it is compared with data.
            generator: Source of randomness.
        """
        super().__init__()
        self.moves = moves
        self.register_buffer("z", _left_branching(max_words)[:, None].repeat(1, chains, 1))
        self.start(generator)

    def start(self, generator: torch.Generator | None = None) -> None:
        """Makes the shapes random, by moves at equal energies."""
        z, moves = self.z.flatten(0, 1), 8 * len(self.z)
        z = rotations_under(lambda z: torch.zeros(len(z), device=z.device), moves)(z, generator)
        self.z.copy_(z.view_as(self.z))

    def contrast(
        self,
        energy: TreeEnergy,
        z: Tensor,
        weight: Tensor,
        generator: torch.Generator | None = None,
        walk: Walk | None = None,
    ) -> Tensor:
        """Moves the chains and computes energies of data against theirs.

        Args:
            energy: E.
            z: Trees, int64 `[B, 3 (N - 1)]`.
            weight: Of each of them, float `[B]`, in all 1.
            generator: Source of randomness.
            walk: Moves the chains under a distribution that has a factor exp(-E); by default it
                has no other, and a chain makes `moves` rotations.

        Returns:
            sum_b weight[b] (E(z[b]) - mean of E over the chains of as many words): a scalar, whose
            gradient estimates that of the mean of -log p(z | n).
        """
        present, mass = self.lengths(z, weight)
        walk = walk or rotations_under(energy, self.moves)
        with torch.no_grad():
            chains = walk(self.z[present].flatten(0, 1), generator)
        self.z[present] = chains.view(len(present), *self.z.shape[1:])
        share = (mass / self.z.shape[1]).repeat_interleave(self.z.shape[1])
        signed = torch.cat([weight, -share])
        return signed @ energy(torch.cat([z, chains]))

    def lengths(self, z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weighs the numbers of words that trees `[B, 3 (N - 1)]` of `weight` `[B]` have.

        Returns:
            Their places in the chains, int64 `[L]`, 0 for two words; and weights, float `[L]`.
        """
        mass = weight.new_zeros(len(self.z)).index_add(0, num_nodes(z) - 1, weight)
        present = mass.nonzero().squeeze(1)
        return present, mass[present]


def rotations_under(energy: Callable[[Tensor], Tensor], moves: int) -> Walk:
    """Makes a walk of rotations that leaves exp(-E) invariant.

    They are accepted with probability 1 / (1 + exp(E' - E)) (Barker 1965). By Metropolis' rule the
    two shapes of three words would take turns for ever where their energies are equal.

    Args:
        energy: E, float `[M]` of trees `[M, 3 (N - 1)]`.
        moves: How many rotations each tree is offered.
    """

    def walk(z: Tensor, generator: torch.Generator | None) -> Tensor:
        current = energy(z)
        for _ in range(moves):
            proposal = rotate(z, generator)
            proposed = energy(proposal)
            uniform = torch.rand(len(z), generator=generator, device=z.device)
            accepted = uniform < (current - proposed).sigmoid()
            z = torch.where(accepted[:, None], proposal, z)
            current = torch.where(accepted, proposed, current)
        return z

    return walk


def _left_branching(max_words: int) -> Tensor:
    """Makes a tree of each number of words from 2 on, int64 `[N - 1, 3 (N - 1)]`."""
    gap = torch.arange(max_words - 1).expand(max_words - 1, -1)
    is_node = gap <= torch.arange(max_words - 1)[:, None]
    nodes = (torch.zeros_like(gap), torch.zeros_like(gap), gap + 2)
    return tree_state(TreeNodes(*(numbers.where(is_node, -1) for numbers in nodes)))
