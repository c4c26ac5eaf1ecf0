"""An amortised E-step whose samples are importance-weighted."""

import torch
from torch import Tensor

from algorithms.gflownet_e_step import GFlowNetEStep
from lvms.model import WeightedSamples


class ReweightedEStep(GFlowNetEStep):
    """Structures from the policy, with self-normalised weights p(x, z) P_B(tau | z) / P_F(tau | x).

    The M-step then follows an estimate of the gradient of log p(x) that is consistent in the
    number of samples, however wrong the policy: the wake phase of the model in Bornschein, Bengio:
    "Reweighted wake-sleep", ICLR 2015. Trained by `ReweightedWake` on-policy it is wake-wake, by
    `ForwardKL` on dreams it is wake-sleep with a reweighted model update. Weighting costs one
    likelihood evaluation a structure.
    """

    @torch.no_grad()
    def posterior(self, x: Tensor, k: int) -> WeightedSamples:
        """Draws k structures for each observation and weighs them; see `EStep.posterior`."""
        batch = self.draw(x, k)
        batch.ensure_log_reward(self.reward)
        self.likelihood_evaluations = self.reward.evaluations
        log_w = -self.objective.log_ratio(self.model.env, self.policy, batch)
        return WeightedSamples(batch.z.view(len(x), k, -1), log_w.view(len(x), k).log_softmax(-1))
