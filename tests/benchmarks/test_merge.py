"""Runs of other methods and of other seeds, made one."""

import json
import shutil

import pytest
from matplotlib.figure import Figure

from benchmarks import cli
from benchmarks.grammar import report
from benchmarks.merge import merge_runs
from benchmarks.provenance import SEVERAL
from benchmarks.runner import run_task
from gfn_envs import UserError
from tests.benchmarks.grammar_runs import numbers, start, tables, write_treebank
from tests.benchmarks.reports import run_report
from tests.benchmarks.runs import NAME, stray_files, tiny_arguments

ONE, OTHER = ("table-marginalisation",), ("exact-sampling", "monte-carlo")


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Drawing is most of the time of a tiny run; test_grammar_task.py looks at the pictures."""
    for name in ("draw_learning_curves", "draw_parses"):
        monkeypatch.setattr(report, name, lambda *_: Figure(figsize=(1, 1)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data):
    """One method with seeds 0 and 1, and two others with each of them alone."""
    made = {}
    for name, changes in {
        "one": {"methods": ONE, "seeds": 2},
        "other-0": {"methods": OTHER},
        "other-1": {"methods": OTHER, "first_seed": 1},
    }.items():
        task, folder = start(tmp_path_factory.mktemp("runs") / name, data, **changes)
        run_task(task, folder)
        made[name] = folder.path
    return made


def line_of(capsys, arguments):
    """The one line that a command which cannot be carried out says."""
    capsys.readouterr()
    assert cli.main([*map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_merged_run_is_the_run_of_all_cells(tmp_path, capsys, data, runs):
    task, whole = start(tmp_path / "whole", data, methods=(*ONE, *OTHER), seeds=2)
    run_task(task, whole)
    out = tmp_path / "merged"
    assert cli.main(["merge", *map(str, runs.values()), "--out", str(out)]) == 0
    assert "| monte-carlo" in capsys.readouterr().out
    assert numbers(out) == numbers(whole.path)
    assert tables(out) == tables(whole.path)
    assert stray_files(out) == []
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["methods"] == [*ONE, *OTHER]
    assert config["options"]["updates"] == [12, 12, 12]
    assert [part["run"] for part in config["merged"]] == [str(path) for path in runs.values()]
    page, _ = run_report(capsys, out)
    assert "6 of 6 cells finished" in page


def test_what_is_not_finished_can_be_finished_in_the_merged_run(tmp_path, capsys, data, runs):
    out = tmp_path / "merged"
    assert cli.main(["merge", str(runs["one"]), str(runs["other-1"]), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 6 cells are not finished." in printed
    assert f"gfnem run grammar --resume {out}" in printed
    assert cli.main(["run", "grammar", "--resume", str(out)]) == 0
    task, whole = start(tmp_path / "whole", data, methods=(*ONE, *OTHER), seeds=2)
    run_task(task, whole)
    assert numbers(out) == numbers(whole.path)


def test_runs_of_several_commits_and_machines_are_told_apart(tmp_path, capsys, runs):
    config = json.loads((runs["other-0"] / "config.json").read_text())
    for method, commit, cores in zip(OTHER, ("a" * 40, "b" * 40), (2, 8), strict=True):
        shutil.copytree(runs["other-0"] / "cells" / method, tmp_path / method / "cells" / method)
        changed = {
            **config,
            "git_commit": commit,
            "machine": {**config["machine"], "cores": cores},
            "options": {**config["options"], "methods": [method]},
        }
        (tmp_path / method / "config.json").write_text(json.dumps(changed))
    folder, _, unfinished = merge_runs([tmp_path / name for name in OTHER], tmp_path / "merged")
    assert unfinished == 0
    merged = folder.read_json("config.json")
    assert merged["machine"]["cores"] == f"2{SEVERAL}8"
    assert merged["versions"] == config["versions"]
    assert merged["git_commit"] == "a" * 40 + SEVERAL + "b" * 40
    page, _ = run_report(capsys, folder.path)
    assert f"commits {'a' * 12}{SEVERAL}{'b' * 12}" in page


def test_methods_may_have_been_given_different_times(tmp_path, data, runs):
    task, folder = start(tmp_path / "longer", data, methods=OTHER, updates=(20,), cpu_minutes=3.0)
    run_task(task, folder)
    merged, *_ = merge_runs([runs["one"], folder.path], tmp_path / "merged")
    options = merged.read_json("config.json")["options"]
    assert options["updates"] == [12, 20, 20]
    assert options["cpu_minutes"] == 3.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 4}, "differ in --dim, 8 and 4"),
        ({"data_seed": 3}, "differ in --data-seed"),
        ({"updates": (20,), "methods": ONE, "first_seed": 2}, "12 updates in one run and 20"),
        ({"methods": ONE}, "cells/table-marginalisation/00 is finished in"),
        ({"data": "other"}, "different data"),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(tmp_path, capsys, data, runs, changes, message):
    if changes.get("data") == "other":
        source = tmp_path / "other"
        write_treebank(source)
        text = (source / "train.mrg").read_text()
        (source / "train.mrg").write_text(text.replace("cat", "cow"))
        changes = {"data": str(source)}
    task, folder = start(tmp_path / "run", **{"data": data, "methods": OTHER[:1], **changes})
    run_task(task, folder)
    out = tmp_path / "merged"
    assert message in line_of(capsys, ["merge", runs["one"], folder.path, "--out", out])
    assert not out.exists()


def test_mistakes_are_named_in_one_line(tmp_path, capsys, runs):
    one, other, out = runs["one"], runs["other-0"], tmp_path / "merged"
    assert "at least two runs" in line_of(capsys, ["merge", one, "--out", out])
    nothing = tmp_path / "nothing"
    assert "is not a folder" in line_of(capsys, ["merge", one, nothing, "--out", out])
    assert "not empty" in line_of(capsys, ["merge", one, other, "--out", one])
    mixture = tmp_path / "mixture"
    assert (
        cli.main(["run", NAME, *tiny_arguments(methods=("exact-em",)), "--out", str(mixture)]) == 0
    )
    capsys.readouterr()
    assert "not of grammar" in line_of(capsys, ["merge", one, mixture, "--out", out])
    assert "cannot be merged" in line_of(capsys, ["merge", mixture, mixture, "--out", out])
    assert not out.exists()


def test_a_full_disk_leaves_no_half_a_cell(tmp_path, monkeypatch, runs):
    def copy(source, target):
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("benchmarks.merge.shutil.copytree", copy)
    out = tmp_path / "merged"
    with pytest.raises(UserError, match="No space left on device"):
        merge_runs([runs["one"], runs["other-0"]], out)
    assert list(out.glob("cells/*/*")) == []
