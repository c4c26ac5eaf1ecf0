"""Grammars in the posterior suite: what can learn their posteriors, and why the rest cannot."""

import pytest
import torch

from benchmarks.posterior.compare import compare_control
from benchmarks.posterior.curves import measure_e_step
from benchmarks.posterior.suite import PosteriorSuite
from benchmarks.posterior.sweep import Options, presets
from benchmarks.posterior.training import make_data, make_e_step, make_policy
from gfn_envs import UserError
from lvms.models import models

TINY = ("pcfg-tiny", "ncfg-tiny", "energy-tiny")


def suite(**options):
    return PosteriorSuite(Options(**{"explorations": ("on-policy",), "seeds": 1, **options}))


def total_variation(e_step, x):
    return measure_e_step(e_step, x, ("total_variation",))["total_variation"]["mean"]


@pytest.mark.parametrize(
    ("task", "objective"),
    [("pcfg-tiny", "span-db"), ("ncfg-tiny", "tb"), ("energy-tiny", "vargrad")],
)
def test_a_policy_learns_each_grammars_posterior(task, objective):
    x = make_data(task)
    e_step = make_e_step(task, objective, "on-policy", x, seed=0)
    before = total_variation(e_step, x)
    for _ in range(40):
        e_step.fit(x, m_steps=0)
    assert total_variation(e_step, x) < 0.7 * before


def test_what_needs_more_than_a_chart_policy_is_left_out_with_a_reason():
    needs = {
        "db": "no state_flow, which DetailedBalance needs",
        "subtb": "no state_flow, which SubTrajectoryBalance needs",
        "fm": "no state_flow, which FlowMatching needs",
        "fl-db": "no state_flow, which ForwardLookingDetailedBalance needs",
        "fl-subtb": "no state_flow, which ForwardLookingSubTrajectoryBalance needs",
        "tlm": "no backward_logits",
        "rtb": "uniform actions, which build some trees more often",
        "rtb-vargrad": "uniform actions, which build some trees more often",
    }
    found = suite(tasks=TINY, objectives=("tb", *needs))
    assert {(cell.task, cell.objective) for cell in found.cells} == {(t, "tb") for t in TINY}
    for task in TINY:
        for objective, reason in needs.items():
            assert reason in found.left_out[task, objective, "on-policy"]


def test_span_balance_needs_scores_of_nodes():
    tasks = (*TINY, "mixture-tiny")
    found = suite(tasks=tasks, objectives=("span-db",))
    assert [cell.task for cell in found.cells] == ["pcfg-tiny", "ncfg-tiny"]
    for task, name in (
        ("energy-tiny", "EnergyGrammar"),
        ("mixture-tiny", "HierarchicalGaussianMixture"),
    ):
        reason = found.left_out[task, "span-db", "on-policy"]
        assert reason == f"{name} has no node_scores, which span-db needs."


def test_the_preset_has_every_task_with_every_objective_that_fits():
    found = PosteriorSuite(Options(**presets["grammars"]))
    for task in TINY:
        objectives = {cell.objective for cell in found.cells if cell.task == task}
        missing = {"span-db"} if task == "energy-tiny" else set()
        assert objectives == set(presets["grammars"]["objectives"]) - missing


def test_trees_that_are_merged_in_any_order_have_no_policy_yet():
    model, x = models.make("pcfg-tiny", order="any"), make_data("pcfg-tiny")
    with pytest.raises(UserError, match="builds trees from the top down"):
        make_policy(model, x, seed=0)


def test_a_policy_of_another_kind_is_refused():
    with pytest.raises(UserError, match="no tree policy 'mlp'"):
        make_policy(models.make("pcfg-tiny"), make_data("pcfg-tiny"), seed=0, name="mlp")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_policys_weights_follow_from_the_seed_alone(seed):
    model, x = models.make("ncfg-tiny"), make_data("ncfg-tiny")
    state = torch.random.get_rng_state()
    one, same, other = (make_policy(model, x, s) for s in (seed, seed, seed + 2))
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [policy.read_again.weight for policy in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("task", TINY)
@pytest.mark.parametrize(("control", "most"), [("exact", 640), ("metropolis", 1600)])
def test_samplers_without_a_policy_come_near_with_more_evaluations(task, control, most):
    few, many = (
        compare_control(task, control, 32 * each)["metrics"]["total_variation"]["mean"]
        for each in (64, most)  # evaluations for each x
    )
    assert many < 0.75 * few


@pytest.mark.parametrize(
    ("control", "reason"),
    [("mean-field", "has no mean_field"), ("gibbs", "needs the latents of a FactoredCategorical")],
)
@pytest.mark.parametrize("task", TINY)
def test_controls_that_grammars_cannot_have_say_so(task, control, reason):
    with pytest.raises(UserError, match=reason):
        compare_control(task, control, 10**6)
