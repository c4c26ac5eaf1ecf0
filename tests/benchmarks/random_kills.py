"""Kills the workers and the parent of a posterior suite at random moments.

As a script it does so as often as one likes, and exits with an error if anything was lost:
`python -m tests.benchmarks.random_kills --kills 100 --engine ray`.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.runner import run_task
from tests.benchmarks.runs import stray_files
from tests.benchmarks.suites import (
    LONGER,
    launch,
    measured,
    numbers,
    start,
    summaries,
    wait_for,
    wait_until_gone,
    words,
    workers_of,
)

SUITE = {**LONGER, "seeds": 2, "updates": 200}
"""480 lines of metrics: a kill comes after 12 more on average, and those of 0.25 s."""


def kill_at_random(folder, kills, seed, engine, parents):
    """Carries out a suite that is killed again and again, and checks that nothing is lost.

    Args:
        folder: An empty one to work in.
        kills: How many.
        seed: Where and when.
        engine: "local" or "ray".
        parents: How many of the kills hit the parent, which is then resumed; the others hit one of
            its two workers.

    Returns:
        How many cells had ended before the last kill.
    """
    suite, whole = start(folder / "whole", **SUITE)
    run_task(suite, whole)

    path, chance, ended, process = folder / "run", random.Random(seed), {}, None
    victims = ["parent"] * parents + ["worker"] * (kills - parents)
    chance.shuffle(victims)
    for victim in victims:
        process = process or begin(folder, path, engine)
        lines = measured(path) + chance.randrange(24)

        def due(lines=lines, process=process):
            nonlocal ended
            ended = require_kept(path, ended)
            return measured(path) >= lines and workers_of(process)

        wait_for(due, process)
        time.sleep(chance.uniform(0, 0.5))
        workers = workers_of(process)
        if victim == "parent":
            process.kill()
            process.communicate()
            process = None
        else:
            os.kill(chance.choice(workers), signal.SIGKILL)
    before = len(require_kept(path, ended))
    process = process or begin(folder, path, engine)
    workers = workers_of(process)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    for line in errors.replace("\r", "\n").splitlines():
        assert not line.strip() or "update/s" in line or "; it goes on in a new one." in line
    wait_until_gone(workers)
    require_kept(path, ended)
    assert numbers(path) == numbers(whole.path)
    assert stray_files(path) == []
    return before


def begin(folder, path, engine):
    """Starts the suite, or goes on with it."""
    where = ["--resume", path] if (path / "config.json").exists() else ["--out", path]
    options = [] if "--resume" in where else words(**SUITE)
    return launch(folder, *options, *map(str, where), "--engine", engine)


def require_kept(path, ended):
    """Returns the cells that have ended by now; those that had before must be untouched."""
    now = summaries(path)
    assert ended.items() <= now.items(), "a finished cell was lost or run again"
    return now


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parents", type=int, help="so many of them (default: half)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    given = parser.parse_args()
    parents = given.kills // 2 if given.parents is None else given.parents
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        before = kill_at_random(Path(folder), given.kills, given.seed, given.engine, parents)
        seconds = time.monotonic() - begun
        print(f"{given.kills} kills, {before} cells ended before the last: the same numbers, "
              f"no cell lost or run twice ({seconds:.0f} s)")  # fmt: skip
