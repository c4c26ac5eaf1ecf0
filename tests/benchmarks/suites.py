"""Tiny posterior suites in processes of their own, and what must be equal between two of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import cli
from benchmarks.posterior.suite import PosteriorSuite
from benchmarks.posterior.sweep import Options
from benchmarks.runner import open_run, run_task, start_run
from tests.benchmarks.runs import without_time

GRID = {
    "tasks": ("mixture-tiny", "sbn-tiny"), "objectives": ("subtb", "reverse-kl"),
    "explorations": ("on-policy", "replay"), "seeds": 2, "updates": 25, "every": 10,
}  # fmt: skip

LONGER = {**GRID, "seeds": 1, "updates": 60, "every": 5}
"""Long enough to be killed in the middle of."""

WITH_MANY_CHECKPOINTS = """
import sys

from benchmarks import cli, runner, workers


def work(*arguments):  # what its workers do, in a process of their own
    from benchmarks import runner

    runner.SECONDS_BETWEEN_CHECKPOINTS = runner.SECONDS_BETWEEN_REPORTS = 0.0
    runner._work(*arguments)


if __name__ == "__main__":
    runner._work = work
    workers.MAX_DEATHS = 1000
    sys.exit(cli.main())
"""


def words(**options):
    found = []
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


def start(path, **options):
    suite = PosteriorSuite(Options(**options))
    return suite, start_run("posterior", suite, path)


def resume(path, workers=1, **engine):
    """As another process would: from the folder alone, with other global random states."""
    torch.manual_seed(12345)
    folder, suite = open_run("posterior", path)
    return run_task(suite, folder, workers=workers, **engine)


def numbers(path):
    """Every number of a run that must not depend on how it was carried out."""
    found = {}
    for cell in sorted(path.glob("cells/*/*/*/*")):
        lines = (cell / "metrics.jsonl").read_text().splitlines()
        found[str(cell.relative_to(path))] = (
            [without_time(json.loads(line)) for line in lines],
            without_time(json.loads((cell / "summary.json").read_text())),
        )
    found["summary"] = without_time(json.loads((path / "summary.json").read_text()))
    found["table"] = [row.rsplit("|", 2)[0] for row in (path / "table.md").read_text().splitlines()]
    found["table"][1] = ""  # dashes, as many as the times are wide
    return found


def summaries(path):
    """The cells that have come to their end, and the very files that say so."""
    files = {str(file): file.stat() for file in path.glob("cells/*/*/*/*/summary.json")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in files.items()}


def measured(path):
    """How many lines all cells have written."""
    return sum(f.read_bytes().count(b"\n") for f in path.glob("cells/*/*/*/*/metrics.jsonl"))


def launch(tmp_path, *arguments):
    """Starts a suite in a process group of its own, as a shell does."""
    script = tmp_path / "gfnem.py"
    script.write_text(WITH_MANY_CHECKPOINTS)
    root = str(Path(cli.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(script), "bench", "posterior", "--workers", "2", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        process_group=0,
        # A shell's background jobs ignore SIGINT, and hand that on to their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid):
    """Process ids of the children of all its threads."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, file.read_text().split())
    return found


def descendants(pid):
    """Process ids of its children, of their children, and so on."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def workers_of(process):
    """Process ids of the workers, without the helpers of multiprocessing and of Ray."""
    found = []
    for child in children(process.pid):
        if "forkserver" in command(child):
            found += children(child)
    return found or [pid for pid in descendants(process.pid) if "ray::_Actor" in command(pid)]


def command(pid):
    """The command line of a process, empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def wait_until_gone(pids, seconds=30):
    """Waits until processes have ended; killed ones of an ended parent may stay as zombies."""
    deadline = time.monotonic() + seconds
    while any(command(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
