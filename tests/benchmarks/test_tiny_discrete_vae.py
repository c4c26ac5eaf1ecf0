"""E-steps on discrete VAEs whose posteriors are known: how close they come."""

import pytest
import torch

from algorithms.alternation import FixedUpdates
from algorithms.code_grid_policy import RasterPolicy
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.importance_sampling import importance_sample
from algorithms.policy_distribution import policy_log_probs
from algorithms.schedule import Delayed, Exponential
from algorithms.vargrad import VarGrad
from benchmarks.posterior.training import make_data, make_e_step
from lvms.models import models


@pytest.mark.slow
def test_an_e_step_on_2_x_2_codes_reaches_the_exact_posterior() -> None:
    """The posterior suite's policy and batch, 5000 updates of VarGrad: about a minute."""
    updates = 5000
    x = make_data("dvae-tiny")
    e_step = make_e_step("dvae-tiny", "vargrad", "epsilon-uniform", x, seed=0)
    e_step.learning_rate = Exponential(1e-2, 2e-4, updates)
    require_exact(e_step, x, updates)


@pytest.mark.slow
def test_an_e_step_on_3_x_3_codes_reaches_the_exact_posterior() -> None:
    """19,683 structures, 32 images; on-policy VarGrad, Muon: half an hour."""
    updates = 34_000
    torch.manual_seed(0)
    x, model = make_data("dvae-small"), models.make("dvae-small")
    e_step = GFlowNetEStep(
        model, RasterPolicy(model.env, tuple(x.shape[1:]), hidden=192, code_dim=8), VarGrad(),
        alternation=FixedUpdates(1), batch_size=len(x), samples_per_x=16, optimizer="muon",
        learning_rate=Delayed(Exponential(6e-3, 3e-5, updates * 7 // 10), updates * 3 // 10),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    require_exact(e_step, x, updates)


def require_exact(e_step: GFlowNetEStep, x: torch.Tensor, updates: int) -> None:
    """Trains for so many updates and requires the exact posterior, and log p(x) by its samples."""
    for update in range(updates):
        e_step.fit(x, update)
    model = e_step.model
    exact = model.log_joint_table(x).detach().log_softmax(-1)
    learned = policy_log_probs(model.env, e_step.policy, x)
    variation = (learned.exp() - exact.exp()).abs().sum(-1) / 2
    estimate = importance_sample(model, e_step.policy, x, 5000, torch.Generator().manual_seed(0))
    off = (estimate.log_marginal - model.log_marginal(x).detach()).abs()
    print(f"total variation {variation.mean():.4f}, log p(x) off by at most {off.max():.4f} nats")
    assert variation.mean() < 0.02
    assert off.max() < 0.01
