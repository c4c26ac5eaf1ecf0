"""Markov chains of a grammar's trees by Gibbs moves."""

import torch
from torch import Tensor

from algorithms.markov_kernel import MarkovKernel, Moved
from gfn_envs.errors import UserError
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.grammar import Grammar
from lvms.grammars.tree_gibbs import TreeGibbs
from lvms.model import LatentVariableModel


class GrammarGibbs(MarkovKernel):
    """Turns and relabels edges as their rules weigh them; see `TreeGibbs`.

    It costs less than Metropolis moves of the same trees, which compute all of log p(x, z), and
    gets further. What it calls acceptance is the share of moves that change the tree.
    """

    @torch.no_grad()
    def move(
        self,
        model: LatentVariableModel,
        x: Tensor,
        z: Tensor,
        generator: torch.Generator | None = None,
    ) -> Moved:
        """Moves every chain; see `MarkovKernel.move`.

        Each of the 2 K^2 trees that a move weighs counts as an evaluation.

        Raises:
            UserError: If the model is not a grammar.
        """
        if isinstance(model, EnergyGrammar):
            grammar, shape_score = model.grammar, model.shape_score
        elif isinstance(model, Grammar):
            grammar, shape_score = model, None
        else:
            raise UserError(
                f"Gibbs moves on trees need a Grammar; got a {type(model).__name__}. "
                "Use SymmetricMetropolis."
            )
        gibbs = TreeGibbs(grammar.rules(), x)
        changed = torch.zeros((), device=z.device)
        for _ in range(self.moves):
            before, z = z, gibbs.move(z, generator, shape_score)
            changed += (before != z).any(-1).float().mean()
        evaluations = len(z) * self.moves * 2 * grammar.nonterminals**2
        return Moved(z, changed / self.moves, evaluations)
