"""Thompson sampling: heads, what each learns from, and what stays as it is."""

import math

import pytest
import torch

from algorithms.gru_policy import GRUPolicy
from algorithms.mlp_policy import MLPPolicy
from algorithms.policy import CachedDecoding
from algorithms.policy_distribution import policy_log_probs
from algorithms.rollout import rollout, score
from algorithms.thompson import Thompson, bootstrapped, initialise, make_head
from algorithms.trajectory_batch import select
from algorithms.vargrad import VarGrad
from gfn_envs import FactoredCategorical, UserError
from tests.algorithms.exploration_cases import (
    ENVS,
    DreamingTable,
    assert_right_batch,
    assert_same_batch,
    generator,
    random_policy,
    step_for,
)
from tests.algorithms.models import PosteriorPolicy
from tests.algorithms.statistics import assert_drawn_from


def started(model, policy=None, updates=1, **arguments):
    """A Thompson whose heads are made, and taught for some updates."""
    exploration, policy = Thompson(**arguments), policy or random_policy(model.env)
    source = generator(7)
    for _ in range(updates):
        exploration.sample(step_for(model, policy, samples=32, source=source))
    return exploration


def distributions(exploration, model):
    """q(z | x) of every head, `[K, B, Z]`."""
    x = model.observations()
    with torch.no_grad():
        return torch.stack(
            [policy_log_probs(model.env, head, x).exp() for head in exploration.heads]
        )


def parameters_of(modules):
    return [parameter.detach().clone() for part in modules for parameter in part.parameters()]


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
def test_a_head_is_drawn_uniformly_for_each_trajectory(env):
    model = DreamingTable(env)
    policy = random_policy(env)
    exploration = started(model, policy, heads=3, prior_scale=6.0)
    each = distributions(exploration, model)
    step = step_for(model, policy, samples=10_000)
    batch = exploration.sample(step)
    assert_right_batch(step, batch)
    for row in range(2):
        z = batch.z[batch.rows == row]
        assert_drawn_from(z, model.structures, each[:, row].mean(0).log())
        # The test can tell: two heads alone do not pass.
        with pytest.raises(AssertionError):
            assert_drawn_from(z, model.structures, each[:2, row].mean(0).log())


def test_the_draws_of_heads_are_independent():
    """Counts of one of 4 heads among 16 trajectories have the binomial's variance."""
    model = DreamingTable(ENVS["fixed"])
    exploration = started(model, heads=4)
    asked = [[] for _ in exploration.heads]
    for counts, head in zip(asked, exploration.heads, strict=True):
        logits = head.logits

        def counted(state, memory, rows, counts=counts, logits=logits):
            if len(state) and not torch.is_grad_enabled() and (state[:, 0] >= 0).all():
                counts.append(len(state))  # the second of two steps: as many as trajectories
            return logits(state, memory, rows)

        head.logits = counted
    policy = random_policy(model.env)
    times = 400
    for seed in range(times):
        exploration.sample(step_for(model, policy, samples=8, seed=seed))
    for counts in asked:
        drawn = torch.tensor(counts + [0] * (times - len(counts)), dtype=torch.float64)
        # Binomial(16, 1/4): mean 4, variance 3; standard errors sqrt(3 / n), about 3 sqrt(2 / n).
        assert abs(drawn.mean().item() - 4) < 4 * math.sqrt(3 / times)
        assert abs(drawn.var().item() - 3) < 4 * 3 * math.sqrt(2 / times)


@pytest.mark.parametrize("bootstrap", [0.3, 1.0])
def test_each_head_learns_from_its_share_of_the_trajectories(bootstrap, monkeypatch):
    model = DreamingTable(ENVS["any"])
    policy = random_policy(model.env)
    lessons = []

    def recorded(env, scored_by, batch):
        if scored_by is not policy:
            lessons.append((scored_by, batch.rows))
        return score(env, scored_by, batch)

    monkeypatch.setattr("algorithms.thompson.score", recorded)
    exploration = Thompson(heads=3, bootstrap=bootstrap)
    exploration.sample(step_for(model, policy, samples=5_000))
    assert [head for head, _ in lessons] == exploration.heads
    error = 4 * math.sqrt(bootstrap * (1 - bootstrap) / 10_000)
    for _, rows in lessons:
        assert len(rows) / 10_000 == pytest.approx(bootstrap, abs=error)
    sizes = {tuple(rows.bincount().tolist()) for _, rows in lessons}
    assert len(sizes) == (1 if bootstrap == 1.0 else 3)


def test_subsets_of_heads_are_drawn_independently():
    model = DreamingTable(ENVS["any"])
    step = step_for(model, samples=5_000)
    batch = rollout(model.env, step.policy, step.x, rows=step.rows, generator=generator())
    source = generator(1)
    for probability in (0.2, 0.7, 1.0):
        one, other = (bootstrapped(batch, probability, source) for _ in range(2))
        error = 4 * math.sqrt(probability * (1 - probability) / len(batch))
        assert one.double().mean().item() == pytest.approx(probability, abs=error)
        # Drawn for each head independently.
        both = probability**2
        error = 4 * math.sqrt(both * (1 - both) / len(batch))
        assert (one & other).double().mean().item() == pytest.approx(both, abs=error)


def test_an_observation_has_none_or_several_trajectories_in_a_subset():
    model = DreamingTable(ENVS["fixed"])
    step = step_for(model, samples=3)
    batch = rollout(model.env, step.policy, step.x, rows=step.rows, generator=generator())
    source = generator()
    found = [
        tuple(batch.rows[bootstrapped(batch, 0.5, source)].bincount(minlength=2).tolist())
        for _ in range(2_000)
    ]
    # Of 3 trajectories none or one, two and three are taken in with odds 4 : 3 : 1.
    for count, odds in [(0, 0.5), (1, 0.0), (2, 0.375), (3, 0.125)]:
        share = sum(pair.count(count) for pair in found) / 4_000
        assert share == pytest.approx(odds, abs=4 * math.sqrt(0.25 / 4_000) * (odds > 0))


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
def test_a_head_takes_one_step_down_its_own_loss(env):
    """Made again by hand: VarGrad of the picked trajectories, under that head alone."""
    model = DreamingTable(env)
    policy = random_policy(env)
    exploration = started(model, policy, heads=2, bootstrap=1.0)
    step = step_for(model, policy, samples=20)
    before = [{n: p.detach().clone() for n, p in h.named_parameters()} for h in exploration.heads]
    seen = []
    exploration.optimizer.step = lambda: seen.extend(
        {n: p.grad.clone() for n, p in h.named_parameters() if p.grad is not None}
        for h in exploration.heads
    )
    batch = exploration.sample(step)
    for head, gradients, kept in zip(exploration.heads, seen, before, strict=True):
        head.zero_grad()
        lesson = score(env, head, select(batch, torch.ones(len(batch), dtype=torch.bool)))
        VarGrad(step.backward).loss(env, head, lesson).loss.backward()
        for name, parameter in head.named_parameters():
            assert torch.equal(parameter, kept[name])
            assert (parameter.grad is None) == (name not in gradients)
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad)
        assert any(gradient.abs().sum() > 0 for gradient in gradients.values())


def test_a_head_without_trajectories_stays_as_it_is():
    model = DreamingTable(ENVS["fixed"])
    exploration = started(model)
    exploration.bootstrap = 1e-12
    before = parameters_of(exploration.heads)
    exploration.sample(step_for(model))
    assert all(map(torch.equal, parameters_of(exploration.heads), before))


def test_heads_learn_and_neither_priors_nor_policy_nor_theta_do():
    model = DreamingTable(ENVS["any"])
    policy = random_policy(model.env)
    exploration = started(model, policy)
    own, theta = parameters_of([policy]), parameters_of([model])
    priors = parameters_of(head.prior for head in exploration.heads)
    learned = parameters_of(head.learned for head in exploration.heads)
    for seed in range(3):
        batch = exploration.sample(step_for(model, policy, seed=seed))
    assert all(map(torch.equal, parameters_of([policy]), own))
    assert all(map(torch.equal, parameters_of([model]), theta))
    assert all(map(torch.equal, parameters_of(h.prior for h in exploration.heads), priors))
    moved = parameters_of(head.learned for head in exploration.heads)
    assert not all(map(torch.equal, moved, learned))
    everything = [*policy.parameters(), *model.parameters()]
    everything += [p for head in exploration.heads for p in head.prior.parameters()]
    assert all(parameter.grad is None for parameter in everything)
    batch.total_log_pf().sum().backward()
    assert policy.forward_head.weight.grad.abs().sum() > 0


def test_heads_differ_before_they_have_seen_much_and_agree_on_the_posterior_after():
    model = DreamingTable(ENVS["optional exit"])
    policy = MLPPolicy(model.env, x_size=2, hidden=32)

    def mean_distance(exploration, target):
        return (distributions(exploration, model) - target).abs().sum(-1).mean().item() / 2

    posterior = model.log_posterior().exp()
    new = started(model, policy, prior_scale=3.0)
    assert mean_distance(new, distributions(new, model).mean(0)) > 0.05
    assert mean_distance(new, posterior) > 0.2
    old = started(model, policy, updates=300, prior_scale=3.0)
    assert mean_distance(old, posterior) < 0.05


def test_logits_are_those_of_both_networks():
    model = DreamingTable(ENVS["any"])
    policy = random_policy(model.env)
    head = make_head(policy, prior_scale=2.5)
    initialise(head, generator())
    x, rows = model.observations(), torch.tensor([0, 1, 1])
    state = model.structures[:3]
    found = head.logits(state, head.encode(x), rows)
    learned, prior = (p.logits(state, p.encode(x), rows) for p in (head.learned, head.prior))
    torch.testing.assert_close(found, learned + 2.5 * prior)
    assert (learned - prior).abs().min() > 1e-4


def test_heads_of_a_policy_with_cached_decoding_have_it_too():
    env = FactoredCategorical((2, 3, 2))
    head = make_head(GRUPolicy(env, x_size=2, hidden=8), prior_scale=2.0)
    initialise(head, generator())
    assert isinstance(head, CachedDecoding)
    assert not isinstance(make_head(random_policy(ENVS["any"]), 1.0), CachedDecoding)
    x, rows = torch.eye(2), torch.arange(2).repeat_interleave(20)
    batch = rollout(env, head, x, rows=rows, generator=generator())
    assert batch.log_pf.std() > 0.01
    again = score(env, head, select(batch, torch.ones(40, dtype=torch.bool)))
    torch.testing.assert_close(again.log_pf, batch.log_pf)
    # As without the cache.
    head.__class__ = type(make_head(random_policy(ENVS["any"]), 1.0))
    plain = score(env, head, select(batch, torch.ones(40, dtype=torch.bool)))
    torch.testing.assert_close(plain.log_pf, batch.log_pf)


def test_heads_begin_differently_and_as_the_generator_says():
    model = DreamingTable(ENVS["fixed"])
    policy = random_policy(model.env)
    before = torch.get_rng_state()
    one, same, other = (Thompson(heads=3) for _ in range(3))
    for exploration, seed in ((one, 0), (same, 0), (other, 1)):
        exploration.sample(step_for(model, policy, seed=seed))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(distributions(one, model), distributions(same, model))
    first, second, third = distributions(one, model)
    for a, b in [(first, second), (second, third), (first, distributions(other, model)[0])]:
        assert (a - b).abs().max() > 1e-3


def test_a_resumed_ensemble_goes_on_with_identical_numbers():
    """Its state alone is loaded, not what its heads were copied from."""
    model = DreamingTable(ENVS["any"])
    policy = random_policy(model.env)
    exploration = started(model, policy, updates=3)
    resumed = Thompson()
    resumed.load_state_dict(exploration.state_dict())
    assert resumed.state_dict().keys() == exploration.state_dict().keys()
    for seed in range(3):
        batches = [e.sample(step_for(model, policy, seed=seed)) for e in (exploration, resumed)]
        assert_same_batch(*batches)
    heads = [parameters_of(e.heads) for e in (exploration, resumed)]
    assert all(map(torch.equal, *heads))
    # The optimiser's moments too, or these would have parted.
    states = [e.optimizer.state_dict()["state"] for e in (exploration, resumed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k]["exp_avg"], states[1][k]["exp_avg"]) for k in states[0])


def test_wrong_arguments_are_refused():
    for arguments in ({"heads": 0}, {"bootstrap": 0.0}, {"bootstrap": 1.5}):
        with pytest.raises(UserError, match="at least 1 head and a bootstrap above 0"):
            Thompson(**arguments)
    for arguments in (
        {"prior_scale": -1.0},
        {"prior_scale": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
    ):
        with pytest.raises(UserError, match="prior_scale of at least 0"):
            Thompson(**arguments)
    model = DreamingTable(ENVS["fixed"])
    with pytest.raises(UserError, match="at least two trajectories"):
        Thompson().sample(step_for(model, samples=1))
    with pytest.raises(UserError, match="reset_parameters"):
        Thompson().sample(step_for(model, PosteriorPolicy(model)))
