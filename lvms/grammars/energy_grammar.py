"""A grammar whose trees are judged by their shape as well."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gfn_envs.errors import UserError, unknown_name
from lvms.grammars import inside, parent_inside
from lvms.grammars.grammar import Grammar
from lvms.grammars.rules import same_words
from lvms.grammars.shape_chains import ShapeChains
from lvms.grammars.tree_energy import TreeEnergy
from lvms.grammars.tree_gibbs import TreeGibbs
from lvms.grammars.tree_moves import num_nodes
from lvms.grammars.tree_score import tree_log_prob
from lvms.model import LatentVariableModel

CANDIDATES = 16
"""A dream is drawn among about so many trees of the grammar for each."""

CONTRASTS = ("shapes", "model")
"""What posterior samples are contrasted with; see `EnergyGrammar`."""


class EnergyGrammar(LatentVariableModel):
    """p(x, z | n) proportional to p_grammar(x, z) exp(-E(shape of z) / T) for sentences of n words.

    A prior over shapes that no rule of the grammar could express, so that no polynomial algorithm
    infers z: the case for a GFlowNet (Hu et al. 2023, section 5). `log_joint` leaves the normaliser
    of each n out, and energies of different n are not to be compared.

    Energies are not learned from `log_joint`, which gives them no gradient, but by persistent
    contrastive divergence (`contrastive_loss`): shapes of posterior samples against those of chains
    that follow one of two distributions:

    * `shapes`: exp(-E), by rotations. So exp(-E) becomes the distribution of the samples' shapes by
      itself, as in the paper, and T says how far the grammar heeds it: 1 wholly, 1000 hardly. What
      the grammar's own rules say of shapes is then counted twice: at T = 1 each step strengthens
      the last one.
    * `model`: p(z | n), the grammar's rules beside exp(-E / T) with the words summed out, by Gibbs
      moves. E becomes what the rules do not say. The rules' share in the normaliser is learned by
      the same chains, so that an M-step follows the gradient of log p(x), lengths distributed as
      the grammar's.

    T may change as the model learns: it is then a function of `version`, the number of updates so
    far, which `state_dict` keeps.

    Attributes:
        grammar: Knows everything but the shapes.
        energy: E.
        chains: The trees of the contrast.
        contrast: `shapes` or `model`.
    """

    def __init__(
        self,
        grammar: Grammar,
        temperature: float | Callable[[int], float] = 1.0,
        size: int = 32,
        chains: int = 16,
        moves: int = 10,
        contrast: str = "shapes",
        generator: torch.Generator | None = None,
    ) -> None:
        """Puts energies beside a grammar; they are zero at first.

        Args:
            grammar: The grammar; it is learned too.
            temperature: T, positive; or a function from the number of the model's updates to T,
                such as `Exponential(1.0, 1000.0, 10_000).at`.
            size: The length of the energy's vectors.
            chains: How many trees of each length are kept for contrast.
            moves: How many moves each makes for one estimate.
            contrast: One of `CONTRASTS`; see above.
            generator: Source of randomness.

        Raises:
            UserError: If T is not positive, another number is below 1, or the contrast unknown.
        """
        super().__init__()
        self._temperature = temperature
        if not 0 < self.temperature < math.inf or min(size, chains, moves) < 1:
            raise UserError(
                "An EnergyGrammar needs a positive temperature and at least 1 for size, chains "
                f"and moves; got {self.temperature}, {size}, {chains} and {moves}."
            )
        if contrast not in CONTRASTS:
            raise unknown_name("contrast", contrast, CONTRASTS)
        self.env = grammar.env
        self.grammar = grammar
        self.energy = TreeEnergy(size)
        self.chains = ShapeChains(grammar.max_words, chains, moves, generator)
        self.contrast = contrast
        self.energy.start(generator)

    @property
    def temperature(self) -> float:
        """T at present."""
        if callable(self._temperature):
            return self._temperature(self.version)
        return self._temperature

    def mark_updated(self) -> None:
        """Says that the parameters changed, to the grammar too: it keeps its rules until then."""
        super().mark_updated()
        self.grammar.mark_updated()

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p_grammar(x, z) - E(z) / T, not normalised; see `LatentVariableModel`.

        Args:
            x: int64 `[B, N]`.
            z: int64 `[B, 3 (N - 1)]`.

        Returns:
            float `[B]`, nats, differentiable in the grammar's parameters alone.
        """
        return self.grammar.log_joint(x, z) + self.shape_score(z)

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Scores the rules of a partial tree, and the shape once it is complete.

        Args:
            x: int64 `[B, N]`.
            state: int64 `[B, 3 (N - 1)]`.

        Returns:
            float `[B]`, nats, differentiable in the grammar's parameters alone.
        """
        log_prob = self.grammar.log_partial(x, state)
        complete = self.env.is_complete(state, self.context(x)).nonzero().squeeze(1)
        return log_prob.index_add(0, complete, self.shape_score(state[complete]))

    @torch.no_grad()
    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, N]` and z `[B, 3 (N - 1)]` approximately; lengths are as the grammar's.

        Sampling importance resampling: of `CANDIDATES` B trees of the grammar, each dream is one
        among those of as many words, by its weight exp(-E / T). It is exact in the limit of many
        candidates, or of a high temperature; a length that is rare has few.
        """
        x, z = self.grammar.sample(CANDIDATES * batch_size, generator)
        length = self.context(x).squeeze(1)
        # The largest of log-weights with Gumbel noise is a draw by weight.
        uniform = torch.rand(batch_size, len(x), generator=generator, device=x.device)
        score = self.shape_score(z) - (-uniform.log()).log()
        score = score.masked_fill(length[:batch_size, None] != length, -math.inf)
        chosen = score.argmax(1)
        return x[chosen], z[chosen]

    @torch.no_grad()
    def shape_score(self, z: Tensor) -> Tensor:
        """Computes -E(z) / T of trees `[B, 3 (N - 1)]`, float `[B]`, nats, without gradient."""
        return -self.energy(z) / self.temperature

    def context(self, x: Tensor) -> Tensor:
        """Counts the words, int64 `[B, 1]`."""
        return self.grammar.context(x)

    def contrastive_loss(
        self, z: Tensor, weight: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Moves the chains and estimates the gradient of energies; see `ContrastivePrior`."""
        if self.contrast == "shapes":
            return self.chains.contrast(self.energy, z, weight, generator)
        contrast = self.chains.contrast(self.energy, z, weight, generator, self._walk)
        return contrast / self.temperature + self._rules_of_chains(z, weight)

    def _rules_of_chains(self, z: Tensor, weight: Tensor) -> Tensor:
        """Gives log(Z_n / p_grammar(n)) the gradient that it has in the rules.

        Z_n, the sum of p_grammar(x, z) exp(-E(z) / T) over all x of n words and z, is what
        `log_joint` leaves out; its gradient is that of the chains' mean log p_grammar(z).

        Args:
            z: Trees of the lengths n, int64 `[B, 3 (N - 1)]`.
            weight: Of each of them, float `[B]`, in all 1.

        Returns:
            A scalar.
        """
        present, mass = self.chains.lengths(z, weight)
        chains = self.chains.z[present]
        rules = self.grammar.rules().without_words()
        x = same_words(present + 2, self.grammar.max_words)
        log_prob = tree_log_prob(
            rules, x.repeat_interleave(chains.shape[1], 0), chains.flatten(0, 1)
        ).view(chains.shape[:2])
        exact = parent_inside if rules.conditioned_on_parent else inside
        return mass @ (log_prob.mean(1) - exact.log_marginal(rules, x))

    def _walk(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """Moves trees under p(z | n), int64 `[M, 3 (N - 1)]`."""
        x = same_words(num_nodes(z) + 1, self.grammar.max_words)
        gibbs = TreeGibbs(self.grammar.rules().without_words(), x)
        for _ in range(self.chains.moves):
            z = gibbs.move(z, generator, self.shape_score)
        return z

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Starts the grammar anew, makes energies zero and chains random; see `StartAtData`."""
        self.grammar.start_at_data(x, generator)
        self.energy.start(generator)
        self.chains.start(generator)
        self.mark_updated()
