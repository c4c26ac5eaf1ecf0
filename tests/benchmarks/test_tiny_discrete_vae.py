"""An E-step on a discrete VAE whose posterior is known: how close it comes."""

import pytest
import torch

from algorithms.importance_sampling import importance_sample
from algorithms.policy_distribution import policy_log_probs
from algorithms.schedule import Exponential
from benchmarks.posterior.training import make_data, make_e_step

UPDATES = 5000


@pytest.mark.slow
def test_an_e_step_reaches_the_exact_posterior_and_its_samples_the_exact_marginal() -> None:
    """The posterior suite's policy and batch, 5000 updates of VarGrad: about a minute."""
    x = make_data("dvae-tiny")
    e_step = make_e_step("dvae-tiny", "vargrad", "epsilon-uniform", x, seed=0)
    e_step.learning_rate = Exponential(1e-2, 2e-4, UPDATES)
    for update in range(UPDATES):
        e_step.fit(x, update)
    model = e_step.model
    exact = model.log_joint_table(x).detach().log_softmax(-1)
    learned = policy_log_probs(model.env, e_step.policy, x)
    variation = (learned.exp() - exact.exp()).abs().sum(-1) / 2
    assert variation.mean() < 0.02
    estimate = importance_sample(model, e_step.policy, x, 5000, torch.Generator().manual_seed(0))
    off = (estimate.log_marginal - model.log_marginal(x).detach()).abs()
    print(f"total variation {variation.mean():.4f}, log p(x) off by at most {off.max():.4f} nats")
    assert off.max() < 0.01
