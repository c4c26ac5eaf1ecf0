"""The tree posterior suite: what it measures, and that it goes on exactly where it was stopped."""

import json

import pytest
import torch

from algorithms.muon_adam import MuonAdam
from algorithms.tree_policies import tree_policies
from benchmarks import cli, runner
from benchmarks.posterior.evaluation import Evaluation
from benchmarks.posterior.metrics import measure
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run, run_task, start_run
from benchmarks.tree_posterior import log_partition
from benchmarks.tree_posterior.learner import TreePosteriorLearner
from benchmarks.tree_posterior.problem import tree_problems
from benchmarks.tree_posterior.report import pair_styles
from benchmarks.tree_posterior.suite import TreePosteriorSuite
from benchmarks.tree_posterior.sweep import Options, presets
from benchmarks.tree_posterior.training import make_e_step, make_problem
from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.errors import UserError
from lvms.grammars.table_grammar import TableGrammar
from tests.benchmarks.runs import stop_after, without_time

pytestmark = pytest.mark.xdist_group("tree_posterior")  # they share grammars

SMALL = {
    "tasks": ("ncfg-peaked",), "pairs": ("chart/span-db", "chart/tb+sleep", "chart/fl-subtb"),
    "seeds": 2, "updates": (7,), "rounds": 3,
}  # fmt: skip


def start(path, **changes):
    suite = TreePosteriorSuite(Options(**{**SMALL, **changes}))
    return suite, start_run("tree-posterior", suite, path)


def numbers(path):
    return {
        str(file.relative_to(path)): [
            without_time(json.loads(line)) for line in file.read_text().splitlines()
        ]
        for file in path.rglob("metrics.jsonl")
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    suite, folder = start(tmp_path_factory.mktemp("whole") / "run")
    table, files = run_task(suite, folder)
    return suite, folder, table, files


# -- grammars and sentences -----------------------------------------------------------------------


@pytest.mark.parametrize("task", [name for name in tree_problems if name != "energy"])
def test_sentences_and_dreams_have_all_lengths_alike(task):
    problem = make_problem(task, "chart")
    for x, count in ((problem.training, 1000), (problem.held_out, 25)):
        assert torch.bincount((x >= 0).sum(1)).tolist() == [0] * 3 + [count] * 8
    x, z = problem.model.sample(4000, torch.Generator().manual_seed(0))
    of_length = torch.bincount((x >= 0).sum(1), minlength=11)[3:]
    assert (of_length - 500).abs().max() < 5 * (500 * 7 / 8) ** 0.5
    assert problem.model.log_joint(x, z).isfinite().all()
    again = make_problem(task, "forest")
    assert torch.equal(again.held_out, problem.held_out)
    assert isinstance(again.model.env, BottomUpTree)
    assert again.model.rules().conditioned_on_parent == task.startswith("ncfg")


@pytest.mark.parametrize("task", ["cfg-peaked", "ncfg-peaked"])
def test_peaked_posteriors_are_broad_all_the_same(task):
    problem = make_problem(task, "chart")
    with torch.no_grad():
        z = problem.model.sample_posterior(problem.held_out, 16, torch.Generator().manual_seed(0))
        x = problem.held_out.repeat_interleave(16, 0)
        entropy = -problem.model.posterior_log_prob(x, z.flatten(0, 1)).mean()
    assert 3 < entropy < 8


# -- metrics --------------------------------------------------------------------------------------


def test_gaps_are_the_divergences():
    model = TableGrammar(2, 2, 4, 4, 4, tree="top-down", seed=1)
    torch.manual_seed(0)
    policy = tree_policies.make("chart", model, embedding=4, encoder_size=4, hidden=4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    x, _ = model.sample(6, torch.Generator().manual_seed(0))
    evaluation = Evaluation(model, policy, x, k=4000, generator=torch.Generator().manual_seed(0))
    found = measure(evaluation, ["reverse_kl", "elbo_gap", "forward_kl", "eubo_gap"])
    errors = {
        "elbo_gap": evaluation.log_weights.std() / len(evaluation.log_weights.flatten()) ** 0.5,
        "eubo_gap": evaluation.exact_log_weights.std() / 24_000**0.5,
    }
    for exact, gap in (("reverse_kl", "elbo_gap"), ("forward_kl", "eubo_gap")):
        assert found[exact]["mean"] > 0.05
        assert abs(found[exact]["mean"] - found[gap]["mean"]) < 5 * errors[gap]


# -- trainings ------------------------------------------------------------------------------------


def test_rounds_share_the_updates():
    suite = TreePosteriorSuite(Options(**SMALL))
    learner = suite.make_learner(suite.cells[0])
    made = []
    for _ in range(3):
        learner.update(suite.data(suite.cells[0]))
        made.append(learner.e_step.updates)
    assert made == [2, 4, 7]


def test_options_reach_the_training():
    options = {"learning_rate": 2e-3, "batch_size": 3, "optimizer": "muon"}
    suite = TreePosteriorSuite(Options(**SMALL, **options))
    learner = suite.make_learner(suite.cells[0])
    assert isinstance(learner.e_step.optimizer, MuonAdam)
    assert {group["lr"] for group in learner.e_step.optimizer.param_groups} == {2e-3}
    assert learner.e_step.batch_size == 3


def test_training_comes_nearer_to_the_posterior():
    suite = TreePosteriorSuite(
        Options(**{**SMALL, "tasks": ("cfg-peaked",), "pairs": ("chart/span-db",),
                   "updates": (60,), "rounds": 1})
    )  # fmt: skip
    learner = suite.make_learner(suite.cells[0])
    before = suite.final_metrics(learner)
    learner.update(suite.data(suite.cells[0]))
    after = suite.final_metrics(learner)
    assert before["elbo_gap"]["n"] == 200
    for gap in ("elbo_gap", "eubo_gap"):
        error = before[gap]["standard_error"] + after[gap]["standard_error"]
        assert after[gap]["mean"] < before[gap]["mean"] - 3 * error
    assert after["ess"]["mean"] > before["ess"]["mean"]


def test_updates_are_as_many_as_fit_into_the_time():
    suite = TreePosteriorSuite(
        Options(tasks=("cfg",), pairs=("chart/span-db", "chart/sleep"), cpu_seconds=2.0)
    )
    updates = suite.options.updates
    assert len(updates) == 2
    assert all(6 <= number < 2000 for number in updates)
    cells = {cell.objective: suite.policy_updates(cell) for cell in suite.cells}
    assert list(cells.values()) == list(updates)
    again = TreePosteriorSuite(suite.options)  # as a resumed run makes it
    assert again.options == suite.options


def test_dreams_stand_beside_an_objective_or_alone():
    beside = make_e_step("cfg", "chart", "tb+sleep", 0)
    alone = make_e_step("cfg", "chart", "sleep", 0)
    assert beside.sleep is not None
    assert alone.sleep is None
    x = make_problem("cfg", "chart").training
    assert beside.fit(x, 0)["loss"] > 0
    assert alone.fit(x, 0)["loss"] > 0


def test_energies_leave_only_enumeration(tmp_path, capsys):
    suite, folder = start(
        tmp_path / "run", tasks=("energy",), pairs=("chart/vargrad", "chart/span-db"), seeds=1,
        updates=(60,), rounds=2,
    )  # fmt: skip
    table, _ = run_task(suite, folder)
    assert "EnergyGrammar has no node_scores, which span-db needs" in table
    threads = torch.get_num_threads()
    assert log_partition.main([str(folder.path), "--samples", "150"]) == 0
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert (folder.path / "log-z.md").read_text() == printed
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in printed.splitlines() if line.startswith("| energy")]  # fmt: skip
    (annealed, before, after) = rows
    assert [row[2] for row in rows] == ["50 Gibbs steps", "untrained", "vargrad"]
    assert float(annealed[5]) > float(before[5])
    # The error is as large as it says: the mean of |error| is sqrt(2 / pi) standard errors.
    for row in rows:
        assert 0.3 < float(row[3]) / float(row[4]) < 1.5
    assert float(after[5]) > float(before[5])
    assert log_partition.main([str(tmp_path / "nothing")]) == 2


# -- runs -----------------------------------------------------------------------------------------


def test_the_table_and_the_picture(undisturbed):
    suite, folder, table, files = undisturbed
    assert [file.name for file in files] == ["table.md", "curves.png"]
    assert all(file.stat().st_size > 500 for file in files)
    head, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    columns = [column.strip() for column in head.strip("|").split("|")]
    assert columns[3:7] == ["KL(q‖p) untrained", "KL(q‖p) at 2 updates", "at 7 updates",
                            "over sentences"]  # fmt: skip
    assert [row.split("|")[2].strip() for row in rows] == ["chart", "chart"]
    for row, objective in zip(rows, ("span-db", "tb+sleep"), strict=True):
        cells = [folder.path / f"cells/ncfg-peaked/chart/{objective}/0{seed}" for seed in (0, 1)]
        found = [RunFolder(cell).read_json("summary.json")["metrics"] for cell in cells]
        values = [metrics["elbo_gap"]["mean"] for metrics in found]
        shown = row.strip("|").split("|")[5].strip().strip("*")
        assert shown == f"{sum(values) / 2:.3f} ± {abs(values[0] - values[1]) / 2:.3f}"
        assert row.strip("|").split("|")[9].strip() == "7"
    assert "ChartPolicy has no state_flow, which ForwardLookingSubTrajectoryBalance needs" in table
    assert suite.left_out


def test_no_two_pairs_look_alike():
    pairs = presets["whole"]["pairs"]
    styles = pair_styles(pairs)
    assert len({str(style) for style in styles.values()}) == len(pairs)
    assert styles["chart/tb"]["color"] == styles["forest/tb+sleep"]["color"]
    assert styles["chart/tb"]["linestyle"] == styles["chart/sleep"]["linestyle"]


def test_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    suite, folder = start(tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_after(patch, TreePosteriorLearner, "update", 5, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(suite, folder)
    torch.manual_seed(12345)
    folder, suite = open_run("tree-posterior", folder.path)
    run_task(suite, folder)
    assert numbers(folder.path) == numbers(undisturbed[1].path)


def test_the_page_names_the_best(undisturbed):
    _, folder, _, _ = undisturbed
    assert cli.main(["report", str(folder.path)]) == 0
    text = (folder.path / "report.md").read_text()
    assert "Tree posterior suite" in text
    assert "KL(q‖p)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "chart"], "policy and an objective each"),
        (["--pairs", "chrat/tb"], "chrat"),
        (["--pairs", "chart/tb", "chart/tb"], "--pairs names chart/tb twice"),
        (["--tasks", "cgf"], "cgf"),
        (["--cpu-seconds", "0"], "--cpu-seconds must be a positive number"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--updates", "2"], "--updates must be at least --rounds"),
        (["--pairs", "chart/fl-subtb", "--updates", "9"], "Nothing to compare"),
        (["--pairs", "chart/elbo", "--updates", "9"], "elbo"),
    ],
)
def test_mistakes_are_named_in_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ["--tasks", "cfg", "--pairs", "chart/tb"]
    assert cli.main(["bench", "tree-posterior", *base, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_an_objective_refuses_a_policy_that_lacks_what_it_needs():
    with pytest.raises(UserError, match=r"expands spans.* ForestPolicy is none"):
        make_e_step("cfg", "forest", "span-db", 0)
