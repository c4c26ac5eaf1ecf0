"""The posterior suite in processes that are killed, stopped, and resumed."""

import os
import random
import re
import shlex
import signal

import pytest

from benchmarks.posterior.suite import PosteriorSuite
from benchmarks.posterior.sweep import Options
from benchmarks.runner import run_task
from tests.benchmarks.random_kills import kill_at_random
from tests.benchmarks.runs import stray_files
from tests.benchmarks.suites import (
    LONGER,
    launch,
    measured,
    numbers,
    resume,
    start,
    summaries,
    wait_for,
    wait_until_gone,
    words,
    workers_of,
)

pytestmark = pytest.mark.xdist_group("killed_suites")  # they share an undisturbed run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The numbers of a whole run, carried out in one process."""
    suite, folder = start(tmp_path_factory.mktemp("whole") / "run", **LONGER)
    run_task(suite, folder)
    return numbers(folder.path)


def stop_at(tmp_path, path, lines, number, group=False):
    """Starts a suite, or resumes it, and stops it when it has written so many lines more."""
    known = path / "config.json"
    first = measured(path)
    where = ["--resume", path] if known.exists() else [*words(**LONGER), "--out", path]
    process = launch(tmp_path, *map(str, where))
    wait_for(lambda: measured(path) >= first + lines and workers_of(process), process)
    workers, ended = workers_of(process), summaries(path)
    (os.killpg if group else os.kill)(process.pid, number)
    output, errors = process.communicate(timeout=60)
    wait_until_gone(workers)
    return process.returncode, output, errors, ended


def test_a_worker_that_is_killed_is_named_and_replaced(tmp_path, undisturbed):
    path = tmp_path / "run"
    process = launch(tmp_path, *words(**LONGER), "--out", str(path))
    ended = {}
    for lines in (3, 30, 50):
        wait_for(lambda lines=lines: measured(path) >= lines and workers_of(process), process)
        ended |= summaries(path)
        os.kill(random.choice(workers_of(process)), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.count("Written to") == 1
    assert "Traceback" not in errors
    named = re.findall(r"(\S+-tiny), (\S+), (\S+), seed \d: its worker was stopped by SIGKILL; it "
                       r"goes on", errors)  # fmt: skip
    assert len(named) == 3
    assert numbers(path) == undisturbed
    assert ended
    assert ended.items() <= summaries(path).items()  # none was run again


def test_a_parent_that_is_killed_takes_its_workers_along(tmp_path, undisturbed):
    path, ended = tmp_path / "run", {}
    for lines in (5, 30, 15):
        status, output, _, now = stop_at(tmp_path, path, lines, signal.SIGKILL)
        assert (status, output) == (-signal.SIGKILL, "")
        assert ended.items() <= now.items()
        ended = now
    assert ended
    assert not (path / "summary.json").exists()
    assert len(summaries(path)) < len(PosteriorSuite(Options(**LONGER)).cells)
    resume(path, workers=2)
    assert numbers(path) == undisturbed
    assert ended.items() <= summaries(path).items()


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["ctrl_c", "SIGTERM"],
)
def test_a_stopped_suite_says_in_one_line_how_to_go_on(tmp_path, undisturbed, number, group):
    path = tmp_path / "run"
    status, output, errors, _ = stop_at(tmp_path, path, 30, number, group)
    assert (status, output) == (2, "")
    lines = [line for line in errors.splitlines() if line and "update/s" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("gfnem: error: interrupted. Continue with: ")
    command = shlex.split(lines[0].partition("Continue with: ")[2])
    assert command == ["gfnem", "bench", "posterior", "--resume", str(path), "--workers", "2"]
    resume(path)
    assert numbers(path) == undisturbed
    assert stray_files(path) == []


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    assert kill_at_random(tmp_path, kills=20, seed=0, engine="local", parents=10) > 0
