"""Categorical samples with a gradient."""

import torch

from algorithms.relaxed_categorical import gumbel_noise, relaxed_categorical
from tests.algorithms.statistics import assert_drawn_from

LOGITS = torch.tensor([0.3, -1.0, 2.0, 0.0])


def draw(count, temperature, hard=False, logits=LOGITS):
    generator = torch.Generator().manual_seed(0)
    noise = gumbel_noise((count, len(logits)), logits, generator)
    return relaxed_categorical(logits.expand(count, -1), noise, temperature, hard)


def test_the_largest_weight_is_an_exact_sample_at_every_temperature():
    samples = [draw(20_000, temperature).argmax(-1) for temperature in (0.1, 1.0, 5.0)]
    assert torch.equal(samples[0], samples[1])
    assert torch.equal(samples[1], samples[2])
    assert_drawn_from(samples[0][:, None], torch.arange(4)[:, None], LOGITS.log_softmax(-1))


def test_weights_sum_to_one_and_are_nearly_one_hot_when_cold():
    spread = []
    for temperature in (5.0, 1.0, 0.2, 0.01):
        weights = draw(2000, temperature)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2000))
        spread.append((1 - weights.amax(-1)).mean().item())
    assert spread == sorted(spread, reverse=True)
    # Two of the noisy logits are closer than 0.1 in some 5 % of draws; elsewhere exp(-10) is left.
    assert spread[-1] < 0.01


def test_hard_weights_are_one_hot_with_the_gradient_of_soft_ones():
    logits = LOGITS.clone().requires_grad_()
    soft, hard = draw(50, 0.7, logits=logits), draw(50, 0.7, hard=True, logits=logits)
    one_hot = torch.nn.functional.one_hot(soft.argmax(-1), 4).float()
    torch.testing.assert_close(hard, one_hot, rtol=0, atol=1e-6)
    direction = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    expected, found = (
        torch.autograd.grad((weights * direction).sum(), logits)[0] for weights in (soft, hard)
    )
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected)
