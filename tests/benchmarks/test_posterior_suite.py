"""The posterior suite: however it is carried out and stopped, it ends with the same numbers."""

import json

import numpy as np
import pytest
from PIL import Image

from algorithms.explorations import explorations
from benchmarks import cli, runner
from benchmarks.posterior.learner import PosteriorLearner
from benchmarks.posterior.suite import METRICS, PosteriorSuite
from benchmarks.posterior.sweep import Options
from benchmarks.run_folder import RunFolder
from benchmarks.runner import run_task
from gfn_envs import UserError
from tests.benchmarks.runs import InjectedError, stop_after, without_time
from tests.benchmarks.suites import GRID, numbers, resume, start, summaries

pytestmark = pytest.mark.xdist_group("posterior_suite")  # they share undisturbed runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folders of whole runs, carried out in one process; made once for each choice."""
    made = {}

    def run(**options):
        key = tuple(sorted(options.items()))
        if key not in made:
            suite, folder = start(tmp_path_factory.mktemp("whole") / "run", **options)
            run_task(suite, folder)
            made[key] = folder.path
        return made[key]

    return run


# -- the same numbers -----------------------------------------------------------------------------


def test_two_workers_find_what_one_finds(tmp_path, undisturbed, capfd):
    suite, folder = start(tmp_path / "run", **GRID)
    run_task(suite, folder, workers=2)
    assert numbers(folder.path) == numbers(undisturbed(**GRID))
    bar = capfd.readouterr().err
    assert f"{len(suite.cells) * 25}/{len(suite.cells) * 25}" in bar
    before = summaries(folder.path)
    resume(folder.path, workers=2)
    assert summaries(folder.path) == before


@pytest.mark.parametrize("exploration", [name for name in explorations if name != "exact-oracle"])
def test_every_exploration_goes_on_exactly(tmp_path, monkeypatch, undisturbed, exploration):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    options = {"tasks": ("mixture-tiny",), "objectives": ("tb",), "explorations": (exploration,),
               "seeds": 1, "updates": 12, "every": 4}  # fmt: skip
    suite, folder = start(tmp_path / "run", **options)
    with monkeypatch.context() as patch:
        stop_after(patch, PosteriorLearner, "update", 10, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run_task(suite, folder)
    (checkpoint,) = folder.path.glob("cells/*/*/*/*/checkpoint.pt")
    assert RunFolder(checkpoint.parent).read_checkpoint()["updates"] == 8
    resume(folder.path)
    assert numbers(folder.path) == numbers(undisturbed(**options))


def test_measuring_more_often_changes_nothing(tmp_path, undisturbed):
    suite, folder = start(tmp_path / "run", **{**GRID, "every": 1})
    run_task(suite, folder)
    for cell in suite.cells:
        often, seldom = (RunFolder(run / cell.folder) for run in (folder.path, undisturbed(**GRID)))
        lines = {line["update"]: without_time(line) for line in often.read_metrics()}
        assert list(lines) == list(range(1, 26))
        found = [without_time(line) for line in seldom.read_metrics()]
        assert [line["update"] for line in found] == [10, 20, 25]
        assert found == [lines[10], lines[20], lines[25]]
        metrics = [run.read_json("summary.json")["metrics"] for run in (often, seldom)]
        assert metrics[0] == metrics[1]


def test_the_learning_rate_falls_for_the_last_third():
    suite = PosteriorSuite(Options(**{**GRID, "updates": 9, "learning_rate": 0.02}))
    learner = suite.make_learner(suite.cells[0])
    rates = []
    for _ in range(9):
        learner.update(suite.data(suite.cells[0]))
        rates.append(learner.e_step.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02] * 6 + [0.002] * 3)


def test_trainings_differ_by_seed_and_learn(undisturbed):
    found = {}
    for cell in PosteriorSuite(Options(**GRID)).cells:
        folder = RunFolder(undisturbed(**GRID) / cell.folder)
        found[cell] = [line["total_variation"] for line in folder.read_metrics()]
        assert found[cell][-1] < found[cell][0]
        summary = folder.read_json("summary.json")
        assert set(summary["metrics"]) == set(METRICS)
        assert summary["metrics"]["total_variation"]["mean"] == found[cell][-1]
        assert summary["metrics"]["total_variation"]["n"] == 32
        assert summary["cost"]["updates"] == 25
        assert summary["cost"]["cpu_seconds"] > 0
        if cell.exploration == "on-policy":
            assert summary["cost"]["likelihood_evaluations"] == 25 * 32 * 16
    assert len({tuple(curve) for curve in found.values()}) == len(found)


# -- cells that fail ------------------------------------------------------------------------------

DAMAGED = "mixture-tiny, subtb, replay, seed 1"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_fails_is_named_and_the_others_go_on(
    tmp_path, undisturbed, workers, capfd, monkeypatch
):
    path = tmp_path / "run"
    suite, _ = start(path, **GRID)
    (damaged,) = [cell for cell in suite.cells if cell.title == DAMAGED]
    broken = RunFolder.create(path / damaged.folder, {})
    (broken.path / "checkpoint.pt").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "posterior", "--resume", "run", "--workers", str(workers)]
    assert cli.main(arguments) == 2
    output, errors = capfd.readouterr()
    lines = errors.replace("\r", "\n").splitlines()  # a bar that makes room leaves a blank one
    lines = [line for line in lines if line.strip() and "update/s" not in line]
    assert len(lines) == 2
    reason = f"{DAMAGED}: run/{damaged.folder}/checkpoint.pt is damaged"
    assert lines[0].strip().startswith(reason)
    assert lines[1].startswith("gfnem: error: some cells failed; ")
    assert f"- {reason}" in output
    assert f"- {reason}" in (path / "table.md").read_text()
    summary = json.loads((path / "summary.json").read_text())
    assert summary["status"] == "some cells failed"
    failed = [cell for cell in summary["cells"] if cell["status"] == "failed"]
    assert [(c["objective"], c["exploration"], c["seed"]) for c in failed] == [
        ("subtb", "replay", 1)
    ]
    assert len(summaries(path)) == len(suite.cells) - 1
    (broken.path / "checkpoint.pt").unlink()  # it begins anew, and the others are as they were
    before = summaries(path)
    assert cli.main(arguments) == 0
    assert numbers(path) == numbers(undisturbed(**GRID))
    assert before.items() <= summaries(path).items()


def test_training_that_diverges_and_errors_of_any_kind_are_failures(tmp_path, monkeypatch, capfd):
    original = PosteriorLearner.update

    def update(self, x):
        metrics = original(self, x)
        if type(self.e_step.objective).__name__ == "ReverseKL":
            return {"loss": float("nan")}
        if type(self.e_step.exploration).__name__ == "Replay":
            raise InjectedError("not foreseen")
        return metrics

    monkeypatch.setattr(PosteriorLearner, "update", update)
    suite, folder = start(tmp_path / "run", **{**GRID, "seeds": 1, "tasks": ("sbn-tiny",)})
    table, _ = run_task(suite, folder)
    errors = capfd.readouterr().err
    for line in (
        "sbn-tiny, reverse-kl, on-policy, seed 0: loss became nan at update 1;",
        "sbn-tiny, subtb, replay, seed 0: InjectedError: not foreseen (see cells/",
    ):
        assert line in table
        assert line in errors
    assert (
        "raise InjectedError"
        in (folder.path / "cells/sbn-tiny/subtb/replay/00/error.txt").read_text()
    )
    assert len(summaries(folder.path)) == 1


def test_a_suite_of_which_every_cell_fails_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(PosteriorLearner, "update", lambda *_: {"loss": float("nan")})
    suite, folder = start(tmp_path / "run", **{**GRID, "seeds": 1})
    table, files = run_task(suite, folder)
    assert table.count("loss became nan") == len(suite.cells)
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_the_folder_ends_the_suite(tmp_path, workers, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start(tmp_path / "run", **GRID)
    (tmp_path / "run/cells").write_text("a file")
    status = cli.main(["bench", "posterior", "--resume", "run", "--workers", str(workers)])
    assert status == 2
    errors = capfd.readouterr().err.replace("\r", "\n").splitlines()
    lines = [line for line in errors if line.strip() and "update/s" not in line]
    assert len(lines) == 1
    assert "Once that is mended, continue with: gfnem bench posterior --resume run" in lines[0]
    assert (tmp_path / "run/cells").read_text() == "a file"


# -- what is left out, and the report -------------------------------------------------------------


def test_what_does_not_fit_together_is_left_out_and_named(undisturbed):
    suite = PosteriorSuite(Options(**GRID))
    assert set(suite.left_out) == {(task, "reverse-kl", "replay") for task in GRID["tasks"]}
    assert len(suite.cells) == 2 * 3 * 2
    assert not list(undisturbed(**GRID).glob("cells/*/reverse-kl/replay"))
    table = (undisturbed(**GRID) / "table.md").read_text()
    names = "mixture-tiny, reverse-kl, replay; sbn-tiny, reverse-kl, replay"
    assert f"- {names}: ReverseKL is right only for trajectories drawn from the policy" in table


def test_nothing_that_fits_together_is_a_user_error():
    with pytest.raises(UserError, match="Nothing to compare: ReverseKL is right only"):
        PosteriorSuite(Options(objectives=("reverse-kl",), explorations=("replay",)))


def test_the_default_grid():
    suite = PosteriorSuite(Options())
    # 6 x 5 x 3 x 3, less reverse KL off-policy
    assert len(suite.cells) == 270 - 4 * 3 * 3
    assert len({cell.folder for cell in suite.cells}) == len(suite.cells)


def test_the_table_and_the_pictures(undisturbed):
    path = undisturbed(**GRID)
    text = (path / "table.md").read_text()
    rows = [[w.strip() for w in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("|")][2:]  # fmt: skip
    assert len(rows) == 6
    for task in GRID["tasks"]:
        of_task = [row for row in rows if row[0] == task]
        means = []
        for row in of_task:
            values = [
                RunFolder(path / "cells" / "/".join(row[:3]) / f"{seed:02d}").read_json(
                    "summary.json"
                )["metrics"]["total_variation"]["mean"]
                for seed in range(2)
            ]
            means.append(np.mean(values))
            assert row[3].strip("*") == f"{np.mean(values):.4f}"
            assert row[4] == f"{abs(values[0] - values[1]) / 2:.4f}"
            assert row[5:7] == ["2", "25"]
        bold = [row[3].startswith("**") for row in of_task]
        assert bold == [mean == min(means) for mean in means]
        pixels = np.asarray(Image.open(path / f"heat-map-{task}.png").convert("RGB")).astype(int)
        assert min(pixels.shape[:2]) > 150
        assert (np.ptp(pixels[::4, ::4].reshape(-1, 3), axis=1) > 60).any()  # not merely grey
