"""E-steps without a GFlowNet: exact, mean-field and Metropolis."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from algorithms.metropolis import UniformPolicy, metropolis_accept, propose_back_and_forth
from algorithms.rollout import rollout
from algorithms.schedule import Schedule, as_schedule, require_positive
from gfn_envs.errors import UserError
from lvms.enumeration import EnumeratedPosterior
from lvms.model import LatentVariableModel, MeanField, WeightedSamples
from lvms.reward import LVMReward

MAX_STRUCTURES = 4096
"""Posteriors are handed to the M-step as whole tables up to this size."""


class EStep(ABC):
    """Approximates p(z | x) under the model's current parameters.

    Attributes:
        likelihood_evaluations: How many times log p(x, z) has been evaluated so far.
    """

    likelihood_evaluations: int = 0

    def fit(self, x: Tensor, m_steps: int) -> dict[str, float]:
        """Adapts to the current parameters.

        Args:
            x: Observations, `[B, ...]`.
            m_steps: How many M-steps have been made so far.

        Returns:
            Metrics for the log.
        """
        return {}

    @abstractmethod
    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Represents the posterior of each observation.

        Args:
            x: Observations, `[B, ...]`.
            k: How many structures to draw for each, where they are drawn.

        Returns:
            Structures and weights.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs; see `Learner.state_dict`."""
        return {"likelihood_evaluations": self.likelihood_evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self.likelihood_evaluations = state["likelihood_evaluations"]


class ExactEStep(EStep):
    """The exact posterior as a table over every structure, or a power of it.

    With p(z | x)^beta, beta rising to 1, it is deterministic annealing, which leaves EM in a poor
    local optimum less often. Ueda, Nakano: "Deterministic annealing EM algorithm", Neural Networks
    11, 1998.
    """

    def __init__(self, model: LatentVariableModel, beta: Schedule | float = 1.0) -> None:
        """Takes the model.

        Args:
            model: Its structures can be enumerated.
            beta: The posterior's power, positive; a schedule's steps are M-steps.

        Raises:
            UserError: If beta is not positive at the start or in the end.
        """
        self.table = EnumeratedPosterior(model)
        self.beta = as_schedule(beta)
        require_positive("beta", self.beta)
        self._current_beta = self.beta.at(0)

    def fit(self, x: Tensor, m_steps: int) -> dict[str, float]:
        """Moves the power; see `EStep.fit`."""
        self._current_beta = self.beta.at(m_steps)
        return {}

    @torch.no_grad()
    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Returns every structure with its posterior weight; see `EStep.posterior`.

        Raises:
            UserError: If there are more than `MAX_STRUCTURES`.
        """
        z = self.table.structures(x)
        require_table(len(z))
        self.likelihood_evaluations += len(x) * len(z)
        log_posterior = self.table.log_posterior_table(x)
        if self._current_beta != 1.0:
            log_posterior = (self._current_beta * log_posterior).log_softmax(-1)
        return WeightedSamples(z.expand(len(x), -1, -1), log_posterior)

    def state_dict(self) -> dict[str, Any]:
        """Returns the power too; see `EStep.state_dict`."""
        return {**super().state_dict(), "beta": self._current_beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self._current_beta = state["beta"]


class MeanFieldEStep(EStep):
    """The best fully factorised posterior that coordinate ascent finds from uniform factors."""

    def __init__(self, model: LatentVariableModel, sweeps: int = 10) -> None:
        """Takes the model.

        Args:
            model: One that implements `MeanField`.
            sweeps: How often each factor is updated.

        Raises:
            UserError: If the model does not.
        """
        if not isinstance(model, MeanField):
            raise UserError(f"{type(model).__name__} has no mean-field posterior.")
        self.model, self.mean_field = model, model.mean_field
        self.sweeps = sweeps

    @torch.no_grad()
    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Returns every structure with the product of its factors; see `EStep.posterior`.

        Raises:
            UserError: If there are more than `MAX_STRUCTURES`.
        """
        factors = self.mean_field(x, self.sweeps)
        self.likelihood_evaluations += self.sweeps * sum(f.numel() for f in factors)
        z = self.model.env.enumerate(self.model.context(x)[0])
        require_table(len(z))
        log_w = factors[0]
        for factor in factors[1:]:
            log_w = (log_w[:, :, None] + factor[:, None]).flatten(1)
        return WeightedSamples(z.expand(len(x), -1, -1), log_w)


class ChainEStep(EStep):
    """Markov chains that leave the posterior invariant, kept from E-step to E-step.

    At first they may sample a power of it, as `ExactEStep` may: simulated annealing (Kirkpatrick,
    Gelatt, Vecchi: "Optimization by simulated annealing", Science 1983) inside EM.

    Attributes:
        z: The chains' states, int64 `[B chains, S]`, those of one observation side by side; None
            before the first `fit`.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        chains: int = 1,
        generator: torch.Generator | None = None,
        beta: Schedule | float = 1.0,
    ) -> None:
        """Takes the model; chains start at the first `fit`, from actions at random.

        Args:
            model: The model.
            chains: How many chains each observation has.
            generator: Source of randomness.
            beta: The posterior's power that is sampled, positive; a schedule's steps are M-steps.

        Raises:
            UserError: If beta is not positive at the start or in the end.
        """
        self.model = model
        self.chains = chains
        self.generator = generator
        self.beta = as_schedule(beta)
        require_positive("beta", self.beta)
        self.z: Tensor | None = None

    @torch.no_grad()
    def fit(self, x: Tensor, m_steps: int) -> dict[str, float]:
        """Moves every chain; see `EStep.fit`. The same x must come every time."""
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self.chains)
        if self.z is None or len(self.z) != len(rows):
            self.z = rollout(
                self.model.env, UniformPolicy(self.model.env), x, rows=rows,
                context=self.model.context(x), generator=self.generator,
            ).z  # fmt: skip
        self.z, metrics = self.move(x, rows, self.z, self.beta.at(m_steps))
        return metrics

    @abstractmethod
    def move(
        self, x: Tensor, rows: Tensor, z: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Moves every chain under the current parameters.

        Args:
            x: Observations, `[B, ...]`.
            rows: int64 `[N]`, which observation each chain is for.
            z: Complete states, int64 `[N, S]`.
            beta: The posterior's power.

        Returns:
            The next states, int64 `[N, S]`, and metrics for the log.
        """

    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Returns the chains' states for the x that was fitted; see `EStep.posterior`.

        Raises:
            ValueError: If `fit` has not been called on as many observations.
        """
        if self.z is None or len(self.z) != len(x) * self.chains:
            raise ValueError("Markov chains belong to the observations they were fitted on.")
        return WeightedSamples.equal(self.z.view(len(x), self.chains, -1))

    def state_dict(self) -> dict[str, Any]:
        """Returns the chains too; see `EStep.state_dict`."""
        return {**super().state_dict(), "z": self.z}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.z = state["z"]


class MetropolisEStep(ChainEStep):
    """Chains of back-and-forth moves with uniform policies.

    With it EM is the Monte Carlo EM baseline of Hu et al. 2023, section 5.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        moves: int = 20,
        chains: int = 1,
        generator: torch.Generator | None = None,
        beta: Schedule | float = 1.0,
    ) -> None:
        """Takes the model; see `ChainEStep`.

        Args:
            model: The model.
            moves: How many moves each chain makes in an E-step.
            chains: How many chains each observation has.
            generator: Source of randomness.
            beta: The posterior's power that is sampled.
        """
        super().__init__(model, chains, generator, beta)
        self.reward = LVMReward(model)
        self.policy = UniformPolicy(model.env)
        self.moves = moves

    def move(
        self, x: Tensor, rows: Tensor, z: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Makes some moves of every chain; see `ChainEStep.move`."""
        row_x, row_context = x[rows], self.model.context(x)[rows]
        memory = self.policy.encode(x)
        log_reward = beta * self.reward(row_x, z)
        accepted = torch.zeros((), device=x.device)
        for _ in range(self.moves):
            proposal, log_ratio = propose_back_and_forth(
                self.model.env, self.policy, memory, rows, row_context, z, self.generator
            )
            proposed = beta * self.reward(row_x, proposal)
            z, log_reward, accept = metropolis_accept(
                z, log_reward, proposal, proposed, log_ratio, self.generator
            )
            accepted += accept.float().mean()
        self.likelihood_evaluations = self.reward.evaluations
        return z, {"acceptance": accepted.item() / self.moves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.reward.evaluations = state["likelihood_evaluations"]


def require_table(num_structures: int) -> None:
    """Raises a UserError if a posterior has too many structures to be handed on as a table."""
    if num_structures > MAX_STRUCTURES:
        raise UserError(
            f"{num_structures:,} structures are too many for an exact or mean-field E-step "
            f"(limit {MAX_STRUCTURES:,}); use fewer branches or another method."
        )
