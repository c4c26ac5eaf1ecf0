"""Policies over grids of codes: what they see, and that all their ways of scoring agree."""

import math

import pytest
import torch
from torch import nn

from algorithms.code_grid_policy import CodeGridPolicy, RasterPolicy
from algorithms.image_encoder import ImageEncoder
from algorithms.image_mlp_policy import ImageMLPPolicy
from algorithms.image_policy import ImagePolicy
from algorithms.log_partition import PARTITIONS
from algorithms.policy_distribution import policy_log_probs
from algorithms.rollout import GREEDY, rollout, score
from gfn_envs.code_grid import CodeGrid
from gfn_envs.errors import UserError

SHAPE = (1, 8, 8)


def images(n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.bernoulli(torch.full((n, *SHAPE), 0.5), generator=seeded(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def awake(policy: ImagePolicy) -> ImagePolicy:
    """Moves every output away from zero, where it starts."""
    generator = seeded(7)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if isinstance(policy, CodeGridPolicy):
            policy.embedding.weight[0] = 0  # the row of a place without a code
    return policy


def make(kind: str, grid=(2, 3), codes: int = 3, **settings) -> tuple[CodeGrid, ImagePolicy]:
    torch.manual_seed(1)
    env = CodeGrid(grid, codes, "any" if kind.endswith("any") else "fixed")
    match kind.split("-")[0]:
        case "raster":
            policy: ImagePolicy = RasterPolicy(env, SHAPE, 8, 12, 5, **settings)
        case "factorised":
            policy = RasterPolicy(env, SHAPE, 8, 12, 5, autoregressive=False, **settings)
        case "grid":
            policy = CodeGridPolicy(env, SHAPE, 8, 12, 5, **settings)
        case _:
            policy = ImageMLPPolicy(env, SHAPE, 8, 12, **settings)
    return env, awake(policy)


KINDS = ("raster", "factorised", "grid-any", "mlp-fixed", "mlp-any")


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((1, 28, 28), (4, 4)), ((1, 8, 8), (2, 2)), ((1, 8, 8), (3, 3)), ((3, 9, 16), (2, 4)),
     ((1, 6, 6), (6, 6)), ((1, 13, 7), (1, 3))],
)  # fmt: skip
def test_the_encoder_gives_each_place_its_features(shape, grid) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(shape, grid, 6)
    x = torch.rand(4, *shape)
    features = encoder(x)
    assert features.shape == (4, math.prod(grid), 6)
    torch.testing.assert_close(features[1:3], encoder(x[1:3]))
    features.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_the_encoder_sees_every_pixel() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    ImageEncoder((1, 28, 28), (4, 4), 8)(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_places_are_in_raster_order() -> None:
    encoder = ImageEncoder((1, 6, 6), (6, 6), 4)
    for block in encoder.layers[-3:-1]:  # residual blocks that add nothing
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
    x = torch.zeros(1, 1, 6, 6)
    blank = encoder(x)
    x[0, 0, 1, 4] = 1
    changed = (encoder(x) != blank).any(-1)[0].nonzero().squeeze(1).tolist()
    around = [row * 6 + column for row in (0, 1, 2) for column in (3, 4, 5)]
    assert set(changed) <= set(around)
    assert 10 in changed


@pytest.mark.parametrize("grid", [(9, 2), (2, 9)])
def test_an_encoder_needs_an_image_as_large_as_the_grid(grid) -> None:
    with pytest.raises(UserError, match="no smaller than the grid"):
        ImageEncoder((1, 8, 8), grid, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_and_scored_probabilities_agree(kind) -> None:
    env, policy = make(kind)
    x, rows = images(), torch.tensor([0, 0, 1, 2, 3, 4, 4])
    batch = rollout(env, policy, x, rows=rows, generator=seeded(3))
    sampled = batch.log_pf.clone()
    assert sampled.std() > 0.1
    torch.testing.assert_close(score(env, policy, batch).log_pf.detach(), sampled)
    memory = policy.encode(x)
    for step, (state, action) in enumerate(zip(batch.states[:-1], batch.actions, strict=True)):
        logits = policy.logits(state, memory, rows)
        legal = torch.cat([env.forward_mask(state, batch.context), torch.zeros(7, 1).bool()], 1)
        log_prob = torch.where(legal, logits, -torch.inf).log_softmax(-1)
        one = log_prob.gather(1, action[:, None]).squeeze(1)
        torch.testing.assert_close(one.detach(), sampled[step])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_exact_distribution(kind) -> None:
    env, policy = make(kind, grid=(1, 2), codes=3)
    x = images(2)
    log_q = policy_log_probs(env, policy, x)
    torch.testing.assert_close(log_q.exp().sum(-1), torch.ones(2))
    draws = 20_000
    batch = rollout(
        env, policy, x, rows=torch.arange(2).repeat_interleave(draws), generator=seeded(4)
    )
    index = (batch.z * torch.tensor([3, 1])).sum(-1).view(2, draws)
    for row in range(2):
        frequency = torch.bincount(index[row], minlength=9) / draws
        # Five standard errors of a frequency.
        bound = 5 * (log_q[row].exp() * (1 - log_q[row].exp()) / draws).sqrt() + 1e-9
        assert ((frequency - log_q[row].exp()).abs() <= bound).all()


def test_a_place_sees_the_codes_before_it_and_no_others() -> None:
    _, policy = make("raster")
    x = images(1)
    memory, rows = policy.encode(x), torch.zeros(2, dtype=torch.int64)
    actions = torch.zeros(6, 2, dtype=torch.int64)
    unchanged = policy.trajectory_logits(actions, memory, rows)
    for place in range(6):
        changed = actions.clone()
        changed[place, 1] = 2
        # The same row of two products: rows of one may differ by their rounding.
        logits = policy.trajectory_logits(changed, memory, rows)
        differs = (logits[:, 1] != unchanged[:, 1]).any(-1)
        assert differs.tolist() == [later > place for later in range(6)]


def test_a_factorised_policy_sees_no_codes() -> None:
    _, policy = make("factorised")
    memory, rows = policy.encode(images(3)), torch.arange(3)
    logits = policy.trajectory_logits(torch.zeros(6, 3, dtype=torch.int64), memory, rows)
    others = policy.trajectory_logits(torch.full((6, 3), 2), memory, rows)
    torch.testing.assert_close(logits, others, rtol=0, atol=0)
    torch.testing.assert_close(logits[..., :-1].transpose(0, 1), policy.place_logits(memory))


def test_in_any_order_logits_depend_on_the_state_alone() -> None:
    env, policy = make("grid-any")
    state = torch.tensor([[-1, 2, -1, 0, -1, 1]])
    memory = policy.encode(images(1))
    logits = policy.logits(state, memory, torch.zeros(1, dtype=torch.int64))
    assert logits.shape == (1, env.num_actions + 1)
    state[0, 1] = 0
    assert (policy.logits(state, memory, torch.zeros(1, dtype=torch.int64)) != logits).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_new_policy_is_uniform_and_log_z_can_be_raised(kind, partition) -> None:
    env = CodeGrid((2, 2), 3, "any" if kind.endswith("any") else "fixed")
    torch.manual_seed(0)
    policies = {"raster": RasterPolicy, "factorised": RasterPolicy, "grid": CodeGridPolicy}
    policy = policies.get(kind.split("-")[0], ImageMLPPolicy)(env, SHAPE, 8, partition=partition)
    x = images(3)
    log_q = policy_log_probs(env, policy, x)
    torch.testing.assert_close(log_q, torch.full_like(log_q, -4 * math.log(3)))
    memory = policy.encode(x)
    assert policy.log_partition(memory).tolist() == [0.0] * 3
    policy.partition.raise_by(torch.tensor(-120.0))
    assert policy.log_partition(memory).tolist() == [-120.0] * 3


def test_log_z_alone_reaches_only_its_own_parameters() -> None:
    _, policy = make("raster")
    policy.log_partition(policy.encode(images())).sum().backward()
    reached = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in policy.named_parameters() if n.startswith("partition.")}


def test_greedy_takes_the_likeliest_action_at_every_step() -> None:
    env, policy = make("raster")
    x = images(4)
    batch = rollout(env, policy, x, temperature=GREEDY, generator=seeded(0))
    memory = policy.encode(x)
    for state, action in zip(batch.states[:-1], batch.actions, strict=True):
        logits = policy.logits(state, memory, batch.rows)[:, :-1]
        assert (logits.argmax(-1) == action).all()


def test_a_raster_policy_refuses_any_order_and_unknown_log_z() -> None:
    with pytest.raises(UserError, match="fixed order"):
        RasterPolicy(CodeGrid((2, 2), 3, "any"), SHAPE)
    with pytest.raises(UserError, match="per-image"):
        RasterPolicy(CodeGrid((2, 2), 3), SHAPE, partition="per-imag")
    with pytest.raises(UserError, match="at least 1"):
        RasterPolicy(CodeGrid((2, 2), 3), SHAPE, hidden=0)
