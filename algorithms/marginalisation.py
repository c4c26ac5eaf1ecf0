"""Learning without an E-step: gradient ascent on the exact likelihood."""

from typing import Any

import torch
from torch import Tensor

from algorithms.e_step import require_table
from algorithms.learner import Learner
from lvms.enumeration import exact_posterior
from lvms.model import LatentVariableModel


class Marginalisation(Learner):
    """Raises the mean of log p(x) itself, z summed out.

    By Fisher's identity the gradient is E_{p(z | x)} of that of log p(x, z): a gradient M-step of
    one step after an exact E-step. So it is where EM arrives without doing either to its end.
    """

    def __init__(
        self, model: LatentVariableModel, optimizer: torch.optim.Optimizer, x: Tensor,
        steps: int = 20,
    ) -> None:  # fmt: skip
        """Takes the model and the optimiser of its parameters.

        Args:
            model: One whose structures are few enough for a table, as those of exact EM are.
            optimizer: It minimises the negative mean of log p(x).
            x: Observations, `[B, ...]`, for the number of their structures.
            steps: How many gradient steps an update makes.

        Raises:
            UserError: If there are too many structures.
        """
        self.model = model
        self.optimizer = optimizer
        self.steps = steps
        self.exact = exact_posterior(model)
        self.num_structures = model.env.num_structures(model.context(x)[0])
        require_table(self.num_structures)
        self._evaluations = 0

    @property
    def likelihood_evaluations(self) -> int:
        """Counts every structure of every observation in every step, however the sum is made."""
        return self._evaluations

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes the gradient steps; see `Learner.update`."""
        total = torch.zeros((), device=x.device)
        for _ in range(self.steps):
            loss = -self.exact.log_marginal(x).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            self._evaluations += len(x) * self.num_structures
        self.model.mark_updated()
        return {"loss": total.item() / self.steps}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "likelihood_evaluations": self._evaluations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._evaluations = state["likelihood_evaluations"]
