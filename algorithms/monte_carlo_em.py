"""EM on mini-batches with Markov chains in place of the posterior."""

from typing import Any

import torch
from torch import Tensor

from algorithms.markov_kernel import MarkovKernel
from algorithms.metropolis import UniformPolicy
from algorithms.model_learner import ModelLearner
from algorithms.rollout import rollout
from gfn_envs.errors import UserError
from lvms.model import LatentVariableModel


class MonteCarloEM(ModelLearner):
    """Raises the mean of log p(x, z) over chains that each observation keeps between its visits.

    The Monte Carlo EM baseline of Hu et al. 2023, section 5 (Wei, Tanner: "A Monte Carlo
    implementation of the EM algorithm", JASA 1990). The chains of an observation begin at its first
    visit, from actions at random, and move on at every one, however the parameters have changed in
    between.

    Attributes:
        kernel: How chains move at a visit.
        chains: How many each observation has.
        z: The chains' states, int64 `[N, chains, S]`; the initial state before the first visit.
    """

    def __init__(
        self, model: LatentVariableModel, kernel: MarkovKernel, *, chains: int = 1, **settings: Any
    ) -> None:
        """Takes the parts.

        Args:
            model: The model.
            kernel: How chains move.
            chains: How many each observation has.
            **settings: See `ModelLearner`.

        Raises:
            UserError: If there are to be no chains.
        """
        super().__init__(model, **settings)
        if chains < 1:
            raise UserError(f"Each observation needs at least 1 chain; got {chains}.")
        self.kernel = kernel
        self.chains = chains
        self.z = model.env.initial_state.repeat(0, chains, 1)

    def update(self, x: Tensor) -> dict[str, float]:
        """Makes a round of updates; the same x `[N, ...]` must come every time."""
        if len(self.z) != len(x):
            self.z = self.model.env.initial_state.repeat(len(x), self.chains, 1)
        return super().update(x)

    def loss(self, x: Tensor, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Moves chains and computes the mean of their -log p(x, z), nats."""
        # An observation that was drawn twice still has but the same chains, and they move once.
        ids, place, times = ids.unique(return_inverse=True, return_counts=True)
        once = torch.empty_like(x[: len(ids)])
        once[place] = x
        pairs = once.repeat_interleave(self.chains, 0)
        moved = self.kernel.move(self.model, pairs, self._chains(pairs, ids), self.generator)
        self._evaluations += moved.evaluations
        self.z[ids] = moved.z.view(len(ids), self.chains, -1)
        weight = (times / (len(x) * self.chains)).repeat_interleave(self.chains)
        log_joint = self.model.log_joint(pairs, moved.z)
        return self.m_step_loss(log_joint, moved.z, weight), {"acceptance": moved.acceptance}

    def _chains(self, x: Tensor, ids: Tensor) -> Tensor:
        """Finds the chains of observations, begun if they are new, int64 `[B chains, S]`."""
        z = self.z[ids].flatten(0, 1)
        env, context = self.model.env, self.model.context(x)
        new = ~env.is_complete(z, context)
        if new.any():
            z[new] = rollout(
                env, UniformPolicy(env), x[new], context=context[new], generator=self.generator
            ).z
        return z

    def state_dict(self) -> dict[str, Any]:
        """Returns the chains too; see `Learner.state_dict`."""
        return {**super().state_dict(), "z": self.z.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.z = state["z"].clone()
