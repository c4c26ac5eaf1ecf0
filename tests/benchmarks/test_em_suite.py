"""The EM suite: every method learns every task, from what all of them share, exactly repeatably."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from algorithms.gflownet_e_step import GFlowNetEStep
from benchmarks import cli, runner
from benchmarks.em.learner import EMLearner
from benchmarks.em.lines import LINES, OTHERS, lines_of
from benchmarks.em.methods import em_methods
from benchmarks.em.suite import EMSuite
from benchmarks.em.sweep import EMCell, Options, presets
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run, run_task, start_run
from lvms import LatentVariableModel, StartAtData
from lvms.models import models
from tests.benchmarks.runs import stop_after, without_time

pytestmark = pytest.mark.xdist_group("em_suite")  # they share undisturbed runs

TASKS, METHODS = Options().tasks, Options().methods

TINY = {
    "seeds": 2, "iterations": 5, "every": 2, "points": 40, "test_points": 30, "e_updates": 2,
    "first_e_updates": 3,
}  # fmt: skip


def start(path, **options):
    suite = EMSuite(Options(**{**TINY, **options}))
    return suite, start_run("em", suite, path)


def resume(path, workers=1):
    """As another process would: from the folder alone, with other global random states."""
    torch.manual_seed(12345)
    folder, suite = open_run("em", path)
    return run_task(suite, folder, workers=workers)


def numbers(path):
    """Every number of a run that must not depend on how it was carried out."""
    found = {}
    for cell in sorted(path.glob("cells/*/*/*")):
        lines = (cell / "metrics.jsonl").read_text().splitlines()
        found[str(cell.relative_to(path))] = (
            [without_time(json.loads(line)) for line in lines],
            without_time(json.loads((cell / "summary.json").read_text())),
        )
    found["summary"] = without_time(json.loads((path / "summary.json").read_text()))
    # Without the last column, CPU s; the dashes below the head are as many as the times are wide.
    # The second table is of equal CPU times.
    table = (path / "table.md").read_text().partition("Gap to truth at equal CPU time")[0]
    rows = [row.rsplit("|", 2)[0] for row in table.splitlines()]
    found["table"] = [row for row in rows if not row.startswith("|--")]
    return found


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of every method on every task, carried out in one process."""
    suite, folder = start(tmp_path_factory.mktemp("whole") / "run")
    run_task(suite, folder)
    return folder.path


# -- what the methods share -----------------------------------------------------------------------


def test_every_method_learns_every_task_and_is_measured(whole_run):
    suite = EMSuite(Options(**TINY))
    assert suite.left_out == {}
    assert {(c.task, c.method, c.seed) for c in suite.cells} == {
        (task, method, seed) for task in TASKS for method in METHODS for seed in range(2)
    }
    for cell in suite.cells:
        folder = RunFolder(whole_run / cell.folder)
        summary, lines = folder.read_json("summary.json"), folder.read_metrics()
        assert summary["status"] == "finished"
        assert [line["update"] for line in lines] == [2, 4, 5]
        metrics = summary["metrics"]
        without_posterior = cell.method in ("monte-carlo-em", "marginalisation")
        assert ("total_variation" in metrics) != without_posterior
        assert {"log_likelihood", "gap", "train_log_likelihood"} <= set(metrics)
        for name, metric in metrics.items():
            assert metric["mean"] == lines[-1][name]
            assert np.isfinite(list(metric.values())).all()
            assert metric["n"] == (40 if name == "train_log_likelihood" else 30)
        assert lines[-1]["likelihood_evaluations"] == summary["cost"]["likelihood_evaluations"] > 0


def test_methods_share_data_and_start_and_seeds_differ():
    suite, starts = EMSuite(Options(**TINY)), {}
    for cell in suite.cells:
        state = suite.make_learner(cell).problem.model.state_dict()
        parameters = tuple(v for t in state.values() if isinstance(t, torch.Tensor)
                           for v in t.flatten().tolist())  # fmt: skip
        assert starts.setdefault((cell.task, cell.seed), parameters) == parameters
        assert torch.equal(suite.data(cell), suite.data(EMCell(cell.task, METHODS[0], cell.seed)))
    assert len(set(starts.values())) == len(TASKS) * 2
    for task in TASKS:
        one, other = (suite.data(EMCell(task, METHODS[0], seed)) for seed in range(2))
        assert not torch.equal(one, other)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_of_the_true_parameters_is_left_in_a_start(task):
    suite = EMSuite(Options(**TINY, tasks=(task,)))
    learned, truth = suite.make_learner(suite.cells[0]).problem.model, models.make(task)
    assert isinstance(truth, StartAtData)
    for name, parameter in learned.named_parameters():
        assert not torch.isclose(parameter, truth.get_parameter(name), atol=1e-4).any()


def test_a_method_depends_neither_on_its_company_nor_on_how_often_it_is_measured(
    tmp_path, whole_run
):
    method, task = "gflownet-em", "hmm-tiny"
    suite, folder = start(tmp_path / "run", methods=(method,), tasks=(task,), seeds=1, every=1)
    run_task(suite, folder)
    ours, theirs = (RunFolder(path / suite.cells[0].folder) for path in (folder.path, whole_run))
    often = {line["update"]: without_time(line) for line in ours.read_metrics()}
    assert [without_time(line) for line in theirs.read_metrics()] == [often[i] for i in (2, 4, 5)]
    found = [without_time(f.read_json("summary.json")) for f in (ours, theirs)]
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["exact-em", "mean-field-em"])
def test_tables_that_are_made_to_measure_are_no_cost(method, tmp_path):
    costs = []
    for every in (1, 5):
        suite, folder = start(tmp_path / str(every), methods=(method,), tasks=("hmm-tiny",),
                              seeds=1, every=every)  # fmt: skip
        run_task(suite, folder)
        summary = RunFolder(folder.path / suite.cells[0].folder).read_json("summary.json")
        costs.append(summary["cost"]["likelihood_evaluations"])
    structures = {"exact-em": 3**4, "mean-field-em": 10 * 4 * 3}[method]
    assert costs == [5 * 40 * structures] * 2


def test_likelihoods_are_those_of_the_data_and_the_gap_is_to_the_truth(whole_run):
    suite = EMSuite(Options(**TINY))
    for task in TASKS:
        cell = EMCell(task, "exact-em", 1)
        learner = suite.make_learner(cell)
        saved = RunFolder(whole_run / cell.folder).read_checkpoint()
        learner.load_state_dict(saved["learner"])
        metrics = learner.measure()
        truth, learned = models.make(task), learner.problem.model
        train, test = suite._data[task, 1].train, suite._data[task, 1].test
        assert (len(train), len(test)) == (40, 30)
        with torch.no_grad():
            z = learned.env.enumerate(learned.context(train)[0])

            def brute_force(model, x, z=z):
                table = torch.stack([model.log_joint(x, s.expand(len(x), -1)) for s in z], 1)
                return table.logsumexp(1).mean().item()

            ours, best = brute_force(learned, test), brute_force(truth, test)
            assert metrics["log_likelihood"]["mean"] == pytest.approx(ours, abs=1e-4)
            assert metrics["gap"]["mean"] == pytest.approx(best - ours, abs=1e-4)
            on_train = brute_force(learned, train)
            assert metrics["train_log_likelihood"]["mean"] == pytest.approx(on_train, abs=1e-4)


# -- the same numbers -----------------------------------------------------------------------------


def test_two_workers_find_what_one_finds(tmp_path, whole_run):
    methods = ("exact-em", "monte-carlo-em", "gflownet-em", "reweighted-wake-sleep")
    suite, folder = start(tmp_path / "run", methods=methods, tasks=("sbn-tiny",), seeds=1)
    run_task(suite, folder, workers=2)
    found, expected = numbers(folder.path), numbers(whole_run)
    assert [found[cell.folder] for cell in suite.cells] == [
        expected[cell.folder] for cell in suite.cells
    ]
    assert folder.read_json("summary.json")["status"] == "finished"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_on_exactly(tmp_path, monkeypatch, whole_run, method):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    # The network's M-step has an optimiser of its own; the others' is closed-form.
    for task in ("hmm-tiny", "sbn-tiny"):
        suite, folder = start(tmp_path / task, methods=(method,), tasks=(task,), seeds=1)
        with monkeypatch.context() as patch:
            # Stopped in the middle of an update: the E-step has drawn its random numbers.
            stop_after(patch, LatentVariableModel, "mark_updated", 1 + 3, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                run_task(suite, folder)
        cell = RunFolder(folder.path / suite.cells[0].folder)
        assert cell.read_checkpoint()["updates"] == 2
        resume(folder.path)
        found, expected = numbers(folder.path), numbers(whole_run)
        assert found[suite.cells[0].folder] == expected[suite.cells[0].folder]


MORE = sorted(set(em_methods) - set(METHODS))

SPRITES = {"tasks": ("sprites-tiny",), "seeds": 1, "policy": "additive", "beta": 0.3,
           "beta_iterations": 3, "posterior_samples": 3, "m_step_points": 20}  # fmt: skip


@pytest.mark.parametrize("method", MORE)
def test_methods_beyond_the_default_ones_go_on_exactly(tmp_path, monkeypatch, method):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    suite, whole = start(tmp_path / "whole", methods=(method,), **SPRITES)
    run_task(suite, whole)
    suite, folder = start(tmp_path / "stopped", methods=(method,), **SPRITES)
    with monkeypatch.context() as patch:
        stop_after(patch, LatentVariableModel, "mark_updated", 1 + 3, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(suite, folder)
    resume(folder.path)
    found, expected = numbers(folder.path), numbers(whole.path)
    assert found[suite.cells[0].folder] == expected[suite.cells[0].folder]


def test_the_m_step_sees_what_the_options_say():
    suite = EMSuite(Options(**{**TINY, **SPRITES}, methods=("gflownet-em", "gibbs-em")))
    amortised, chains = (suite.make_learner(cell).learner for cell in suite.cells)
    assert (amortised.posterior_samples, amortised.m_step_points) == (3, 20)
    assert (chains.posterior_samples, chains.m_step_points) == (1, 0)
    assert type(amortised.e_step.policy).__name__ == "AdditivePolicy"
    powers = [amortised.e_step.exploration.beta.at(i) for i in (0, 3)]
    assert powers == [chains.e_step.beta.at(i) for i in (0, 3)] == [0.3, 1.0]


def test_drawings_of_paths_are_learned_by_the_same_policy_and_go_on_exactly(tmp_path):
    settings = {**TINY, "tasks": ("paths-tiny",), "seeds": 1, "m_step_points": 20}
    suite = EMSuite(Options(**{**presets["paths"], **settings}))
    assert not suite.left_out
    policies = set()
    for cell in suite.cells:
        halves, whole = (suite.make_learner(cell) for _ in range(2))
        x = suite.data(cell)
        for _ in range(2):
            whole.update(x)
        halves.update(x)
        torch.save(halves.state_dict(), tmp_path / "half.pt")
        resumed = suite.make_learner(cell)
        resumed.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
        resumed.update(x)
        assert suite.evaluate(resumed) == suite.evaluate(whole)
        policy = getattr(whole.learner.e_step, "policy", None)
        policies.add(type(policy).__name__)
        assert whole.measure()["gap"]["mean"] < 20
    assert policies == {"TurtlePolicy", "UniformPolicy", "NoneType"}


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, capfd):
    original = EMLearner.update

    def update(self, x):
        metrics = original(self, x)
        trained = getattr(self.learner, "e_step", None)
        return {"loss": float("nan")} if isinstance(trained, GFlowNetEStep) else metrics

    monkeypatch.setattr(EMLearner, "update", update)
    options = {"methods": ("exact-em", "gflownet-em"), "tasks": ("sbn-tiny",), "seeds": 1}
    suite, folder = start(tmp_path / "run", **options)
    table, _ = run_task(suite, folder)
    reason = "sbn-tiny, gflownet-em, seed 0: loss became nan at update 1;"
    assert f"- {reason}" in table
    assert reason in capfd.readouterr().err
    assert folder.read_json("summary.json")["status"] == "some cells failed"
    assert RunFolder(folder.path / suite.cells[0].folder).finished
    monkeypatch.undo()
    resume(folder.path)
    assert folder.read_json("summary.json")["status"] == "finished"


# -- what is learned ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_exact_em_never_loses_training_likelihood(task):
    suite = EMSuite(Options(**{**TINY, "points": 200}, tasks=(task,), methods=("exact-em",)))
    for cell in suite.cells:
        learner, values = suite.make_learner(cell), []
        for _ in range(40):
            values.append(learner.measure()["train_log_likelihood"]["mean"])
            learner.update(suite.data(cell))
        # Means of 200 numbers of single precision, a few nats each.
        assert min(np.diff(values)) > -1e-5
        assert values[-1] > values[0] + 0.05


@pytest.mark.parametrize("method", ["monte-carlo-em", "gflownet-em"])
def test_sampled_e_steps_end_where_exact_em_does(method):
    points, repeats, samples = 250, 3, 4
    suite = EMSuite(Options(tasks=("mixture-tiny",), seeds=1, points=points, iterations=30))

    def final(name, repeat):
        problem = suite.make_learner(EMCell("mixture-tiny", "exact-em", 0)).problem
        generator = torch.Generator().manual_seed(repeat)
        learner = em_methods.make(name, dataclasses.replace(problem, generator=generator))
        for _ in range(suite.num_updates):
            learner.update(problem.x)
        with torch.no_grad():
            return problem.model.log_marginal(problem.x).mean().item()

    exact = final("exact-em", 0)
    found = np.array([final(method, repeat) for repeat in range(repeats)])
    # 8 means from `samples` structures a point are off by noise that costs about 8 / (2 N k) nats
    # a point, the more the less x tells of z; the policy's own error adds as much again.
    noise = 8 / (2 * points * samples)
    error = found.std(ddof=1) / repeats**0.5
    assert found.mean() == pytest.approx(exact, abs=3 * noise + 4 * error)


# -- what is left out, what is refused, and what users add ----------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--methods gflownet-me", "no EM method 'gflownet-me'. Did you mean gflownet-em"),
        ("--tasks hmm-tyni", "There is no model 'hmm-tyni'. Did you mean hmm-tiny"),
        ("--methods exact-em exact-em", "--methods names exact-em twice"),
        ("--seeds 0", "--seeds must be at least 1"),
        ("--iterations 0", "--iterations must be at least 1"),
        ("--every 0", "--every must be at least 1"),
        ("--points 0", "--points must be at least 1"),
        ("--test-points -1", "--test-points must be at least 1"),
        ("--e-updates 0", "--e-updates must be at least 1"),
        ("--first-e-updates 0", "--first-e-updates must be at least 1"),
        ("--posterior-samples 0", "--posterior-samples must be at least 1"),
        ("--m-step-points -1", "--m-step-points must be at least 0"),
        ("--policy mpl", "There is no policy 'mpl'. Did you mean mlp"),
        ("--beta 0", "--beta must be above 0 and at most 1"),
        ("--beta 1.5", "--beta must be above 0 and at most 1"),
        ("--beta-iterations 0", "--beta-iterations must be at least 1"),
        ("--points 2 --tasks mixture-tiny", "Nothing to compare: 2 points are too few to start 4"),
        ("--tasks hmm-medium --methods exact-em", "Nothing to compare: "),
        ("--tasks hmm-tiny energy-tiny", "energy-tiny keeps to sentences of one length"),
    ],
)
def test_wrong_words(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "em", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gfnem: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_methods_that_need_a_table_are_left_out_of_larger_tasks(tmp_path):
    options = {"tasks": ("hmm-medium",), "seeds": 1, "iterations": 1}
    suite, folder = start(tmp_path / "run", **options)
    tables = {"exact-em", "annealed-em", "mean-field-em", "marginalisation"}
    assert set(suite.left_out) == {("hmm-medium", method) for method in tables}
    assert {cell.method for cell in suite.cells} == set(METHODS) - tables
    table, _ = run_task(suite, folder)
    assert "- hmm-medium, exact-em: " in table
    assert "structures are too many for an exact or mean-field E-step" in table
    for cell in suite.cells:  # without tables there is no total variation
        metrics = RunFolder(folder.path / cell.folder).read_json("summary.json")["metrics"]
        assert set(metrics) == {"log_likelihood", "gap", "train_log_likelihood"}


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setattr(em_methods, "_entries", dict(em_methods._entries))
    em_methods.register("tb-em", "benchmarks.em.methods:gflownet_em", objective="tb", epsilon=0.2)
    options = {"methods": ("exact-em", "tb-em"), "tasks": ("sbn-tiny",), "seeds": 1}
    suite, folder = start(tmp_path / "run", **options)
    e_step = suite.make_learner(suite.cells[1]).learner.e_step
    assert type(e_step.objective).__name__ == "TrajectoryBalance"
    assert e_step.exploration.exploration.epsilon.at(0) == 0.2
    table, files = run_task(suite, folder)
    assert "| tb-em" in table
    assert all(file.is_file() for file in files)


def test_the_default_grid():
    suite = EMSuite(Options())
    assert set(em_methods) - set(suite.options.methods) == {
        "gibbs-em", "gibbs-em-2", "monte-carlo-em-1", "monte-carlo-em-short",
        "gflownet-em-weighted", "gflownet-em-untempered", "gflownet-em-dreams", "reinforce-em",
        "reinforce-em-weighted", "reinforce-em-untempered", "reinforce-em-dreams",
        "reweighted-wake-sleep-tempered", "reweighted-wake-sleep-untempered",
        "reweighted-wake-sleep-dreams",
    }  # fmt: skip
    assert len(suite.cells) == len(TASKS) * len(METHODS) * suite.options.seeds
    assert len({cell.folder for cell in suite.cells}) == len(suite.cells)


def test_presets_are_runnable_grids():
    for preset in presets.values():
        suite = EMSuite(Options(**{**preset, "points": 50, "test_points": 10, "seeds": 1}))
        assert suite.left_out == {}
        assert len(suite.cells) == len(preset["tasks"]) * len(preset["methods"])


# -- the report -----------------------------------------------------------------------------------


def test_the_table_shows_means_and_the_best(whole_run):
    text = (whole_run / "table.md").read_text().partition("\n\nExact log-likelihoods")[0]
    rows = [[w.strip() for w in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("|")][2:]  # fmt: skip
    assert len(rows) == len(TASKS) * (len(METHODS) + 1)
    for task in TASKS:
        *of_methods, truth = [row for row in rows if row[0] == task]
        assert truth[1] == "true parameters"
        gaps = []
        for row in of_methods:
            finals = [RunFolder(whole_run / f"cells/{task}/{row[1]}/{seed:02d}").read_json(
                "summary.json") for seed in range(2)]  # fmt: skip
            for place, name in enumerate(("log_likelihood", "gap", "train_log_likelihood"), 2):
                values = [final["metrics"][name]["mean"] for final in finals]
                error = abs(values[0] - values[1]) / 2
                assert row[place].strip("*") == f"{np.mean(values):.4f} ± {error:.4f}"
            gaps.append(np.mean([final["metrics"]["gap"]["mean"] for final in finals]))
            assert row[6] == "2"
            at_truth = np.mean([final["metrics"][name]["mean"] for final in finals
                                for name in ("log_likelihood", "gap")]) * 2  # fmt: skip
            assert float(truth[2]) == pytest.approx(at_truth, abs=1e-4)
        bold = [row[3].startswith("**") for row in of_methods]
        assert bold == [gap == min(gaps) for gap in gaps]


@pytest.mark.parametrize("task", TASKS)
def test_the_pictures_are_not_blank(whole_run, task):
    with Image.open(whole_run / f"learning-curves-{task}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    drawn = (pixels != pixels[0, 0]).any(-1)
    assert 0.003 < drawn.mean() < 0.9
    colours = np.unique(pixels[drawn] // 32, axis=0)
    assert (np.ptp(colours, axis=1) > 1).sum() >= 5  # not merely grey


def test_every_method_has_a_line_of_its_own():
    methods = [*em_methods, "mine", "yours"]
    lines = lines_of(methods)
    assert list(lines) == methods
    assert set(em_methods) == set(LINES)
    for part in ("colour", "dashes", "marker"):
        every = [getattr(line, part) for line in [*LINES.values(), *OTHERS]]
        assert len(set(every)) == len(em_methods) + len(OTHERS)
    assert [lines["mine"], lines["yours"]] == list(OTHERS[:2])
