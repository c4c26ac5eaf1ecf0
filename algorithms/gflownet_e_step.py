"""The E-step of GFlowNet-EM: train a policy to sample the posterior."""

from typing import Any

import torch
from torch import Tensor

from algorithms.alternation import Alternation, FixedUpdates
from algorithms.backward_policy import default_backward_policy
from algorithms.e_step import EStep
from algorithms.exploration import Exploration, OnPolicy, TrainingStep, require_fit
from algorithms.muon_adam import MuonAdam
from algorithms.objective import Objective
from algorithms.policy import Policy
from algorithms.rollout import rollout
from algorithms.schedule import Schedule, as_schedule, require_positive
from algorithms.sleep_phase import SleepPhase
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError, unknown_name
from lvms.model import LatentVariableModel, WeightedSamples
from lvms.reward import LVMReward

OPTIMIZERS = ("adam", "muon")
"""What moves a policy's weights."""


class GFlowNetEStep(EStep):
    """Trains P_F(z | x) with reward p(x, z) (Hu et al. 2023, algorithm 1).

    The policy is amortised over observations and goes on from one E-step to the next.

    Attributes:
        policy: The policy being trained.
        updates: How many updates it has had so far.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        policy: Policy,
        objective: Objective,
        *,
        exploration: Exploration | None = None,
        alternation: Alternation | None = None,
        batch_size: int = 512,
        samples_per_x: int = 4,
        learning_rate: Schedule | float = 1e-2,
        min_log_reward: float = -float("inf"),
        sleep: SleepPhase | None = None,
        optimizer: str = "adam",
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up.

        Args:
            model: The model whose posterior is sampled.
            policy: The policy to train.
            objective: The loss.
            exploration: Where training trajectories come from; on-policy by default.
            alternation: How long each E-step lasts; 20 updates by default.
            batch_size: Observations an update; all of them where there are fewer.
            samples_per_x: Trajectories for each observation of an update.
            learning_rate: The optimiser's; a schedule's steps are M-steps.
            min_log_reward: Lower log rewards are raised to this, nats.
            sleep: Maximum likelihood on dreams beside the objective; none by default.
            optimizer: One of `OPTIMIZERS`: `adam`, or `muon` for the weights of linear layers and
                Adam for the rest; see `MuonAdam`.
            generator: Source of randomness.

        Raises:
            UserError: If objective and exploration do not fit together (see `require_fit`), the
                policy lacks what the objective needs, the batch is empty, the learning rate is not
                positive at the start or in the end, or the optimiser is unknown.
        """
        exploration = exploration or OnPolicy()
        require_fit(objective, exploration, samples_per_x)
        objective.require_policy(policy)
        if batch_size < 1:
            raise UserError(f"An E-step needs a batch_size of at least 1; got {batch_size}.")
        self.model = model
        self.reward = LVMReward(model, min_log_reward)
        self.policy = policy
        self.objective = objective
        self.exploration = exploration
        self.alternation = alternation or FixedUpdates(20)
        self.batch_size = batch_size
        self.samples_per_x = samples_per_x
        self.sleep = sleep
        self.generator = generator
        self.learning_rate = as_schedule(learning_rate)
        require_positive("learning_rate", self.learning_rate)
        self.optimizer = _make_optimizer(optimizer, policy, self.learning_rate.at(0))
        self.updates = 0

    def fit(self, x: Tensor, m_steps: int) -> dict[str, float]:
        """Trains until the alternation says that the M-step is due; see `EStep.fit`."""
        size = min(self.batch_size, len(x))
        rows = torch.arange(size, device=x.device).repeat_interleave(self.samples_per_x)
        self.alternation.start(m_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate.at(m_steps)
        updates, total, done = 0, torch.zeros((), device=x.device), False
        while not done:
            ids = torch.arange(len(x), device=x.device)
            if size < len(x):
                ids = torch.randint(len(x), (size,), generator=self.generator, device=x.device)
            loss = self.train(x[ids], ids, rows, m_steps)
            updates += 1
            total += loss
            done = self.alternation.done(updates, loss)
        self.likelihood_evaluations = self.reward.evaluations
        return {"loss": total.item() / updates, "e_updates": updates}

    def train(self, x: Tensor, ids: Tensor, rows: Tensor, m_steps: int = 0) -> Tensor:
        """Makes one update of the policy.

        Args:
            x: Observations, `[B, ...]`.
            ids: int64 `[B]`, which observations of the data they are.
            rows: int64 `[N]`, which observation each trajectory is for.
            m_steps: How many M-steps have been made so far.

        Returns:
            The loss without that on dreams, a scalar without gradient.
        """
        env = self.model.env
        step = TrainingStep(
            model=self.model,
            reward=self.reward,
            policy=self.policy,
            backward=self.objective.backward or default_backward_policy(env),
            x=x,
            ids=ids,
            context=self.model.context(x),
            rows=rows,
            update=self.updates,
            m_steps=m_steps,
            generator=self.generator,
        )
        batch = self.exploration.sample(step)
        batch.ensure_log_reward(self.reward)
        output = self.objective.loss(env, self.policy, batch)
        self.reward.evaluations += output.likelihood_evaluations
        dreams = None if self.sleep is None else self.sleep.loss(step)
        self.optimizer.zero_grad()
        (output.loss if dreams is None else output.loss + dreams).backward()
        self.optimizer.step()
        self.updates += 1
        return output.loss.detach()

    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Draws k structures for each observation from the policy; see `EStep.posterior`."""
        return WeightedSamples.equal(self.draw(x, k).z.view(len(x), k, -1))

    @torch.no_grad()
    def draw(self, x: Tensor, k: int) -> TrajectoryBatch:
        """Draws k trajectories for each observation from the policy, those of one x side by side.

        Args:
            x: Observations, `[B, ...]`.
            k: How many for each.

        Returns:
            `[B k]` trajectories without gradient.
        """
        rows = torch.arange(len(x), device=x.device).repeat_interleave(k)
        return rollout(
            self.model.env, self.policy, x, rows=rows, context=self.model.context(x),
            generator=self.generator,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Returns the policy and its training too; see `EStep.state_dict`."""
        return {
            **super().state_dict(),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "alternation": self.alternation.state_dict(),
            "exploration": self.exploration.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.reward.evaluations = state["likelihood_evaluations"]
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.alternation.load_state_dict(state["alternation"])
        self.exploration.load_state_dict(state["exploration"])
        self.updates = state["updates"]


def _make_optimizer(name: str, policy: Policy, rate: float) -> torch.optim.Optimizer | MuonAdam:
    """Makes the optimiser of that name.

    Raises:
        UserError: If it is unknown.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    if name == "muon":
        return MuonAdam(policy, rate)
    return torch.optim.Adam(policy.parameters(), lr=rate, fused=True)
