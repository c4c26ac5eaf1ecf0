"""Workers on a Ray cluster: what those of this machine do, and what Ray may not spoil."""

import os
import shlex
import signal
import socket
from pathlib import Path

import pytest

from benchmarks import cli, ray_workers
from benchmarks.ray_workers import carry_out_on_ray
from benchmarks.runner import _work, run_task
from benchmarks.workers import MAX_DEATHS
from gfn_envs import UserError
from tests.benchmarks.random_kills import kill_at_random
from tests.benchmarks.suites import (
    LONGER,
    descendants,
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
from tests.benchmarks.test_workers import (
    Recorder,
    die_of_job_1,
    meet_a_full_disk,
    succeed_or_fail,
)

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time

SUITE = {**LONGER, "updates": 20}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The numbers of whole runs, carried out in one process."""

    def run(options):
        suite, folder = start(tmp_path_factory.mktemp("whole") / "run", **options)
        run_task(suite, folder)
        return numbers(folder.path)

    return run


# -- on one cluster -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A cluster that is there already."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_every_job_is_done_and_failures_are_returned(cluster):
    display = Recorder()
    failures = carry_out_on_ray(succeed_or_fail, (10,), [0, 1, 2, 3, 5], 2, display)
    assert failures == {1: "odd", 3: "odd", 5: "odd"}
    assert sorted(display.shown) == [(job, job + 10, {"loss": 0.5}) for job in (0, 1, 2, 3, 5)]
    assert sorted(display.failed) == [(job, "odd") for job in (1, 3, 5)]
    assert ray.is_initialized()  # somebody else's cluster is left alone


def test_a_job_that_kills_its_workers_is_given_up(cluster):
    display = Recorder()
    failures = carry_out_on_ray(die_of_job_1, (), [0, 1, 2], 2, display)
    end = "its worker died (its worker process has died)"
    assert failures == {1: f"{end}, {MAX_DEATHS} times."}
    assert display.said == [(1, f"{end}; it goes on in a new one.")] * (MAX_DEATHS - 1)


def test_an_error_of_all_workers_ends_them(cluster):
    with pytest.raises(OSError, match="nothing works"):
        carry_out_on_ray(meet_a_full_disk, (), [0, 1, 2], 2, Recorder())
    wait_until_gone(workers_of_this_process())


def workers_of_this_process():
    return [pid for pid in descendants(os.getpid())
            if "ray::_Actor" in Path(f"/proc/{pid}/cmdline").read_text()]  # fmt: skip


def test_more_workers_than_there_is_room_for_wait(cluster):
    display = Recorder()
    assert carry_out_on_ray(succeed_or_fail, (0,), [0, 2, 4, 6], 4, display) == {}
    assert len(display.shown) == 4


def test_a_folder_that_workers_cannot_see(cluster, tmp_path):
    with pytest.raises(UserError, match=r"cannot see .*/nowhere; .* must be on a file system"):
        carry_out_on_ray(_work, ("posterior", tmp_path / "nowhere", False), [0], 1, Recorder())


class NotThere:
    """Stands for a package that is not installed on a node."""

    def __reduce__(self):
        return __import__, ("no_such_package",)


def test_a_node_that_lacks_a_package(cluster):
    with pytest.raises(UserError, match=r"A worker on \S+ cannot start: No module named .*install"):
        carry_out_on_ray(succeed_or_fail, (NotThere(),), [0], 1, Recorder())


def test_a_suite_has_the_same_numbers(cluster, tmp_path, undisturbed, capfd):
    suite, folder = start(tmp_path / "run", **SUITE)
    run_task(suite, folder, workers=2, engine="ray")
    assert numbers(folder.path) == undisturbed(SUITE)
    errors = capfd.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in errors if line.strip() and "update/s" not in line] == []
    before = summaries(folder.path)
    resume(folder.path, engine="ray")
    assert summaries(folder.path) == before


@pytest.mark.slow
def test_another_process_finds_the_cluster_by_its_address(cluster, tmp_path, undisturbed):
    path, address = tmp_path / "run", ray.get_runtime_context().gcs_address
    options = [*words(**SUITE), "--out", str(path), "--engine", "ray", "--address", address]
    process = launch(tmp_path, *options)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "Written to" in output
    assert all("update/s" in line for line in errors.splitlines() if line.strip())
    assert numbers(path) == undisturbed(SUITE)


# -- what is refused ------------------------------------------------------------------------------


def refused(capsys, *words):
    assert cli.main(["bench", "posterior", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_wrong_addresses(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]  # when the block is left
    line = refused(capsys, "--engine", "ray", "--address", f"127.0.0.1:{closed}")
    assert f"Cannot connect to a Ray cluster at 127.0.0.1:{closed} (Connection refused)." in line
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{closed}")
    assert f"at ray://127.0.0.1:{closed} (Connection" in refused(capsys, "--engine", "ray")
    line = refused(capsys, "--engine", "ray", "--address", "nonsense")
    assert "'nonsense' is no address of a Ray cluster; write HOST:PORT" in line
    monkeypatch.setattr(ray_workers, "SECONDS_TO_CONNECT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        line = refused(capsys, "--engine", "ray", "--address", address)
    assert f"at {address} (what answers there is no cluster)." in line
    assert list(tmp_path.iterdir()) == []


# -- in processes that are killed -----------------------------------------------------------------


def begin(tmp_path, path):
    """Starts a suite on a cluster of its own, and waits until it has got somewhere."""
    process = launch(tmp_path, *words(**LONGER), "--out", str(path), "--engine", "ray")
    wait_for(lambda: measured(path) >= 30 and workers_of(process), process)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["ctrl_c", "SIGTERM"],
)
def test_a_stopped_suite_says_in_one_line_how_to_go_on(tmp_path, undisturbed, number, group):
    path = tmp_path / "run"
    process = begin(tmp_path, path)
    everything = descendants(process.pid)
    (os.killpg if group else os.kill)(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    lines = [line for line in errors.splitlines() if line and "update/s" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("gfnem: error: interrupted. Continue with: ")
    command = shlex.split(lines[0].partition("Continue with: ")[2])
    assert command[3:] == ["--resume", str(path), "--workers", "2", "--engine", "ray"]
    wait_until_gone(everything)
    resume(path)
    assert numbers(path) == undisturbed(LONGER)


@pytest.mark.slow
def test_a_driver_that_is_killed_takes_its_workers_along(tmp_path, undisturbed):
    path = tmp_path / "run"
    process = begin(tmp_path, path)
    workers, ended = workers_of(process), summaries(path)
    process.kill()
    process.communicate()
    wait_until_gone(workers)
    resume(path, workers=2)
    assert numbers(path) == undisturbed(LONGER)
    assert ended.items() <= summaries(path).items()


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    assert kill_at_random(tmp_path, kills=20, seed=0, engine="ray", parents=0) > 0
