"""Steps of Markov chains that leave the posterior invariant."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.metropolis import metropolis_accept
from gfn_envs.errors import UserError
from lvms.model import LatentVariableModel

SymmetricProposal = Callable[[Tensor, torch.Generator | None], Tensor]
"""Draws z' `[N, S]` given z `[N, S]`, as probable as z given z'; see `tree_moves.TreeMoves`."""


class Moved(NamedTuple):
    """What became of chains.

    Attributes:
        z: int64 `[N, S]`.
        acceptance: The share of moves that were accepted, a scalar.
        evaluations: How many times log p(x, z) was evaluated.
    """

    z: Tensor
    acceptance: Tensor
    evaluations: int


class MarkovKernel(ABC):
    """Moves chains in a way that leaves p(z | x) invariant.

    Attributes:
        moves: How many moves each chain makes.
    """

    def __init__(self, moves: int) -> None:
        """Takes the number of moves.

        Raises:
            UserError: If there are to be none.
        """
        if moves < 1:
            raise UserError(f"Markov chains need at least 1 move; got {moves}.")
        self.moves = moves

    @abstractmethod
    def move(
        self,
        model: LatentVariableModel,
        x: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> Moved:
        """Moves every chain, under the current parameters.

        Args:
            model: The model.
            x: The observation that each chain is for, `[N, ...]`.
            z: Complete states, int64 `[N, S]`.
            generator: Source of randomness.
        """


class SymmetricMetropolis(MarkovKernel):
    """Moves whose proposals are as probable as their reverse (Metropolis et al. 1953).

    Attributes:
        propose: Draws the proposals.
    """

    def __init__(self, propose: SymmetricProposal, moves: int) -> None:
        """Takes the proposal.

        Raises:
            UserError: If there are to be no moves.
        """
        super().__init__(moves)
        self.propose = propose

    @torch.no_grad()
    def move(
        self,
        model: LatentVariableModel,
        x: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> Moved:
        """Moves every chain; see `MarkovKernel.move`."""
        log_joint = model.log_joint(x, z)
        symmetric = torch.zeros_like(log_joint)
        accepted = torch.zeros((), device=z.device)
        for _ in range(self.moves):
            proposal = self.propose(z, generator)
            proposed = model.log_joint(x, proposal)
            z, log_joint, accept = metropolis_accept(
                z, log_joint, proposal, proposed, symmetric, generator
            )
            accepted += accept.float().mean()
        return Moved(z, accepted / self.moves, len(z) * (self.moves + 1))
