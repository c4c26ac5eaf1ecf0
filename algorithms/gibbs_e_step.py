"""An E-step of Gibbs sampling."""

import torch
from torch import Tensor

from algorithms.e_step import ChainEStep
from algorithms.schedule import Schedule
from lvms.gibbs import evaluations_per_sweep, gibbs_sweep
from lvms.model import LatentVariableModel


class GibbsEStep(ChainEStep):
    """Chains that redraw one variable after another given the others; see `gibbs_sweep`.

    Monte Carlo EM with the sampler that a `FactoredCategorical` latent asks for: no proposal is
    wasted, at the price of one likelihood evaluation for every value of every variable.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        sweeps: int = 1,
        chains: int = 1,
        generator: torch.Generator | None = None,
        beta: Schedule | float = 1.0,
    ) -> None:
        """Takes the model; see `ChainEStep`.

        Args:
            model: A model whose latents are those of a `FactoredCategorical`.
            sweeps: How often each variable is redrawn in an E-step.
            chains: How many chains each observation has.
            generator: Source of randomness.
            beta: The posterior's power that is sampled.

        Raises:
            UserError: If the model's latents are others, or beta is not positive.
        """
        super().__init__(model, chains, generator, beta)
        self.sweeps = sweeps
        self._evaluations_per_sweep = evaluations_per_sweep(model)

    def move(
        self, x: Tensor, rows: Tensor, z: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Makes some sweeps of every chain; see `ChainEStep.move`."""
        row_x = x[rows]
        for _ in range(self.sweeps):
            z = gibbs_sweep(self.model, row_x, z, self.generator, beta)
        self.likelihood_evaluations += self.sweeps * self._evaluations_per_sweep * len(z)
        return z, {}
