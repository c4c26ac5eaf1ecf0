"""The sleep phase: maximum likelihood on dreams, beside another objective."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithms.exploration import TrainingStep
from algorithms.forward_kl import ForwardKL
from algorithms.sleep import Sleep
from gfn_envs.errors import UserError


@dataclass(frozen=True)
class SleepPhase:
    """Adds weight E[-log P_F(tau | x)] over dreams (x, z) of the model to some updates' loss.

    Hu et al.: "GFlowNet-EM", ICML 2023, section 4.2. Unlike the exploration `Sleep` it goes with
    objectives that compare several trajectories of one x.

    Attributes:
        probability: The share of updates that dream.
        weight: What the loss on dreams counts.
    """

    probability: float = 0.3
    weight: float = 10.0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if not 0 <= self.probability <= 1 or not 0 <= self.weight < float("inf"):
            raise UserError(
                "A sleep phase needs a probability in 0 .. 1 and a weight of at least 0; got "
                f"{self.probability} and {self.weight}."
            )

    def loss(self, step: TrainingStep) -> Tensor | None:
        """Dreams as many observations as the update has, or does not.

        Args:
            step: What the update has to do with.

        Returns:
            The loss, a scalar that reaches the policy alone; None where this update has none.
        """
        if self.probability < 1:
            device = step.x.device
            if torch.rand((), generator=step.generator, device=device) >= self.probability:
                return None
        rows = torch.arange(len(step.x), device=step.x.device)
        dream = Sleep().sample(replace(step, rows=rows))
        return self.weight * ForwardKL().loss(step.env, step.policy, dream).loss
