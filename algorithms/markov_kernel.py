"""Steps of Markov chains that leave the posterior invariant."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.metropolis import metropolis_accept, propose_back_and_forth
from algorithms.policy import Policy
from gfn_envs.errors import UserError
from lvms.model import LatentVariableModel

SymmetricProposal = Callable[[Tensor, torch.Generator | None], Tensor]
"""Draws z' `[N, S]` given z `[N, S]`, as probable as z given z'; see `tree_moves.TreeMoves`."""

Proposal = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Draws z' `[N, S]` given z `[N, S]`; with it log q(z | z') - log q(z' | z), float `[N]`, nats."""


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


class MetropolisHastings(MarkovKernel):
    """Moves that are proposed and then accepted or not (Hastings 1970)."""

    @abstractmethod
    def proposals(
        self, model: LatentVariableModel, x: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        """Prepares to propose moves.

        Args:
            model: The model.
            x: The observation that each chain is for, `[N, ...]`.
            generator: Source of randomness.

        Returns:
            What proposes the chains' next move.
        """

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
        propose = self.proposals(model, x, generator)
        accepted = torch.zeros((), device=z.device)
        for _ in range(self.moves):
            proposal, log_ratio = propose(z)
            proposed = model.log_joint(x, proposal)
            z, log_joint, accept = metropolis_accept(
                z, log_joint, proposal, proposed, log_ratio, generator
            )
            accepted += accept.float().mean()
        return Moved(z, accepted / self.moves, len(z) * (self.moves + 1))


class SymmetricMetropolis(MetropolisHastings):
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

    def proposals(
        self, model: LatentVariableModel, x: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        """Proposes by the symmetric proposal; see `MetropolisHastings.proposals`."""
        symmetric = torch.zeros(len(x), device=x.device)
        return lambda z: (self.propose(z, generator), symmetric)


class BackAndForthMoves(MetropolisHastings):
    """Undoes some steps of each structure and rebuilds them with a policy, as it is by then.

    Hu et al. 2023, section 4.3, improve the M-step's structures so; see `propose_back_and_forth`.
    The exploration `BackAndForth` keeps its chains and trains the policy on them.

    Attributes:
        policy: Rebuilds the structures.
    """

    def __init__(self, policy: Policy, moves: int) -> None:
        """Takes the policy.

        Raises:
            UserError: If there are to be no moves.
        """
        super().__init__(moves)
        self.policy = policy

    def proposals(
        self, model: LatentVariableModel, x: Tensor, generator: torch.Generator | None
    ) -> Proposal:
        """Encodes x once for all moves; see `MetropolisHastings.proposals`."""
        env, policy, context = model.env, self.policy, model.context(x)
        memory, rows = policy.encode(x), torch.arange(len(x), device=x.device)
        return lambda z: propose_back_and_forth(env, policy, memory, rows, context, z, generator)
