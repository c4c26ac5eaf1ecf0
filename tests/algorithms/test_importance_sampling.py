"""log p(x) by importance sampling, held to the exact sum over structures."""

import math

import pytest
import torch

from algorithms import importance_sampling
from algorithms.code_grid_policy import CodeGridPolicy, RasterPolicy
from algorithms.importance_sampling import ImportanceEstimate, importance_sample
from algorithms.tree_policies import tree_policies
from gfn_envs.errors import UserError
from lvms.enumeration import EnumeratedPosterior
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.energy_marginal import estimate_log_partition
from lvms.grammars.table_grammar import TableGrammar
from lvms.models import models, observations

IMAGE = (1, 8, 8)


def problem(order: str = "fixed", n: int = 6):
    torch.manual_seed(0)
    model = models.make("dvae-tiny", 0, order)
    policy = (RasterPolicy if order == "fixed" else CodeGridPolicy)(model.env, IMAGE, 8, 16)
    return model, policy, observations(model, n)


@pytest.mark.parametrize("order", ["fixed", "any"])
def test_it_agrees_with_the_exact_marginal(order) -> None:
    model, policy, x = problem(order)
    estimate = importance_sample(model, policy, x, 20_000, torch.Generator().manual_seed(1))
    exact = model.log_marginal(x).detach()
    # Uniform samples hit each of 256 structures: no mode is missed.
    assert ((estimate.log_marginal - exact).abs() < 4.5 * estimate.standard_error).all()
    assert (estimate.standard_error < 0.1).all()
    assert (estimate.standard_error > 0).all()
    assert (estimate.elbo < estimate.few).all()
    assert (estimate.few < exact).all()


def test_the_elbo_and_the_effective_samples_are_those_of_the_proposal() -> None:
    model, policy, x = problem()
    table = model.log_joint_table(x).detach()
    weight = table - math.log(1 / 256)
    estimate = importance_sample(model, policy, x, 20_000, torch.Generator().manual_seed(2))
    error = weight.std(1) / math.sqrt(20_000)
    assert ((estimate.elbo - weight.mean(1)).abs() < 4.5 * error).all()
    relative = (weight - weight.logsumexp(1, keepdim=True)).exp() * 256
    exact_share = 1 / relative.square().mean(1)
    torch.testing.assert_close(estimate.effective_samples, exact_share, rtol=0.15, atol=0)
    assert (estimate.decoded <= 256 / 20_000).all()


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    model, policy, x = problem(n=1)
    repeated = importance_sample(
        model, policy, x.expand(200, -1, -1, -1), 400, torch.Generator().manual_seed(3)
    )
    spread = repeated.log_marginal.std().item()
    claimed = repeated.standard_error.square().mean().sqrt().item()
    # 200 repeats give the spread to about 5 %.
    assert spread == pytest.approx(claimed, rel=0.25)


def test_the_small_bound_is_the_mean_over_groups() -> None:
    log_weight = torch.randn(3, 130, generator=torch.Generator().manual_seed(0))
    estimate = ImportanceEstimate.of(log_weight, torch.tensor([130.0] * 3))
    groups = log_weight[:, :100].view(3, 2, 50).exp().mean(2).log().mean(1)
    torch.testing.assert_close(estimate.few, groups)
    one = ImportanceEstimate.of(log_weight[:, :1], torch.ones(3))
    torch.testing.assert_close(one.log_marginal, log_weight[:, 0])
    assert one.standard_error.tolist() == [0.0] * 3
    assert one.effective_samples.tolist() == [1.0] * 3


def test_how_it_is_split_changes_nothing(monkeypatch) -> None:
    model, policy, x = problem(n=4)
    finished: list[int] = []
    generator = torch.Generator()
    whole = importance_sample(model, policy, x, 64, generator.manual_seed(4), finished.append)
    monkeypatch.setattr(importance_sampling, "ROWS_AT_A_TIME", 7)
    rows = importance_sample(model, policy, x, 64, generator.manual_seed(4))
    torch.testing.assert_close(rows.log_marginal, whole.log_marginal)
    monkeypatch.setattr(importance_sampling, "TRAJECTORIES_AT_A_TIME", 30)
    parts: list[int] = []
    split = importance_sample(model, policy, x, 64, generator.manual_seed(4), parts.append)
    assert (finished, parts) == ([4], [1, 1, 1, 1])
    error = (whole.standard_error.square() + split.standard_error.square()).sqrt()
    assert ((split.log_marginal - whole.log_marginal).abs() < 4.5 * error).all()


def test_each_image_is_encoded_and_each_structure_scored_once(monkeypatch) -> None:
    model, policy, x = problem(n=3)
    encoded: list[int] = []
    scored: list[int] = []
    encode, log_joint = policy.encode, model.log_joint
    monkeypatch.setattr(policy, "encode", lambda x: (encoded.append(len(x)), encode(x))[1])
    monkeypatch.setattr(
        model, "log_joint", lambda x, z: (scored.append(len(z)), log_joint(x, z))[1]
    )
    estimate = importance_sample(model, policy, x, 5000, torch.Generator().manual_seed(5))
    assert encoded == [1, 1, 1]
    assert sum(scored) == round(estimate.decoded.sum().item() * 5000) <= 3 * 256


def test_policies_and_annealing_agree_on_what_normalises_energies_of_shapes() -> None:
    """Log Z(x) of a grammar with energies: neither way has an exact algorithm, enumeration has."""
    generator = torch.Generator().manual_seed(0)
    grammar = TableGrammar(2, 3, 4, 5, tree="top-down", seed=1)
    model = EnergyGrammar(grammar, 1.0, size=8, generator=generator)
    with torch.no_grad():
        model.energy.contribution.weight.normal_(std=2.0, generator=generator)
    x = torch.tensor([[0, 3, 1, 2, 2], [1, 1, 3, 0, -1], [2, 0, 3, -1, -1]])
    every = EnumeratedPosterior(model)
    exact = torch.cat([every.log_marginal(row[None]) for row in x]).detach()
    policy = tree_policies.make("chart", model)
    sampled = importance_sample(model, policy, x, 6000, generator)
    annealed = estimate_log_partition(model, x, 2000, 20, generator)
    for value, error in (
        (sampled.log_marginal, sampled.standard_error),
        (annealed.value, annealed.standard_error),
    ):
        assert ((value - exact).abs() < 4.5 * error).all()
        assert (error < 0.1).all()
    with torch.no_grad():
        assert (grammar.log_marginal(x) - exact).abs().min() > 0.5


def test_it_needs_a_sample() -> None:
    model, policy, x = problem()
    with pytest.raises(UserError, match="at least 1 sample"):
        importance_sample(model, policy, x, 0)
