"""The VQ-VAE: what each part learns, and what it says of itself."""

import pytest
import torch
from torch.nn import functional as F

from gfn_envs import UserError
from tests.algorithms.test_pathwise_learners import IMAGES, make

X = IMAGES.train[:64]
IDS = torch.arange(64)


def networks(learner):
    return torch.nn.ModuleDict(
        {
            "model": learner.model,
            "policy": learner.policy,
            "encoder": learner.encoder,
            "to_vector": learner.to_vector,
        }
    )


def moved(learner, updates):
    """Which parameters these updates change."""
    before = {name: p.detach().clone() for name, p in networks(learner).named_parameters()}
    for _ in range(updates):
        learner.step(X, IDS)
        learner.updates += 1
    return {
        name
        for name, parameter in networks(learner).named_parameters()
        if not torch.equal(parameter, before[name])
    }


def test_each_part_moves_what_it_should_and_nothing_else():
    learner = make("vq-vae", 10, prior="pixel-cnn", decoder_share=0.5)
    every = {name for name, _ in networks(learner).named_parameters()}
    first = {n for n in every if not n.startswith(("policy.", "model.prior."))}
    assert moved(learner, 5) == first
    version = learner.model.version
    # VarGrad needs no log Z; but it is centred, which moves its level.
    log_z = {n for n in every if n.startswith("policy.partition.")} - {"policy.partition.level"}
    assert moved(learner, 5) == every - first - log_z
    assert learner.model.version > version  # the prior is the model's


def test_the_policy_starts_from_the_features_of_the_encoder():
    learner = make("vq-vae", 10, decoder_share=0.5, policy_rate=1e-12)
    moved(learner, 5)
    assert not torch.allclose(learner.policy.encoder(X), learner.encoder(X))
    moved(learner, 1)
    torch.testing.assert_close(learner.policy.encoder(X), learner.encoder(X))


def test_the_decoder_s_gradient_passes_straight_through_and_reaches_no_code():
    learner = make("vq-vae", 10, commitment=0.0)
    learner.step(X, IDS)
    learner.updates += 1
    codes = learner.codebook.codes.clone()
    vectors = learner._vectors(X).detach()
    chosen = F.embedding(learner.codes(X), codes).requires_grad_()
    cost = F.binary_cross_entropy_with_logits(
        learner.model.decode_embedded(chosen), X, reduction="sum"
    )
    (expected,) = torch.autograd.grad(cost / 64, chosen)
    found = []
    learner.to_vector.register_full_backward_hook(lambda *args: found.append(args[2][0]))
    metrics = learner.step(X, IDS)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(metrics["cost"], cost.detach() / 64, rtol=1e-4, atol=1e-4)
    distance = (vectors - chosen.detach()).square().sum() / 64
    torch.testing.assert_close(metrics["distance"], distance, rtol=1e-4, atol=1e-4)
    assert learner.model.embedding.weight.grad is None


def test_a_commitment_draws_vectors_to_their_codes():
    distance = []
    for commitment in (0.0, 5.0):
        learner = make("vq-vae", 200, decoder_share=0.9, commitment=commitment)
        learner.update(IMAGES.train)
        learner.update(IMAGES.train)
        vectors = learner._vectors(X)
        codes = F.embedding(learner.codes(X), learner.codebook.codes)
        distance.append((vectors - codes).square().sum(-1).mean() / codes.var(0).sum().mean())
    assert distance[1] < 0.5 * distance[0]


def test_its_own_bound_is_below_the_likelihood_and_uses_the_nearest_codes():
    learner = make("vq-vae", 200, prior="pixel-cnn")
    for _ in range(4):
        learner.update(IMAGES.train)
    x = IMAGES.validation
    z = learner.codes(x)
    assert (z.shape, z.dtype) == ((len(x), 4), torch.int64)
    assert len(z.unique()) == 6  # no code is dead
    bound = learner.own_bound(x)
    torch.testing.assert_close(bound, learner.model.log_joint(x, z))
    assert (bound <= learner.model.log_marginal(x) + 1e-3).all()
    marginal = -learner.model.pixel_marginal_nll(x).mean()
    assert bound.mean() > marginal
    uniform = -4 * torch.tensor(6.0).log()
    assert learner.model.prior.log_prob(z).mean() > uniform + 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"decoder_share": 0.0}, {"decoder_share": 1.0}, {"commitment": -1.0}, {"samples_per_x": 1}],
)
def test_wrong_numbers_are_user_errors(wrong):
    with pytest.raises(UserError, match="needs"):
        make("vq-vae", 10, **wrong)
