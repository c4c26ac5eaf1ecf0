"""The EM suite's tasks from data: runs like any other, one after the other, in one folder."""

import json

import pytest
from matplotlib.figure import Figure

from algorithms.minibatch_learner import MinibatchLearner
from benchmarks import cli, runner
from benchmarks.discrete_vae import report as dvae_report
from benchmarks.discrete_vae.task import DiscreteVAETask
from benchmarks.em_data import suite, tasks
from benchmarks.em_data.suite import Options
from benchmarks.em_data.tasks import data_tasks, register_data_task
from benchmarks.grammar import report as grammar_report
from benchmarks.grammar.task import GrammarTask
from tests.benchmarks.grammar_runs import TINY, numbers, write_treebank
from tests.benchmarks.reports import run_report
from tests.benchmarks.runs import stop_after

METHODS = ("marginalisation", "monte-carlo")

IMAGES = {
    "channels": 4, "hidden": 8, "rounds": 2, "every": 1, "updates": (4,), "batch_size": 8,
    "validation_images": 6, "validation_samples": 4, "samples": 6, "test_images": 8,
    "methods": ("mean-field",), "codes": 3, "code_dim": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def treebank(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def tiny_tasks(monkeypatch):
    """`bank` needs a treebank, `pictures` is of digits."""
    for module in (grammar_report, dvae_report):
        for name in ("draw_learning_curves", "draw_curves", "draw_parses", "draw_reconstructions",
                     "draw_samples"):  # fmt: skip
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: Figure(figsize=(1, 1)))
    monkeypatch.setitem(GrammarTask.presets, "bank", {**TINY, "data": "", "methods": METHODS})
    monkeypatch.setitem(DiscreteVAETask.presets, "pictures", IMAGES)
    monkeypatch.setattr(tasks, "data_tasks", dict(data_tasks))
    register_data_task("bank", "grammar", needs_treebank=True)
    register_data_task("pictures", "discrete-vae")


def command(*words):
    return cli.main(["bench", "em-data", *map(str, words)])


def start(out, treebank, *words):
    return command("--tasks", "bank", "pictures", "--treebank", treebank, "--seeds", 1,
                   "--out", out, *words)  # fmt: skip


def test_each_task_is_the_run_that_its_preset_is(tmp_path, capsys, treebank):
    out, alone = tmp_path / "suite", tmp_path / "alone"
    assert start(out, treebank) == 0
    printed = capsys.readouterr().out
    assert (
        printed.index("bank\n") < printed.index("| marginalisation") < printed.index("pictures\n")
    )
    assert f"gfnem report {out / 'bank'}" in printed
    text = (out / "table.md").read_text()
    assert "## bank" in text
    assert "| monte-carlo" in text.partition("## pictures")[0]
    assert "| mean-field" in text.partition("## pictures")[2]
    words = ["--preset", "bank", "--data", treebank, "--out", str(alone)]
    assert cli.main(["run", "grammar", *words]) == 0
    assert numbers(out / "bank") == numbers(alone)
    page, _ = run_report(capsys, out / "bank")
    assert "2 of 2 cells finished" in page
    assert "name the folder of one" in run_report(capsys, out)


def test_a_stopped_suite_goes_on_exactly(tmp_path, monkeypatch, capsys, treebank):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert start(whole, treebank) == 0
    with monkeypatch.context() as patch:
        # In the first round of the second task.
        stop_after(patch, MinibatchLearner, "update", 9, KeyboardInterrupt)
        assert start(stopped, treebank) == 2
    assert f"gfnem bench em-data --resume {stopped}" in capsys.readouterr().err
    assert (stopped / "bank" / "table.md").is_file()
    assert not (stopped / "pictures" / "table.md").exists()
    assert command("--resume", stopped) == 0
    assert numbers(stopped / "bank") == numbers(whole / "bank")
    per_image = "cells/mean-field/00/per-image.json"
    found, expected = ((path / "pictures" / per_image).read_text() for path in (stopped, whole))
    assert found == expected


def test_a_suite_killed_before_its_tasks_had_folders_goes_on(tmp_path, monkeypatch, treebank):
    out = tmp_path / "suite"
    with monkeypatch.context() as patch:
        stop_after(patch, suite, "start_run", 1, KeyboardInterrupt)
        assert start(out, treebank) == 2
    assert not (out / "pictures").exists()
    assert command("--resume", out) == 0
    assert (out / "pictures" / "table.md").is_file()


def test_methods_seeds_and_time_reach_the_tasks_that_know_them(treebank):
    options = Options(("bank", "pictures"), ("vimco", "gflownet-em", "gibbs"), 2, 5, 0.25, treebank)
    options.check()
    of_bank, of_pictures = (options.of(tasks.find_data_task(name)) for name in options.tasks)
    assert of_bank.methods == ("gflownet-em", "gibbs")
    assert of_pictures.methods == ("vimco", "gflownet-em")
    for one in (of_bank, of_pictures):
        assert (one.seeds, one.first_seed, one.cpu_minutes) == (2, 5, 0.25)
    assert Options(("bank",), treebank=treebank).of(tasks.find_data_task("bank")).methods == METHODS


@pytest.mark.parametrize("name", data_tasks)
def test_standard_tasks_can_be_served(name, treebank):
    task = tasks.find_data_task(name)
    options = Options((name,), treebank=treebank).of(task)
    options.check()
    assert set(options.methods) <= set(task.load().known_methods)
    assert options.seeds == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "digit"], "Did you mean digits"),
        (["--tasks", "toy", "toy"], "--tasks names toy twice"),
        (["--tasks", "craft-10"], "craft-10 needs --treebank"),
        (["--tasks", "craft-10", "--treebank", "nowhere"], "nowhere"),
        (["--methods", "gibs"], "Did you mean gibbs"),
        (["--tasks", "digits", "--methods", "gibbs"], "There is no method 'gibbs'"),
        (["--methods", "gibbs"], "digits has none of the --methods"),
        (["--cpu-minutes", "-1"], "--cpu-minutes must be a positive number"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--resume", "."], "not a run folder"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_runs_are_not_resumed_nor_these_tasks_taken_by_another_suite(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"suite": "em-data", "options": {}}))
    assert command("--resume", tmp_path) == 2
    assert "another version" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"task": "grammar", "options": {}}))
    assert command("--resume", tmp_path) == 2
    assert "does not hold a run of em-data" in capsys.readouterr().err
    assert cli.main(["bench", "em", "--tasks", "toy"]) == 2
    assert "gfnem bench em-data" in capsys.readouterr().err
