"""The command line: what it refuses, in one line each, and what it leaves behind."""

import dataclasses
import errno
import functools
import json
import os
import shlex
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import gfn_envs
from algorithms.explorations import explorations
from algorithms.objectives import objectives
from benchmarks import cli, provenance, runner, task
from benchmarks.discrete_vae.methods import dvae_methods
from benchmarks.em.methods import em_methods
from benchmarks.grammar.methods import grammar_methods
from benchmarks.hierarchical_mixture.sweep import METHODS, Options, presets
from benchmarks.posterior.controls import controls
from benchmarks.posterior.metrics import metrics
from benchmarks.run_folder import RunFolder
from lvms.grammars.built_in import built_in_grammars
from lvms.models import models
from tests.benchmarks.runs import NAME, numbers, stop_after, stray_files, tiny_arguments


@pytest.fixture(autouse=True)
def same_process_afterwards(monkeypatch, tmp_path):
    """Runs in an empty folder, and undoes what `main` does to its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def gfnem(capsys):
    """Runs a command; returns its exit status, its output and its error output."""

    def call(*arguments):
        capsys.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse's own way out
            status = exit.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refusal(gfnem):
    """Runs a command that must be refused; returns the one line that says why."""

    def call(*arguments):
        status, output, errors = gfnem(*arguments)
        assert status == 2
        assert "Traceback" not in errors
        # A progress bar redraws itself with carriage returns and ends its line.
        lines = [line for line in errors.splitlines() if line and "update/s" not in line]
        assert len(lines) == 1
        assert lines[0].startswith("gfnem")
        assert "error: " in lines[0]
        assert output == ""
        return lines[0]

    return call


def run(*more, out="run", **changes):
    return ["run", NAME, *tiny_arguments(**changes), "--out", out, *more]


ONE = ("exact-em",)


# -- wrong words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "required: COMMAND. See gfnem --help."),
        ("runn", "invalid choice: 'runn'"),
        ("list tasks", "unrecognized arguments: tasks. See gfnem"),
        ("check", "required: ENV_ID"),
        ("run hierarchical", "There is no task 'hierarchical'. Did you mean hierarchical-mixture?"),
        (
            "run poisson",
            "There is no task 'poisson'. Known: discrete-vae, grammar, hierarchical-mixture.",
        ),
        (f"run {NAME} --iteration 3", "--iteration 3. Did you mean --iterations?"),
        (f"run {NAME} --iteratoins=3", "Did you mean --iterations?"),
        (f"run {NAME} --nonsense", f"--nonsense. See gfnem run {NAME} --help."),
        (f"run {NAME} again", "unrecognized arguments: again"),
        (f"run {NAME} --iterations", "--iterations: expected one argument"),
        (f"run {NAME} --iterations three", "--iterations: invalid int value: 'three'"),
        (f"run {NAME} --iterations 2.5", "--iterations: invalid int value: '2.5'"),
        (f"run {NAME} --scale wide", "--scale: invalid float value: 'wide'"),
        (f"run {NAME} --methods exact", "--methods: invalid choice: 'exact'"),
        (f"run {NAME} --preset papre", "There is no preset 'papre'. Did you mean paper?"),
        ("run grammar --method gflownet-em", "--method gflownet-em. Did you mean --methods?"),
        (f"run {NAME} --out a --resume b", "--resume: not allowed with argument --out"),
        (
            "run posterior",
            "There is no task 'posterior'. Known: discrete-vae, grammar, hierarchical",
        ),
        (f"run {NAME} --workers 0", "--workers must be at least 1"),
        ("bench posteriors", "There is no suite 'posteriors'. Did you mean posterior"),
        ("bench throughputt", "There is no suite 'throughputt'. Did you mean throughput?"),
        ("bench posterior --tasks hmm-tyni", "There is no model 'hmm-tyni'. Did you mean hmm-tiny"),
        ("bench posterior --objectives vargard", "no objective 'vargard'. Did you mean vargrad"),
        ("bench posterior --explorations relpay", "no exploration 'relpay'. Did you mean replay"),
        ("bench posterior --objectives tb db tb", "--objectives names tb twice"),
        ("bench posterior --seeds 0", "--seeds must be at least 1"),
        ("bench posterior --updates 0", "--updates must be at least 1"),
        ("bench posterior --every -1", "--every must be at least 1"),
        ("bench posterior --workers 0", "--workers must be at least 1"),
        ("bench posterior --engine clouds", "--engine: invalid choice: 'clouds'"),
        ("bench posterior --address here:6379", "names a Ray cluster; give --engine ray too"),
        ("bench posterior --learning-rate nan", "--learning-rate must be a positive number"),
        ("bench posterior --seed 3", "--seed 3. Did you mean --seeds?"),
        ("bench posterior --preset paper", "There is no preset 'paper'. Known: grammars."),
        ("bench posterior --out /proc/run", "Cannot make a run folder at /proc/run: "),
        ("bench posterior --resume nowhere", "nowhere is not a folder"),
        ("check gfn_envs/FactoredCategoricals-v0", "Did you mean gfn_envs/FactoredCategorical"),
        ("check no_such_module:A/B-v0", "Cannot import 'no_such_module'"),
    ],
)
def test_wrong_words(refusal, tmp_path, words, message):
    assert message in refusal(*words.split())
    assert list(tmp_path.iterdir()) == []


def test_ray_that_is_not_installed(refusal, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refusal("bench", "posterior", "--engine", "ray")
    assert "--engine ray needs the package ray: pip install 'gflownet-em[ray]'." in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--initialisations 0", "--initialisations must be at least 1"),
        ("--iterations -1", "--iterations must be at least 1"),
        ("--e-updates 0", "--e-updates must be at least 1"),
        ("--hidden 0", "--hidden must be at least 1"),
        ("--points 1", "1 points are too few to start 2 super-components at"),
        ("--branching 2 0", "1 or more values"),
        ("--branching 2 3000", "6,000 structures are too many"),
        ("--scale 0", "scale and radius must be positive"),
        ("--scale nan", "scale and radius must be positive"),
        ("--epsilon 1.5", "epsilon must lie in 0 .. 1"),
        ("--epsilon nan", "epsilon must lie in 0 .. 1"),
        ("--learning-rate 0", "--learning-rate takes its first and its last value"),
        ("--learning-rate nan", "--learning-rate takes its first and its last value"),
        ("--learning-rate 1 0", "--learning-rate takes its first and its last value"),
        ("--learning-rate 3 2 1", "--learning-rate takes its first and its last value"),
        ("--beta 0", "--beta must be above 0 and at most 1"),
        ("--beta 1.5", "--beta must be above 0 and at most 1"),
        ("--beta nan", "--beta must be above 0 and at most 1"),
        ("--beta-iterations 0", "--beta-iterations must be at least 1"),
        ("--m-learning-rate -1", "--m-learning-rate must be a positive number"),
        ("--huber-delta nan", "--huber-delta must not be negative"),
        ("--batch-size -1", "--batch-size and --huber-delta must not be negative"),
        ("--min-log-reward nan", "--min-log-reward must be a number"),
        ("--loss-bound 3 2 1", "--loss-bound takes its first and its last value"),
        ("--loss-bound nan 1", "--loss-bound takes its first and its last value"),
        ("--loss-bound 1 nan", "--loss-bound takes its first and its last value"),
        ("--loss-bound inf", "--loss-bound takes its first and its last value"),
        ("--loss-bound 1 -1", "--loss-bound takes its first and its last value"),
        ("--samples-per-x 1", "VarGrad needs at least 2 samples per x"),
        ("--methods exact-em exact-em", "--methods names a method twice"),
    ],
)
def test_options_that_cannot_be_served_write_nothing(refusal, tmp_path, words, message):
    assert message in refusal(*run(), *words.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2\nred,3\n", "line 3: 'red,3' is not two numbers"),
        ("1\n2\n3\n", "1 column(s) where 2 are needed"),
        ("1,2\nnan,3\n", "line 2: 'nan,3' has a missing or infinite value"),
        ("1,2\n3,4\n", "holds 2 points; at least 10"),
        (None, "Cannot read points.csv: No such file or directory"),
    ],
)
def test_wrong_data(refusal, tmp_path, content, message):
    if content is not None:
        (tmp_path / "points.csv").write_text(content)
    assert message in refusal(*run("--data", "points.csv"))
    assert not (tmp_path / "run").exists()


def test_diverged_training(refusal):
    line = refusal(*run(methods=("gflownet-em",)), "--learning-rate", "1e30")
    assert "loss became" in line
    assert "a lower learning rate may help" in line


# -- wrong folders --------------------------------------------------------------------------------


def test_out_on_a_used_folder_or_a_file(refusal, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("mine")
    assert "used is not empty. Name a new folder with --out" in refusal(*run(out="used"))
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["thesis.tex"]
    assert "thesis.tex is a file; name a new folder" in refusal(*run(out="used/thesis.tex"))
    below = refusal(*run(out="used/thesis.tex/below"))
    assert "Cannot make a run folder at used/thesis.tex/below: Not a directory" in below
    assert "Cannot make a run folder at /proc/run: " in refusal(*run(out="/proc/run"))
    assert (tmp_path / "used" / "thesis.tex").read_text() == "mine"


def test_resume_of_what_is_no_run(refusal, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert "foreign is not a run folder (no config.json)" in refusal(
        "run", NAME, "--resume", "foreign"
    )
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    assert f"holds a run of something else, not of {NAME}" in refusal(
        "run", NAME, "--resume", "foreign"
    )
    (foreign / "config.json").write_text('{"task": ')
    assert "config.json is damaged" in refusal("run", NAME, "--resume", "foreign")
    assert "nowhere is not a folder" in refusal("run", NAME, "--resume", "nowhere")
    assert "is not a folder" in refusal("run", NAME, "--resume", "foreign/notes.txt")
    assert sorted(path.name for path in foreign.iterdir()) == ["config.json", "notes.txt"]


def test_resume_takes_no_other_options(refusal, gfnem):
    gfnem(*run(methods=ONE))
    for words in (["--seed", "3"], ["--preset", "adaptive"], ["--no-standardise"]):
        assert "--resume continues with the run's own options" in refusal(
            "run", NAME, "--resume", "run", *words
        )


def test_a_suite_resumes_only_its_own_runs(refusal, gfnem):
    gfnem(*run(methods=ONE))
    line = refusal("bench", "posterior", "--resume", "run")
    assert f"run holds a run of {NAME}, not of posterior; nothing was changed" in line
    line = refusal("bench", "posterior", "--resume", "run", "--updates", "3")
    assert "--resume continues with the run's own options" in line


TINY_SUITE = [
    "bench", "posterior", "--tasks", "mixture-tiny", "--objectives", "tb",
    "--explorations", "on-policy", "--seeds", "1", "--updates", "4", "--every", "1",
    "--out", "suite",
]  # fmt: skip


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full_disk", "read_only"])
@pytest.mark.parametrize(
    ("name", "calls"), [("append_metrics", 2), ("write_json", 2), ("write_figure", 0)]
)
def test_a_suite_that_cannot_write_says_how_to_go_on(
    refusal, gfnem, monkeypatch, tmp_path, name, calls, code
):
    error = OSError(code, os.strerror(code))
    with monkeypatch.context() as patch:
        stop_after(patch, RunFolder, name, calls, error)
        line = refusal(*TINY_SUITE)
    assert os.strerror(code) in line
    command = shlex.split(line.partition("continue with: ")[2])
    assert command == ["gfnem", "bench", "posterior", "--resume", "suite"]
    status, output, _ = gfnem(*command[1:])
    assert status == 0
    listed = output.split("Written to suite:")[1].partition("A page to look at:")[0]
    assert listed.split() == ["table.md", "heat-map-mixture-tiny.png"]
    assert json.loads((tmp_path / "suite/summary.json").read_text())["status"] == "finished"


def test_tasks_are_carried_out_by_workers_too(gfnem, whole_run, tmp_path):
    status, output, _ = gfnem(*run("--workers", "2", initialisations=2))
    assert status == 0
    assert "learning-curves.png" in output
    assert numbers(tmp_path / "run") == numbers(whole_run)


def test_a_task_that_needs_every_cell_ends_with_the_first_failure_of_a_worker(capfd, tmp_path):
    arguments = run("--workers", "2", "--learning-rate", "1e30", methods=("gflownet-em",))
    assert cli.main(arguments) == 2
    errors = capfd.readouterr().err.replace("\r", "\n").splitlines()
    (line,) = [line for line in errors if line.strip() and "update/s" not in line]
    assert line.startswith("gfnem: error: gflownet-em, initialisation 0: loss became ")
    assert not (tmp_path / "run/summary.json").exists()


def test_help_of_the_suites(gfnem):
    status, output, errors = gfnem("bench", "--help")
    assert (status, errors) == (0, "")
    assert "  posterior: Compare objectives and explorations" in output
    assert "  em: Learn standard models from scratch" in output
    assert "  throughput: Measure" in output
    status, output, errors = gfnem("bench", "posterior", "--help")
    assert (status, errors) == (0, "")
    for word in ("--tasks", "--workers", "--resume FOLDER", "(default: mixture-tiny hmm-tiny"):
        assert word in output
    assert "--preset NAME" in output  # of which throughput has none
    assert "--preset" not in gfnem("bench", "throughput", "--help")[1]


def test_a_folder_in_use(refusal, gfnem, tmp_path):
    gfnem(*run(methods=ONE))
    with RunFolder(tmp_path / "run").locked():
        assert "Another process is running in run" in refusal("run", NAME, "--resume", "run")


# -- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The folder of a tiny run of every method, two initialisations."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert cli.main(run(out=str(path), initialisations=2)) == 0
    return path


def test_a_run_says_where_its_files_are(gfnem, tmp_path):
    status, output, errors = gfnem(*run(methods=ONE))
    assert status == 0
    assert "exact-em" in output.split("Written to run:")[0]
    listed, _, advice = output.split("Written to run:")[1].partition("A page to look at:")
    assert advice.strip() == "gfnem report run"
    listed = listed.split()
    assert listed == ["table.md", "means-and-assignments.png", "learning-curves.png"]
    assert all((tmp_path / "run" / name).is_file() for name in listed)
    assert (tmp_path / "run" / "table.md").read_text().strip() in output
    assert "3/3" in errors  # the bar came to its end


def test_the_default_folder_names_task_and_time(gfnem, tmp_path):
    status, output, _ = gfnem("run", NAME, *tiny_arguments(methods=ONE))
    assert status == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith(f"{NAME}-20")
    assert f"Written to runs/{path.name}:" in output


def test_the_table_compares_every_method(whole_run):
    table = (whole_run / "table.md").read_text()
    rows = {row.split("|")[1].strip(): row for row in table.splitlines() if row.startswith("| ")}
    assert {*METHODS, "true parameters"} <= set(rows)
    for method in METHODS:
        finals = [
            json.loads((whole_run / f"cells/{method}/{i:02d}/metrics.jsonl").read_text()
                       .splitlines()[-1])["log_likelihood"]
            for i in range(2)
        ]  # fmt: skip
        assert f"{np.mean(finals):.4f} ± {np.std(finals):.4f}" in rows[method]
    assert "nats a point" in table


@pytest.mark.parametrize("name", ["means-and-assignments.png", "learning-curves.png"])
def test_the_pictures_are_not_blank(whole_run, name):
    with Image.open(whole_run / name) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 200
    drawn = (pixels != pixels[0, 0]).any(-1)
    assert 0.003 < drawn.mean() < 0.9
    colours = np.unique(pixels[drawn] // 32, axis=0)
    assert (np.ptp(colours, axis=1) > 1).sum() >= 3  # not merely grey


def test_the_summary_holds_every_cell(whole_run):
    summary = json.loads((whole_run / "summary.json").read_text())
    assert summary["status"] == "finished"
    cells = summary["cells"]
    assert {(c["method"], c["initialisation"]) for c in cells} == {
        (method, i) for method in METHODS for i in range(2)
    }
    for cell in cells:
        assert cell["status"] == "finished"
        for metric in cell["metrics"].values():
            assert set(metric) == {"mean", "standard_error", "n"}
            assert np.isfinite(list(metric.values())).all()
            assert metric["n"] == 60
        assert cell["cost"]["updates"] == 3
        assert min(cell["cost"].values()) > 0
    variation = {c["method"]: c["metrics"].get("total_variation") for c in cells}
    assert variation["monte-carlo-em"] is None
    assert variation["exact-em"]["mean"] == pytest.approx(0, abs=1e-5)
    assert variation["gflownet-em"]["mean"] > 0.01
    config = json.loads((whole_run / "config.json").read_text())
    assert config["versions"]["torch"] == torch.__version__
    assert config["options"]["branching"] == [2, 2]
    assert stray_files(whole_run) == []


def test_tensorboard_gets_every_metric_once(gfnem, monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.name, self.purge_step, self.closed = folder.name, purge_step, False
            written.append((self.name, self.purge_step))

        def add_scalar(self, name, value, step):
            assert not self.closed
            written.append((self.name, name, value, step))

        def close(self):
            self.closed = True

    monkeypatch.setattr(runner, "tensorboard_writer", lambda: Writer)
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with monkeypatch.context() as patch:
        stop_after(patch, RunFolder, "append_metrics", 2, KeyboardInterrupt)
        assert gfnem(*run("--tensorboard", methods=ONE))[0] == 2
    assert gfnem("run", NAME, "--resume", "run", "--tensorboard")[0] == 0
    lines = (tmp_path / "run/cells/exact-em/00/metrics.jsonl").read_text().splitlines()
    values = [json.loads(line)["log_likelihood"] for line in lines]
    name = "exact-em-00"
    events = [(name, "log_likelihood", value, step) for step, value in enumerate(values, 1)]
    assert written == [(name, 1), *events[:2], (name, 3), *events[2:]]


def test_tensorboard_that_is_not_installed(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'gflownet-em[tensorboard]'" in refusal(*run("--tensorboard", methods=ONE))


def test_a_finished_run_is_resumed_to_itself(gfnem, whole_run):
    before = numbers(whole_run)
    status, output, _ = gfnem("run", NAME, "--resume", whole_run)
    assert status == 0
    assert "table.md" in output
    assert numbers(whole_run) == before


def test_points_of_a_csv_file(gfnem, tmp_path):
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    rows = [f"{100 + a:.4f},{5 * b:.4f}" for a, b in points.tolist()]
    (tmp_path / "points.csv").write_text("\n".join(["a,b", *rows]))
    status, output, _ = gfnem(*run("--data", "points.csv"))
    assert status == 0
    assert "true parameters" not in output
    summary = json.loads((tmp_path / "run/cells/exact-em/00/summary.json").read_text())
    assert summary["metrics"]["train_log_likelihood"]["n"] == 32
    assert summary["metrics"]["log_likelihood"]["n"] == 8


@pytest.mark.parametrize("preset", [None, *presets])
def test_presets(gfnem, tmp_path, preset):
    small = {"points": 60, "iterations": 2, "initialisations": 1, "e_updates": 3}
    words = [w for k, v in small.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    words += ["--methods", "gflownet-em", "--out", "run"]
    status, _, errors = gfnem("run", NAME, *(["--preset", preset] if preset else []), *words)
    assert (status, "Traceback" in errors) == (0, False)
    options = json.loads((tmp_path / "run/config.json").read_text())["options"]
    expected = {**dataclasses.asdict(Options()), **presets.get(preset, {}), **small}
    expected["methods"] = ("gflownet-em",)
    assert options == json.loads(json.dumps(expected))


# -- full disk and Ctrl-C, in one process ---------------------------------------------------------

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (RunFolder, "append_metrics", 4),
        (torch, "save", 4),
        (RunFolder, "write_json", 4),
        (RunFolder, "write_figure", 0),
    ],
)
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full_disk", "ctrl_c"])
def test_a_run_that_is_stopped_names_the_command_that_finishes_it(
    refusal, gfnem, monkeypatch, tmp_path, stopped_and_whole, owner, name, calls, error
):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    changes = {"methods": ("exact-em", "gflownet-em")}
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls, error)
        line = refusal(*run(out="a run", **changes))
    assert ("No space left on device" in line) == (error is FULL)
    assert ("interrupted" in line) == (error is not FULL)
    command = shlex.split(line.partition("continue with: ")[2] or line.partition("with: ")[2])
    assert command == ["gfnem", "run", NAME, "--resume", "a run"]
    assert stray_files(tmp_path / "a run") == []
    assert gfnem(*command[1:])[0] == 0
    assert numbers(tmp_path / "a run") == stopped_and_whole


@pytest.fixture(scope="module")
def stopped_and_whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    assert cli.main(run(out=str(path), methods=("exact-em", "gflownet-em"))) == 0
    return numbers(path)


def test_a_disk_that_is_full_from_the_start(refusal, gfnem, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, RunFolder, "write_json", 0, FULL)
        line = refusal(*run(methods=ONE))
    assert "Cannot make a run folder at run: No space left on device" in line
    assert gfnem(*run(methods=ONE))[0] == 0  # the folder that was left is empty


def test_ctrl_c_before_the_run(refusal, monkeypatch):
    stop_after(monkeypatch, provenance, "git_commit", 0, KeyboardInterrupt)
    assert refusal(*run()) == "gfnem: error: interrupted."


# -- list, check, help ----------------------------------------------------------------------------


def test_list_names_everything_registered(gfnem):
    status, output, errors = gfnem("list")
    assert (status, errors) == (0, "")
    for name in (NAME, *gfn_envs.registry, "lvms/HierarchicalMixture-v0"):
        assert name in output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert any(line.startswith("posterior Compare objectives") for line in lines)
    parts = (
        models, objectives, explorations, em_methods, dvae_methods, built_in_grammars,
        grammar_methods, metrics, controls,
    )  # fmt: skip
    for catalogue in parts:
        for name, entry in catalogue.items():
            defaults = ", ".join(f"{key}={value!r}" for key, value in entry.kwargs.items())
            assert " ".join(f"{name} {defaults} {entry.description}".split()) in lines
    assert any("SymbolSequence-v0 length=4, symbols=3, min_length=1 A seq" in x for x in lines)


def test_list_shows_parts_from_elsewhere(gfnem, monkeypatch):
    monkeypatch.setattr(metrics, "_entries", dict(metrics._entries))
    metrics.register("of-cli-test", f"{__name__}:test_list_shows_parts_from_elsewhere", a=1)
    metrics.register("broken", "no_such_module_of_cli_test:metric")
    status, output, errors = gfnem("list")
    assert (status, errors) == (0, "")
    assert "of-cli-test" in output
    assert "(cannot be imported: No module named 'no_such_module_of_cli_test')" in output


def test_a_task_of_a_plugin_is_found(gfnem, monkeypatch):
    entry_point = task.tasks[NAME].entry_point
    monkeypatch.setattr(task, "tasks", task.tasks.copy())
    plugin = functools.partial(task.register_task, "of-a-plugin", entry_point, "Somebody's own")
    monkeypatch.setattr(task, "load_plugins", plugin)
    status, output, errors = gfnem("run", "of-a-plugin", "--help")
    assert (status, errors) == (0, "")
    assert "Somebody's own." in output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--help", ["run", "list", "check", "gfnem run hierarchical-mixture"]),
        ("list --help", ["usage: gfnem list"]),
        ("check --help", ["usage: gfnem check", "ENV_ID", "module:id"]),
        ("run --help", ["usage: gfnem run TASK", NAME]),
        ("run -h", ["usage: gfnem run TASK", NAME]),
    ],
)
def test_help(gfnem, words, shown):
    status, output, errors = gfnem(*words.split())
    assert (status, errors) == (0, "")
    for text in shown:
        assert text in output


def test_help_of_a_task_explains_every_option_with_its_default(gfnem):
    status, output, errors = gfnem("run", NAME, "--help")
    assert (status, errors) == (0, "")
    text = " ".join(output.split())
    for name, field in Options.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.metadata["help"] in text
    assert "(default: 4 4)" in text
    assert "--resume FOLDER" in text
    assert ", ".join(presets) in text


def test_run_without_a_task_shows_the_tasks(gfnem):
    status, output, _ = gfnem("run")
    assert status == 2
    assert NAME in output


def test_check_of_a_good_environment(gfnem):
    status, output, errors = gfnem("check", "gfn_envs/FactoredCategorical-v0")
    assert (status, errors) == (0, "")
    assert "failed" not in output.replace("0 failed", "")
    assert "enumeration" in output


FAULTY = """
import torch
from gfn_envs import FactoredCategorical, register

class Faulty(FactoredCategorical):
    def is_complete(self, state, context):
        return (state != -1).any(-1)

register("cli_test/Faulty-v0", "faulty_envs_of_cli_test:Faulty", sizes=[2, 2])
"""


def test_check_of_a_faulty_environment_in_the_users_folder(gfnem, tmp_path, monkeypatch):
    (tmp_path / "faulty_envs_of_cli_test.py").write_text(FAULTY)
    monkeypatch.setattr(gfn_envs.registration, "registry", gfn_envs.registry.copy())
    status, output, errors = gfnem("check", "faulty_envs_of_cli_test:cli_test/Faulty-v0")
    assert (status, errors) == (1, "")
    assert "Traceback" not in output
    failed = [line for line in output.splitlines() if "failed" in line]
    assert failed
    sys.modules.pop("faulty_envs_of_cli_test")


def test_a_size_that_no_memory_holds(refusal, tmp_path):
    line = refusal(*run(methods=ONE, points=10**13))
    assert "not enough memory" in line
    assert list(tmp_path.iterdir()) == []
