"""GFlowNet-EM on mini-batches: policy and model improved in one update, or in turns."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.alternation import Alternation
from algorithms.amortised_learner import AmortisedLearner
from algorithms.backward_policy import default_backward_policy
from algorithms.batch_sampler import BatchSampler
from algorithms.exploration import Exploration, OnPolicy, TrainingStep, require_fit
from algorithms.log_partition import LogPartition, partition_of
from algorithms.markov_kernel import MarkovKernel
from algorithms.objective import Objective
from algorithms.policy import HasLogPartition, Policy
from algorithms.reverse_kl import share_per_observation
from algorithms.reweighted_wake import log_sum_per_observation
from algorithms.rollout import GREEDY, rollout
from algorithms.schedule import Schedule
from algorithms.sleep_phase import SleepPhase
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.errors import UserError, unknown_name
from lvms.model import LatentVariableModel
from lvms.reward import LVMReward

M_STEPS = ("all", "reweighted", "resampled", "sampled", "greedy", "improved")
"""What an M-step learns from; see `MinibatchEM`."""

WEIGHTED = ("reweighted", "resampled")
"""M-steps to which some of the policy's trajectories count more than others."""


class MinibatchEM(AmortisedLearner):
    """Trains P_F(z | x) with reward p(x, z), and p(x, z) on structures from P_F.

    Joint, each update does both on the same trajectories: the log p(x, z) that the policy's loss
    takes as its reward is what the model raises, so z is decoded once for both. In turns, it is
    algorithm 1 of Hu et al. 2023: updates of the policy until the alternation says that it is the
    model's turn, then some of the model's on fresh structures.

    The M-step learns from `all` trajectories of an update alike; from all `reweighted` by
    p(x, z) P_B(tau | z) / P_F(tau | x), normalised for each x (reweighted wake-sleep's update of
    the model: Bornschein, Bengio, ICLR 2015); from one or several for each x that are `resampled`
    from them by these weights, so that few are differentiated; from fresh z `sampled` for each x,
    one or several; from such z `improved` by steps of Markov chains that begin there; or from one
    `greedy` z, the likeliest action at every step.

    What a policy learns log Z(x) or flows with, if that is a part of its own, `partition`, has its
    own learning rate; a `LogPartition` is put at the mean estimate before the first update.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        policy: Policy,
        objective: Objective,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int = 32,
        samples_per_x: int = 4,
        policy_rate: Schedule | float = 1e-3,
        partition_rate: Schedule | float = 1e-2,
        model_rate: Schedule | float = 1e-3,
        exploration: Exploration | None = None,
        sleep: SleepPhase | None = None,
        m_step: str = "all",
        m_samples_per_x: int = 1,
        kernel: MarkovKernel | None = None,
        alternation: Alternation | None = None,
        m_updates: int = 1,
        centre: bool = True,
        late: nn.Module | None = None,
        late_from: int = 0,
        betas: tuple[float, float] = (0.9, 0.999),
        max_norm: float = math.inf,
        policy_max_norm: float = math.inf,
        sampler: BatchSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchLearner`.

        Args:
            model: The model.
            policy: The policy.
            objective: The policy's loss.
            num_updates: How many mini-batches there are to be.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            samples_per_x: Trajectories for each.
            policy_rate: Adam's learning rate of the policy.
            partition_rate: That of `partition`.
            model_rate: That of the model.
            exploration: Where trajectories come from, all of them for the x of the update;
                on-policy by default.
            sleep: Maximum likelihood on dreams beside the objective; none by default.
            m_step: One of `M_STEPS`.
            m_samples_per_x: Structures for each x of an M-step that are `resampled`, `sampled` or
                `improved`.
            kernel: What improves them.
            alternation: How long the policy's turn lasts; joint updates by default.
            m_updates: How long the model's turn lasts, in turns.
            centre: Whether log Z begins at its mean estimate over the first mini-batch.
            late: A part of the model that does not learn at first. A learned prior had better be
                one: from a policy that knows nothing yet it learns to use few structures.
            late_from: After how many mini-batches it does.
            betas: Adam's of the model; see `ScheduledAdam`.
            max_norm: Longer gradients of the model are scaled down to this norm.
            policy_max_norm: Those of the policy to this one.
            sampler: Chooses the mini-batches; with replacement by default.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers, or objective and exploration, do not fit together.
        """
        super().__init__(
            model, policy, num_updates=num_updates, rounds=rounds, batch_size=batch_size,
            sampler=sampler, generator=generator,
        )  # fmt: skip
        exploration = exploration or OnPolicy()
        require_fit(objective, exploration, samples_per_x)
        objective.require_policy(policy)
        if m_updates < 1:
            raise UserError(f"A model's turn needs at least 1 update; got {m_updates}.")
        if m_step not in M_STEPS:
            raise unknown_name("M-step", m_step, M_STEPS)
        if m_samples_per_x < 1:
            raise UserError(f"m_samples_per_x must be at least 1; got {m_samples_per_x}.")
        if (m_step == "improved") != (kernel is not None):
            raise UserError("The M-step 'improved', and no other, needs a kernel.")
        self.reward = LVMReward(model)
        self.objective = objective
        self.exploration = exploration
        self.sleep = sleep
        self.samples_per_x = samples_per_x
        self.m_step = m_step
        self.m_samples_per_x = m_samples_per_x
        self.kernel = kernel
        self.alternation = alternation
        self.m_updates = m_updates
        self.centre = centre
        self.late = late
        self.late_from = late_from
        own_partition = partition_of(policy)
        partition = [] if own_partition is None else list(own_partition.parameters())
        of_partition = {id(parameter) for parameter in partition}
        others = [p for p in policy.parameters() if id(p) not in of_partition]
        self.policy_optimizer = self.adam(
            (others, policy_rate), (partition, partition_rate), max_norm=policy_max_norm
        )
        self.model_optimizer = self.adam(
            (model.parameters(), model_rate), betas=betas, max_norm=max_norm
        )
        self._policy_updates, self._model_updates = 0, 0
        self._made = 0  # updates of this turn
        self._models_turn = False

    @property
    def likelihood_evaluations(self) -> int:
        """How many times log p(x, z) has been evaluated, by joint updates once for both."""
        return self.reward.evaluations

    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Makes the update whose turn it is; see `MinibatchLearner.step`."""
        self._hold_back()
        if self.alternation is None:
            return self.joint_update(x, ids)
        if self._models_turn:
            metrics = self.model_update(x)
            self._made += 1
            over = self._made >= self.m_updates
        else:
            if self._made == 0:
                self.alternation.start(self._model_updates)
            metrics = self.policy_update(x, ids)
            self._made += 1
            over = self.alternation.done(self._made, metrics["loss"])
        if over:
            self._made, self._models_turn = 0, not self._models_turn
        return metrics

    def joint_update(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Improves policy and model on the same trajectories."""
        step = self._training_step(x, ids)
        batch = self.exploration.sample(step)
        if batch.x is not x:
            raise ValueError(f"{type(self.exploration).__name__} has other x than the update's.")
        differentiated = self.m_step in ("all", "reweighted")
        with torch.set_grad_enabled(differentiated):
            log_joint = self.model.log_joint(x.index_select(0, batch.rows), batch.z)
        self.reward.evaluations += len(batch)
        if batch.reward_version != self.model.version:  # else it may be tempered
            batch.log_reward, batch.reward_version = log_joint.detach(), self.model.version
        loss, metrics = self._policy_loss(step, batch)
        if differentiated:
            model_loss = self.m_step_loss(log_joint, batch.z, self._weights(batch))
        elif self.m_step == "resampled":
            model_loss = self._resampled_loss(batch)
        else:
            model_loss = self._model_loss(x)
        self.policy_optimizer.zero_grad()
        self.model_optimizer.zero_grad()
        (loss + model_loss).backward()  # no parameter is reached by both
        self.policy_optimizer.step_clipped()
        self._step_model()
        return metrics

    def policy_update(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Improves the policy alone: an E-update."""
        step = self._training_step(x, ids)
        batch = self.exploration.sample(step)
        batch.ensure_log_reward(self.reward)
        loss, metrics = self._policy_loss(step, batch)
        self.policy_optimizer.descend(loss)
        return metrics

    def model_update(self, x: Tensor) -> dict[str, Tensor]:
        """Improves the model alone, on fresh structures: an M-update."""
        loss = self._model_loss(x)
        self.model_optimizer.zero_grad()
        loss.backward()
        self._step_model()
        return {}

    def _step_model(self) -> None:
        """Moves the model along its gradient."""
        self.model_optimizer.step_clipped()
        self.model.mark_updated()
        self._model_updates += 1

    def _hold_back(self) -> None:
        """Has no gradient computed for what is not to learn yet; see `late`."""
        if self.late is not None:
            self.late.requires_grad_(self.updates >= self.late_from)

    def _training_step(self, x: Tensor, ids: Tensor) -> TrainingStep:
        """Says what an update has to do with."""
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self.samples_per_x)
        return TrainingStep(
            model=self.model,
            reward=self.reward,
            policy=self.policy,
            backward=self.objective.backward or default_backward_policy(self.model.env),
            x=x,
            ids=ids,
            context=self.model.context(x),
            rows=rows,
            update=self._policy_updates,
            m_steps=self._model_updates,
            generator=self.generator,
        )

    def _policy_loss(
        self, step: TrainingStep, batch: TrajectoryBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a policy's update, dreams included, and what is logged of it.

        The ELBO is that of the trajectories trained on: a lower bound where they are the policy's.
        """
        with torch.no_grad():
            elbo = -self.objective.log_ratio(step.env, self.policy, batch).mean()
            if self._policy_updates == 0 and self.centre:
                self._centre(batch, elbo)
        output = self.objective.loss(step.env, self.policy, batch)
        self.reward.evaluations += output.likelihood_evaluations
        dreams = None if self.sleep is None else self.sleep.loss(step)
        self._policy_updates += 1
        loss = output.loss if dreams is None else output.loss + dreams
        return loss, {"loss": output.loss.detach(), "elbo": elbo}

    def _centre(self, batch: TrajectoryBatch, elbo: Tensor) -> None:
        """Puts log Z at its mean estimate, the ELBO, if it is a `LogPartition`."""
        policy, partition = self.policy, partition_of(self.policy)
        if isinstance(partition, LogPartition) and batch.memory is not None:
            assert isinstance(policy, HasLogPartition)
            partition.raise_by(elbo - policy.log_partition(batch.memory).mean())

    def _weights(self, batch: TrajectoryBatch) -> Tensor:
        """Weighs trajectories for the model, float `[N]`, in all 1."""
        share = share_per_observation(batch)
        if self.m_step not in WEIGHTED:
            return share
        with torch.no_grad():
            log_w = -self.objective.log_ratio(self.model.env, self.policy, batch)
            log_total = log_sum_per_observation(log_w, batch)
            return (log_w - log_total[batch.rows]).exp() / len(batch.x)

    def _model_loss(self, x: Tensor) -> Tensor:
        """Computes the mean of -log p(x, z) over fresh structures of each x."""
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self._fresh_per_x)
        batch = rollout(
            self.model.env,
            self.policy,
            x,
            rows=rows,
            context=self.model.context(x),
            generator=self.generator,
            temperature=GREEDY if self.m_step == "greedy" else 1.0,
        )
        if self.m_step == "resampled":
            batch.ensure_log_reward(self.reward)
            return self._resampled_loss(batch)
        pairs, z = x.index_select(0, rows), batch.z
        if self.kernel is not None:
            z, _, evaluations = self.kernel.move(self.model, pairs, z, self.generator)
            self.reward.evaluations += evaluations
        log_joint = self.model.log_joint(pairs, z)
        self.reward.evaluations += len(batch)
        if self.m_step == "reweighted":
            batch.log_reward = log_joint.detach()
        return self.m_step_loss(log_joint, z, self._weights(batch))

    def _resampled_loss(self, batch: TrajectoryBatch) -> Tensor:
        """Computes the mean of -log p(x, z) over structures drawn from a batch by their weights.

        Stratified resampling (Kitagawa, JCGS 1996): the weights are laid end to end, and one point
        falls in each of as many equal parts as there are structures to draw. An observation's
        weights are one part, or as many as it has structures to draw.
        """
        num = len(batch.x) * self.m_samples_per_x
        ends = self._weights(batch).double().cumsum(0)
        points = torch.rand(num, generator=self.generator, device=ends.device).double()
        points = (points + torch.arange(num, device=ends.device)) / num * ends[-1]
        drawn = torch.searchsorted(ends, points, right=True).clamp_max(len(batch) - 1)
        z = batch.z[drawn]
        log_joint = self.model.log_joint(batch.x.index_select(0, batch.rows[drawn]), z)
        self.reward.evaluations += num
        return self.m_step_loss(log_joint, z, torch.full_like(log_joint, 1 / num))

    @property
    def _fresh_per_x(self) -> int:
        """How many fresh structures of each x an M-step draws."""
        if self.m_step in ("all", *WEIGHTED):
            return self.samples_per_x
        return 1 if self.m_step == "greedy" else self.m_samples_per_x

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that later updates depend on; see `Learner.state_dict`."""
        return {
            **super().state_dict(),
            "exploration": self.exploration.state_dict(),
            "alternation": None if self.alternation is None else self.alternation.state_dict(),
            "made": [self._policy_updates, self._model_updates, self._made],
            "models_turn": self._models_turn,
            "likelihood_evaluations": self.reward.evaluations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        super().load_state_dict(state)
        self.exploration.load_state_dict(state["exploration"])
        if self.alternation is not None:
            self.alternation.load_state_dict(state["alternation"])
        self._policy_updates, self._model_updates, self._made = state["made"]
        self._models_turn = state["models_turn"]
        self.reward.evaluations = state["likelihood_evaluations"]
