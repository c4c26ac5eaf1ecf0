"""Worker processes: jobs that are lost with a worker, and jobs that kill every worker.

They import this file, which therefore imports nothing that takes long, as torch does.
"""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from benchmarks.workers import MAX_DEATHS, Done, Progress, Reporter, Said, Stopped, carry_out


class Recorder:
    def __init__(self):
        self.shown, self.said, self.failed = [], [], []

    def show(self, job, updates, metrics):
        self.shown.append((job, updates, metrics))

    def say(self, job, text):
        self.said.append((job, text))

    def fail(self, job, reason):
        self.failed.append((job, reason))


def succeed_or_fail(connection, offset):
    parent = Reporter(connection)
    while True:
        job = parent.next_job()
        parent.send(Progress(job + offset, {"loss": 0.5}))
        parent.send(Said(f"{job} is a number"))
        parent.send(Done("odd" if job % 2 else None))


def die_of_job_1(connection):
    parent = Reporter(connection)
    while True:
        if parent.next_job() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        parent.send(Done(None))


def meet_a_full_disk(connection):
    parent = Reporter(connection)
    if parent.next_job() == 1:
        parent.send(Stopped(OSError(28, "nothing works")))
    while True:
        parent.send(Progress(0, {}))  # until the parent is gone
        time.sleep(0.01)


def leave_during_job_1(connection):
    parent = Reporter(connection)
    while True:
        if parent.next_job() == 1:
            sys.exit(3)
        parent.send(Done(None))


def be_busy(connection):
    parent = Reporter(connection)
    parent.send(Progress(parent.next_job(), {}))
    time.sleep(60)


def test_every_job_is_done_and_failures_are_returned():
    display = Recorder()
    failures = carry_out(succeed_or_fail, (10,), [0, 1, 2, 3, 5], 2, display)
    assert failures == {1: "odd", 3: "odd", 5: "odd"}
    assert sorted(display.shown) == [(job, job + 10, {"loss": 0.5}) for job in (0, 1, 2, 3, 5)]
    assert sorted(display.said) == [(job, f"{job} is a number") for job in (0, 1, 2, 3, 5)]
    assert sorted(display.failed) == [(job, "odd") for job in (1, 3, 5)]


def test_a_job_that_kills_its_workers_is_given_up():
    display = Recorder()
    failures = carry_out(die_of_job_1, (), [0, 1, 2], 2, display)
    assert failures == {1: f"its worker was stopped by SIGKILL, {MAX_DEATHS} times."}
    line = "its worker was stopped by SIGKILL; it goes on in a new one."
    assert display.said == [(1, line)] * (MAX_DEATHS - 1)
    assert display.failed == list(failures.items())


def test_a_worker_that_leaves_is_told_from_one_that_is_killed():
    failures = carry_out(leave_during_job_1, (), [0, 1], 1, Recorder())
    assert failures == {1: f"its worker ended with 3, {MAX_DEATHS} times."}


def test_ctrl_c_does_not_wait_for_busy_workers():
    stopped = []

    class Interrupted(Recorder):
        def show(self, job, updates, metrics):
            super().show(job, updates, metrics)
            if len(self.shown) == 2:  # both have begun
                stopped.append(time.monotonic())
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(be_busy, (), [0, 1], 2, Interrupted())
    assert time.monotonic() - stopped[0] < 2
    assert multiprocessing.active_children() == []


def test_an_error_of_all_workers_ends_them():
    with pytest.raises(OSError, match="nothing works"):
        carry_out(meet_a_full_disk, (), [0, 1, 2], 2, Recorder())
    assert multiprocessing.active_children() == []
