"""The runner: a run that was stopped anywhere ends with the numbers of one that was not."""

import dataclasses
import json
import multiprocessing
import threading

import pytest
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from algorithms.em import EM
from benchmarks import runner
from benchmarks.hierarchical_mixture import report
from benchmarks.hierarchical_mixture.sweep import METHODS
from benchmarks.hierarchical_mixture.task import HierarchicalMixture
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run, run_task, start_run
from gfn_envs import UserError
from lvms import HierarchicalGaussianMixture
from lvms.model import LatentVariableModel
from tests.benchmarks.runs import (
    NAME,
    InjectedError,
    copy_run,
    every_method,
    numbers,
    stop_after,
    stray_files,
    tiny_options,
    tiny_task,
)


@pytest.fixture(autouse=True)
def checkpoints_after_every_update(monkeypatch):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Drawing is most of the time of a tiny run; test_cli.py looks at the real pictures."""
    for name in ("draw_assignments", "draw_curves"):
        monkeypatch.setattr(report, name, lambda *_: Figure(figsize=(1, 1)))


def start(path, **changes):
    options = tiny_options(**changes)
    task = HierarchicalMixture(options)
    return task, start_run(NAME, task, path)


def resume(path):
    """As another process would: from the folder alone, with other global random states."""
    torch.manual_seed(12345)
    folder, task = open_run(NAME, path)
    return run_task(task, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Numbers of whole runs, made once for each choice of options."""
    made = {}

    def run(**changes):
        key = tuple(sorted(changes.items()))
        if key not in made:
            task, folder = start(tmp_path_factory.mktemp("whole") / "run", **changes)
            run_task(task, folder)
            made[key] = numbers(folder.path)
        return made[key]

    return run


def stopped(path, monkeypatch, owner, name, calls, **changes):
    """Starts a run that stops in the middle of a call; returns its path."""
    task, folder = start(path, **changes)
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls)
        with pytest.raises(InjectedError):
            run_task(task, folder)
    return folder.path


# -- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [0, 1, 2])
@every_method
def test_resumes_in_the_middle_of_an_update(tmp_path, monkeypatch, undisturbed, method, updates):
    changes = {"methods": (method,)}
    # The E-step is made and has drawn from the generator; the M-step is under way.
    path = stopped(tmp_path / "run", monkeypatch, LatentVariableModel, "mark_updated",
                   updates + 1, **changes)  # fmt: skip
    cell = RunFolder(path / "cells" / method / "00")
    assert len(cell.read_metrics()) == updates
    resume(path)
    assert numbers(path) == undisturbed(**changes)
    assert stray_files(path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "any", "objective": "tb", "backward": "learned"},
        {"order": "any", "backward": "uniform-trajectories", "posterior_samples": 2},
        {"loss_bound": (100.0, 60.0), "e_updates": 60},
        {"m_step": "gradient", "objective": "tb", "batch_size": 0, "samples_per_x": 1},
    ],
    ids=["learned_backward", "two_samples", "adaptive", "gradient"],
)
def test_resumes_every_part_of_gflownet_em(tmp_path, monkeypatch, undisturbed, changes):
    changes["methods"] = ("gflownet-em",)
    path = stopped(tmp_path / "run", monkeypatch, LatentVariableModel, "mark_updated", 3, **changes)
    resume(path)
    assert numbers(path) == undisturbed(**changes)


def test_resumes_without_any_checkpoint_or_with_an_old_one(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    changes = {"methods": ("exact-em", "gflownet-em")}
    path = stopped(tmp_path / "run", monkeypatch, EM, "update", 5, **changes)
    cell = RunFolder(path / "cells" / "gflownet-em" / "00")
    assert len(cell.read_metrics()) == 2
    assert cell.read_checkpoint() is None
    resume(path)
    assert numbers(path) == undisturbed(**changes)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (RunFolder, "append_metrics", 4),
        (RunFolder, "write_checkpoint", 4),
        (RunFolder, "write_json", 2),  # a cell's summary, after its last checkpoint
        (HierarchicalMixture, "final_metrics", 1),
        (HierarchicalMixture, "make_learner", 1),
        (HierarchicalMixture, "report", 0),
        (RunFolder, "write_figure", 0),
    ],
)
def test_resumes_between_updates(tmp_path, monkeypatch, undisturbed, owner, name, calls):
    changes = {"methods": ("monte-carlo-em", "gflownet-em")}
    task, folder = start(tmp_path / "run", **changes)
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls)
        with pytest.raises(InjectedError):
            run_task(task, folder)
    assert not folder.finished
    resume(folder.path)
    assert numbers(folder.path) == undisturbed(**changes)


def test_resumes_more_than_once_and_after_half_a_line(tmp_path, monkeypatch, undisturbed):
    changes = {"methods": ("gflownet-em",)}
    path = stopped(tmp_path / "run", monkeypatch, LatentVariableModel, "mark_updated", 2, **changes)
    with (path / "cells/gflownet-em/00/metrics.jsonl").open("a") as file:
        file.write('{"update": 2, "lo')
    with monkeypatch.context() as patch:
        stop_after(patch, EM, "update", 1)
        with pytest.raises(InjectedError):
            resume(path)
    resume(path)
    assert numbers(path) == undisturbed(**changes)


def test_a_cell_that_had_not_got_its_config_is_begun_anew(tmp_path, undisturbed):
    changes = {"methods": ("exact-em",)}
    task, folder = start(tmp_path / "run", **changes)
    begun = folder.path / "cells/exact-em/00"
    begun.mkdir(parents=True)
    (begun / ".config.json.new").write_text('{"meth')
    run_task(task, folder)
    assert numbers(folder.path) == undisturbed(**changes)
    assert stray_files(folder.path) == []


def test_runs_repeat_and_other_seeds_differ(tmp_path, undisturbed):
    changes = {"methods": ("monte-carlo-em", "gflownet-em")}
    numbers_of = {}
    for name, seed in (("again", 0), ("other", 1)):
        task, folder = start(tmp_path / name, seed=seed, **changes)
        run_task(task, folder)
        numbers_of[name] = numbers(folder.path)
    assert numbers_of["again"] == undisturbed(**changes)
    for method in changes["methods"]:
        ours, theirs = (numbers_of[name][method, "00"][0] for name in ("again", "other"))
        assert all(a != b for a, b in zip(ours, theirs, strict=True))


def test_a_method_does_not_depend_on_its_company(undisturbed):
    alone = undisturbed(methods=("gflownet-em",))
    together = undisturbed(methods=("monte-carlo-em", "gflownet-em"))
    assert alone["gflownet-em", "00"] == together["gflownet-em", "00"]


def test_methods_share_their_initialisations_and_these_differ():
    task = tiny_task(initialisations=3)
    starts = {
        (cell.method, cell.initialisation): tuple(
            task.make_learner(cell).model.means.flatten().tolist()
        )
        for cell in task.cells
    }
    assert len(starts) == len(METHODS) * 3
    assert len(set(starts.values())) == 3
    for (_, initialisation), means in starts.items():
        assert means == starts["exact-em", initialisation]


# -- what is not done twice -----------------------------------------------------------------------


def test_finished_cells_are_not_run_again(tmp_path, monkeypatch):
    path = stopped(tmp_path / "run", monkeypatch, EM, "update", 7)
    first = path / "cells/exact-em/00"
    before = {file: file.stat().st_mtime_ns for file in first.iterdir()}
    assert (first / "summary.json").is_file()
    updated = []
    original = EM.update
    monkeypatch.setattr(EM, "update", lambda self, x: updated.append(self) or original(self, x))
    resume(path)
    assert len(updated) == len(METHODS) * 3 - 7
    assert {file: file.stat().st_mtime_ns for file in first.iterdir()} == before
    resume(path)
    assert len(updated) == len(METHODS) * 3 - 7


def test_costs_go_on_where_they_stopped(tmp_path, monkeypatch):
    path = stopped(tmp_path / "run", monkeypatch, EM, "update", 2, methods=("gflownet-em",))
    resume(path)
    cell = RunFolder(path / "cells/gflownet-em/00")
    seconds = [line["cpu_seconds"] for line in cell.read_metrics()]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    cost = cell.read_json("summary.json")["cost"]
    assert cost["cpu_seconds"] == seconds[-1]
    assert cost["updates"] == 3
    assert cost["likelihood_evaluations"] == 3 * 2 * 16 * 4  # E-updates, points, samples


def test_checkpoints_are_seconds_apart(tmp_path, monkeypatch):
    task, folder = start(tmp_path / "run", methods=("exact-em",), iterations=10)
    clock, saved = [0.0], []
    update, write = EM.update, RunFolder.write_checkpoint

    def slow_update(self, x):
        clock[0] += 1.0
        return update(self, x)

    def write_checkpoint(self, state):
        saved.append(state["updates"])
        write(self, state)

    monkeypatch.setattr(EM, "update", slow_update)
    monkeypatch.setattr(RunFolder, "write_checkpoint", write_checkpoint)
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", 2.5)
    run_task(task, folder)
    assert saved == [3, 6, 9, 10]


# -- what is refused ------------------------------------------------------------------------------


def test_diverged_training_is_a_user_error(tmp_path, monkeypatch):
    task, folder = start(tmp_path / "run", methods=("exact-em",))

    def diverge(self, x, samples):
        with torch.no_grad():
            self.means.fill_(torch.nan)

    monkeypatch.setattr(HierarchicalGaussianMixture, "maximise", diverge)
    with pytest.raises(
        UserError, match=r"exact-em, initialisation 0: log_likelihood became nan at update 1;"
    ):
        run_task(task, folder)
    assert not folder.finished


def test_a_diverging_policy_is_a_user_error(tmp_path):
    task, folder = start(tmp_path / "run", methods=("gflownet-em",), learning_rate=(1e30,))
    with pytest.raises(UserError, match=r"gflownet-em.* loss became .*lower learning rate"):
        run_task(task, folder)


def test_a_damaged_checkpoint_is_a_user_error_and_its_advice_works(
    tmp_path, monkeypatch, undisturbed
):
    changes = {"methods": ("gflownet-em",)}
    path = stopped(tmp_path / "run", monkeypatch, EM, "update", 2, **changes)
    cell = path / "cells/gflownet-em/00"
    (cell / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=f"delete {cell} to run that part anew"):
        resume(path)
    for file in cell.iterdir():
        file.unlink()
    cell.rmdir()
    resume(path)
    assert numbers(path) == undisturbed(**changes)


def test_a_folder_that_is_in_use_is_refused(tmp_path):
    task, folder = start(tmp_path / "run")
    with folder.locked(), pytest.raises(UserError, match="Another process is running"):
        run_task(task, folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"task": "another-task", "options": {}}, "holds a run of another-task, not of"),
        ({"model_type": "bert"}, "holds a run of something else"),
        ({"task": NAME, "options": {"seed": 0}}, "made by another version"),
        ({"task": NAME}, "made by another version"),
    ],
)
def test_foreign_folders_are_refused(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        open_run(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_options_come_back_from_the_folder(tmp_path):
    options = tiny_options(loss_bound=(2.0, 0.5), standardise=False, min_log_reward=-20.0)
    start_run(NAME, HierarchicalMixture(options), tmp_path)
    assert open_run(NAME, tmp_path)[1].options == options
    plain = tiny_options()  # without a floor: -inf must survive JSON
    start_run(NAME, HierarchicalMixture(plain), tmp_path / "plain")
    assert dataclasses.astuple(
        open_run(NAME, tmp_path / "plain")[1].options
    ) == dataclasses.astuple(plain)


def test_a_copied_run_is_resumed_where_it_lies_now(tmp_path, monkeypatch, undisturbed):
    changes = {"methods": ("gflownet-em",)}
    path = stopped(tmp_path / "run", monkeypatch, EM, "update", 1, **changes)
    moved = copy_run(path, tmp_path / "elsewhere")
    resume(moved)
    assert numbers(moved) == undisturbed(**changes)
    assert not (path / "summary.json").exists()


def test_data_that_changed_since_the_start_are_refused(tmp_path):
    data = tmp_path / "points.csv"
    data.write_text("".join(f"{i % 7},{i % 5}\n" for i in range(40)))
    start(tmp_path / "run", data=str(data))
    assert len(open_run(NAME, tmp_path / "run")[1].train_data) == 32
    data.write_text("".join(f"{i % 7},{i % 6}\n" for i in range(40)))
    with pytest.raises(UserError, match=r"not those that the run .* was started with"):
        open_run(NAME, tmp_path / "run")


def test_bars_of_a_worker_have_no_semaphore(tmp_path, monkeypatch):
    """One would outlive a worker that is killed, and be complained of when the run ends."""
    monkeypatch.setattr(tqdm, "_lock", tqdm.get_lock())  # afterwards it is as it was
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    ours, theirs = multiprocessing.Pipe()
    runner._work(theirs, NAME, tmp_path / "nowhere", False)
    assert "cannot see" in str(ours.recv().error)
    assert isinstance(tqdm.get_lock(), type(threading.RLock()))
