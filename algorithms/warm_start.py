"""GFlowNet-EM that begins with relaxed codes."""

import torch
from torch import Tensor, nn

from algorithms.code_grid_policy import RasterPolicy
from algorithms.exploration import Exploration
from algorithms.gumbel_softmax import annealed
from algorithms.minibatch_em import MinibatchEM
from algorithms.objective import Objective
from algorithms.relaxed_elbo import RelaxedELBO
from algorithms.schedule import Schedule, falling
from algorithms.sleep_phase import SleepPhase
from gfn_envs.errors import UserError
from lvms.discrete_vae import DiscreteVAE


class WarmStart(MinibatchEM):
    """Learns through relaxed codes for a share of the updates, and by GFlowNet-EM from there.

    At first the gradient through the decoder teaches much faster than rewards do; in the end what
    counts are codes, and relaxed ones are not quite that. Relaxed for long, few images are learned
    by heart, while dreams keep the policy from doing so. Policy, model, optimisers and schedules
    of learning rates go through both; log Z(x) is centred where GFlowNet-EM begins.

    Attributes:
        relaxed_updates: How many updates relax codes.
    """

    model: DiscreteVAE
    policy: RasterPolicy

    def __init__(
        self,
        model: DiscreteVAE,
        policy: RasterPolicy,
        objective: Objective,
        *,
        num_updates: int,
        rounds: int,
        batch_size: int = 32,
        samples_per_x: int = 8,
        relaxed_share: float = 0.5,
        relaxed: RelaxedELBO | None = None,
        policy_rate: Schedule | float | None = None,
        partition_rate: Schedule | float = 1e-2,
        model_rate: Schedule | float | None = None,
        exploration: Exploration | None = None,
        sleep: SleepPhase | None = None,
        m_step: str = "reweighted",
        late: nn.Module | None = None,
        late_from: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Sets the training up; see `MinibatchEM`.

        Args:
            model: The model.
            policy: The policy.
            objective: Its loss after the relaxed codes.
            num_updates: How many mini-batches there are to be, of both kinds.
            rounds: Over how many calls of `update` they are spread.
            batch_size: Observations a mini-batch.
            samples_per_x: Trajectories for each, after the relaxed codes.
            relaxed_share: The share of the updates that relax codes.
            relaxed: What they maximise; `annealed` over them by default.
            policy_rate: Adam's learning rate of the policy; by default 1e-3, falling to a twentieth
                of it over the last fifth of the updates.
            partition_rate: That of log Z.
            model_rate: That of the model; the same by default.
            exploration: Where trajectories come from; on-policy by default.
            sleep: Maximum likelihood on dreams beside the objective; none by default.
            m_step: See `MinibatchEM`.
            late: See `MinibatchEM`.
            late_from: See `MinibatchEM`; updates of both kinds count.
            generator: Source of randomness.

        Raises:
            UserError: If the numbers, or objective and exploration, do not fit together.
        """
        if not 0 < relaxed_share < 1:
            raise UserError(
                f"A WarmStart needs a relaxed_share between 0 and 1; got {relaxed_share}."
            )
        self.relaxed_updates = max(1, round(relaxed_share * num_updates))
        rate = falling(1e-3, round(0.8 * num_updates), num_updates)
        super().__init__(
            model, policy, objective, num_updates=num_updates, rounds=rounds,
            batch_size=batch_size, samples_per_x=samples_per_x,
            policy_rate=rate if policy_rate is None else policy_rate,
            partition_rate=partition_rate, model_rate=rate if model_rate is None else model_rate,
            exploration=exploration, sleep=sleep, m_step=m_step, late=late, late_from=late_from,
            generator=generator,
        )  # fmt: skip
        self.relaxed = relaxed or annealed(self.relaxed_updates)

    def step(self, x: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Makes an update of the kind whose turn it is; see `MinibatchLearner.step`."""
        if self.updates < self.relaxed_updates:
            return self.relaxed_update(x)
        return super().step(x, ids)

    def relaxed_update(self, x: Tensor) -> dict[str, Tensor]:
        """Improves policy and model on one draw of relaxed codes for each x."""
        self._hold_back()
        loss, metrics = self.relaxed.loss(self.model, self.policy, x, self.updates, self.generator)
        self.policy_optimizer.zero_grad()
        self.model_optimizer.zero_grad()
        loss.backward()
        self.policy_optimizer.step()
        self.model_optimizer.step()
        self.model.mark_updated()
        self.reward.evaluations += len(x)
        return {"loss": loss.detach(), **metrics}
