"""What all learners with a gradient through the decoder have in common."""

import io

import pytest
import torch

from algorithms.code_grid_policy import RasterPolicy
from algorithms.gumbel_softmax import GumbelSoftmax, annealed
from algorithms.importance_sampling import importance_sample
from algorithms.vargrad import VarGrad
from algorithms.vq_vae import VQVAE
from algorithms.warm_start import WarmStart
from lvms import DiscreteVAE
from lvms.data.images import load_images

IMAGES = load_images("digits")


def parts(prior="uniform", autoregressive=True, seed=0):
    """A model of 8 x 8 images that starts at the data, and a policy."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE((1, 8, 8), (2, 2), 6, code_dim=8, channels=16, prior=prior, seed=seed)
    model.start_at_data(IMAGES.train, generator)
    policy = RasterPolicy(
        model.env, (1, 8, 8), channels=16, hidden=24, code_dim=8, autoregressive=autoregressive
    )
    return model, policy, generator


def make(name, num_updates, rounds=4, **kwargs):
    """A learner by the name of its test."""
    model, policy, generator = parts(kwargs.pop("prior", "uniform"), "factorised" not in name)
    kwargs |= {"num_updates": num_updates, "rounds": rounds, "generator": generator}
    kwargs.setdefault("policy_rate", 3e-3)
    kwargs.setdefault("model_rate", 3e-3)
    if name in ("vq-vae", "warm start"):
        learner = VQVAE if name == "vq-vae" else WarmStart
        return learner(model, policy, VarGrad(), **kwargs)
    if name == "gumbel, hard":
        kwargs["relaxed"] = annealed(num_updates, hard=True)
    return GumbelSoftmax(model, policy, **kwargs)


LEARNERS = ["gumbel", "gumbel, factorised", "gumbel, hard", "vq-vae", "warm start"]


# Straight through hard codes it collapses easily: no promise is made of it.
@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("gumbel", "pixel-cnn"),
        ("gumbel, factorised", "uniform"),
        ("vq-vae", "transformer"),
        ("warm start", "uniform"),
    ],
)
def test_learning_leaves_the_pixel_marginals_behind(name, prior):
    learner = make(name, 250, prior=prior)
    x = IMAGES.validation
    for _ in range(4):
        metrics = learner.update(IMAGES.train)
    assert all(isinstance(value, float) for value in metrics.values())
    marginal = learner.model.pixel_marginal_nll(x).mean()
    nll = -learner.model.log_marginal(x).mean()
    assert nll < marginal - 0.5
    # The policy has learned the posterior of these codes, not of relaxed ones.
    generator = torch.Generator().manual_seed(0)
    estimate = importance_sample(learner.model, learner.policy, x, 50, generator)
    assert -estimate.elbo.mean() < marginal
    assert estimate.log_marginal.mean().item() == pytest.approx(-nll.item(), abs=0.7)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_resumed_learner_goes_on_exactly_as_it_would_have(name):
    undisturbed, interrupted, resumed = (make(name, 12, prior="pixel-cnn") for _ in range(3))
    for learner in (undisturbed, interrupted):
        for _ in range(2):
            learner.update(IMAGES.train)
    file = io.BytesIO()
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        assert resumed.update(IMAGES.train) == undisturbed.update(IMAGES.train)
    for one, other in ((resumed.model, undisturbed.model), (resumed.policy, undisturbed.policy)):
        assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert resumed.likelihood_evaluations == undisturbed.likelihood_evaluations
    assert resumed.model.version == undisturbed.model.version


@pytest.mark.parametrize("name", [name for name in LEARNERS if name.startswith("gumbel")])
def test_an_update_moves_every_parameter_but_log_z(name):
    learner = make(name, 8, prior="pixel-cnn")
    learner.update(IMAGES.train)  # the heads start at zero and let no gradient through once
    networks = torch.nn.ModuleList([learner.model, learner.policy])
    before = {label: p.detach().clone() for label, p in networks.named_parameters()}
    learner.step(IMAGES.train[:64], torch.arange(64))
    blind = ("1.embedding", "1.read_codes") if "factorised" in name else ()
    for label, parameter in networks.named_parameters():
        fixed = label.startswith(("1.partition", *blind))
        assert torch.equal(parameter, before[label]) == fixed, label
