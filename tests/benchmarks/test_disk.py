"""Disks that are full or read-only, while a suite is carried out: one clear line, nothing lost."""

import importlib.util
import json
import shlex
import subprocess

import pytest

from benchmarks import cli, runner
from tests.benchmarks.suites import GRID, numbers, start, summaries, words

SUITE = {**GRID, "seeds": 1, "updates": 8, "every": 2}

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")

engines = pytest.mark.parametrize(
    "engine",
    [
        [],
        ["--workers", "2"],
        pytest.param(["--workers", "2", "--engine", "ray"], marks=[pytest.mark.slow, needs_ray]),
    ],
    ids=["in_process", "workers", "ray"],
)


def mount(*arguments):
    """Mounts a file system, or skips the test where one may not."""
    try:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A disk of half a megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=512k", "tmpfs", path)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    suite, folder = start(tmp_path_factory.mktemp("whole") / "run", **SUITE)
    runner.run_task(suite, folder)
    return numbers(folder.path)


@pytest.fixture
def refusal(capfd):
    """Runs a command that must be refused; returns the one line that says why."""

    def call(*arguments):
        capfd.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 2
        output, errors = capfd.readouterr()
        lines = errors.replace("\r", "\n").splitlines()  # a bar that makes room leaves a blank one
        lines = [line for line in lines if line.strip() and "update/s" not in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("gfnem: error: ")
        assert output == ""
        return lines[0]

    return call


@engines
def test_a_disk_that_fills_up(disk, refusal, undisturbed, engine):
    run = disk / "run"
    line = refusal("bench", "posterior", *words(**SUITE), "--out", run, *engine)
    assert "No space left on device" in line
    command = shlex.split(line.partition("Once that is mended, continue with: ")[2])
    assert command == ["gfnem", "bench", "posterior", "--resume", str(run), *engine]
    ended = summaries(run)
    for file in run.rglob("*.json"):
        json.loads(file.read_text())
    assert "No space left on device" in refusal(*command[1:])  # it still is full
    assert ended.items() <= summaries(run).items()
    mount("-o", "remount,size=64m", disk)
    assert cli.main(command[1:]) == 0
    assert ended.items() <= summaries(run).items()
    assert numbers(run) == undisturbed


@engines
def test_a_folder_that_is_read_only(disk, refusal, undisturbed, engine):
    mount("-o", "remount,size=64m", disk)
    run = disk / "run"
    start(run, **SUITE)
    mount("-o", "remount,ro", disk)
    words = ["bench", "posterior", "--resume", run, *engine]
    line = refusal(*words)
    assert "Read-only file system" in line
    assert f"Once that is mended, continue with: gfnem bench posterior --resume {run}" in line
    assert "Read-only file system" in refusal("bench", "posterior", "--out", disk / "other")
    mount("-o", "remount,rw", disk)
    assert [path.name for path in run.iterdir()] == ["config.json"]
    assert cli.main([*map(str, words)]) == 0
    assert numbers(run) == undisturbed
