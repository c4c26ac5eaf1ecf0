"""Worker processes that carry out numbered jobs, and may be killed at any moment."""

import contextlib
import functools
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

MAX_DEATHS = 5
"""A job whose workers were killed so often is given up."""

IMPORTED = ("torch._dynamo",)
"""What every worker needs and takes seconds to import: torch's optimisers want this one."""

SECONDS_TO_END = 1.0
"""How long a worker that is on its way out has until it is killed."""


@dataclass(frozen=True)
class Progress:
    """A worker says how far its job is: so many updates made, and the last metrics."""

    updates: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Said:
    """A worker says something of its job that people should read at once."""

    text: str


@dataclass(frozen=True)
class Done:
    """A worker is done with its job, and wants another; `failure` says what went wrong, if any."""

    failure: str | None


@dataclass(frozen=True)
class Stopped:
    """A worker met an error that all the others will meet too, as a full disk is."""

    error: Exception


Message = Progress | Said | Done | Stopped


class Display(Protocol):
    """What people see of the jobs."""

    def show(self, job: int, updates: int, metrics: dict[str, float]) -> None:
        """Shows how far a job is."""

    def say(self, job: int, text: str) -> None:
        """Adds a line about a job."""

    def fail(self, job: int, reason: str) -> None:
        """Counts a job that failed, and adds a line that says why."""


@dataclass(frozen=True)
class JobDisplay:
    """What people see of one job, wherever it is done.

    Attributes:
        show: Shows how far it is: so many updates, and the last metrics.
        say: Adds a line about it.
    """

    show: Callable[[int, dict[str, float]], None]
    say: Callable[[str], None]


class Worker(Protocol):
    """A process that does jobs, as seen from where they are handed out.

    Attributes:
        job: What it is doing.
    """

    job: int

    def give(self, job: int) -> None:
        """Gives it a job; if it is dead, `receive` will tell."""

    def receive(self) -> Message | None:
        """Receives what it sent, or None if it is dead."""

    def stop(self) -> None:
        """Ends it at once, whatever it is doing."""

    @property
    def end(self) -> str:
        """How it died, in words."""


AnyWorker = TypeVar("AnyWorker", bound=Worker)


def carry_out(
    target: Callable[..., None],
    arguments: Sequence[Any],
    jobs: Sequence[int],
    workers: int,
    display: Display,
) -> dict[int, str]:
    """Hands jobs to worker processes until all are done.

    A job whose worker is killed is given to a new worker, which goes on where the job's own
    checkpoint is. Whatever ends this function kills the workers at once, and workers whose parent
    was killed find that out when they next report.

    Args:
        target: What a worker process does, called with a `Connection` and the arguments: it
            receives the numbers of jobs until `EOFError`, and sends a `Message` now and then.
        arguments: Whatever else it needs; picklable.
        jobs: Numbers of the jobs, in the order in which they are begun.
        workers: How many processes, at least 1.
        display: What people see.

    Returns:
        Why each of the jobs that failed did so.

    Raises:
        Exception: What a worker sent in `Stopped`.
    """
    return hand_out(
        functools.partial(_Process, target, arguments), _Process.ready, jobs, workers, display
    )


def hand_out(
    start: Callable[[int], AnyWorker],
    ready: Callable[[Sequence[AnyWorker]], Collection[AnyWorker]],
    jobs: Sequence[int],
    workers: int,
    display: Display,
) -> dict[int, str]:
    """Does what `carry_out` says with workers of any kind.

    Args:
        start: Starts a worker with its first job.
        ready: Waits until at least one of the workers has sent something or is dead, and returns
            those.
        jobs: Numbers of the jobs, in the order in which they are begun.
        workers: How many workers at a time, at least 1.
        display: What people see.

    Returns:
        Why each of the jobs that failed did so.

    Raises:
        Exception: What a worker sent in `Stopped`.
    """
    waiting = deque(jobs)
    failures: dict[int, str] = {}
    deaths: Counter[int] = Counter()
    pool: list[AnyWorker] = []
    try:
        while waiting or pool:
            while waiting and len(pool) < workers:
                pool.append(start(waiting.popleft()))
            for worker in ready(pool):
                job = worker.job
                message = worker.receive()
                if isinstance(message, Stopped):
                    raise message.error
                if isinstance(message, Progress):
                    display.show(job, message.updates, message.metrics)
                    continue
                if isinstance(message, Said):
                    display.say(job, message.text)
                    continue
                if message is None:  # it is dead
                    worker.stop()
                    pool.remove(worker)
                    deaths[job] += 1
                    if deaths[job] < MAX_DEATHS:
                        waiting.appendleft(job)
                        display.say(job, f"its worker {worker.end}; it goes on in a new one.")
                        continue
                    message = Done(f"its worker {worker.end}, {MAX_DEATHS} times.")
                elif waiting:
                    worker.give(waiting.popleft())
                else:
                    worker.stop()
                    pool.remove(worker)
                if message.failure is not None:
                    failures[job] = message.failure
                    display.fail(job, message.failure)
        return failures
    finally:
        # At once, for a run folder takes no harm: half of a file never is in its place.
        for worker in pool:
            worker.stop()


class _Process:
    """A worker process on this machine as its parent sees it; see `Worker`.

    Attributes:
        job: What it is doing.
        process: The process.
        connection: The parent's end of the pipe.
    """

    def __init__(self, target: Callable[..., None], arguments: Sequence[Any], job: int) -> None:
        """Starts the process with its first job."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([target.__module__, *IMPORTED])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        # A terminal sends Ctrl-C to every process; the parent is the one that deals with it. The
        # blocked signal is inherited. Starting the tracker would unblock it, so that comes first.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the pipe ends where the process does
        self.give(job)

    @staticmethod
    def ready(pool: Sequence["_Process"]) -> list["_Process"]:
        """Waits until at least one has sent something or is dead; see `hand_out`."""
        connections = wait([worker.connection for worker in pool])
        return [worker for worker in pool if worker.connection in connections]

    def give(self, job: int) -> None:
        """Gives it a job; see `Worker.give`."""
        self.job = job
        with contextlib.suppress(OSError):
            self.connection.send(job)

    def receive(self) -> Message | None:
        """Receives what it sent; see `Worker.receive`."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(SECONDS_TO_END)  # so that `end` tells its own end, not ours
            return None

    def stop(self) -> None:
        """Kills it; see `Worker.stop`."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    @property
    def end(self) -> str:
        """How it died, in words; see `Worker.end`."""
        code = self.process.exitcode or 0
        return f"was stopped by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


class Reporter:
    """The worker's end of the pipe; where the parent is gone, using it ends the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def next_job(self) -> int:
        """Waits for the next job; ends the process if there is none."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise SystemExit(0) from None

    def send(self, message: Message) -> None:
        """Sends a message."""
        try:
            self._connection.send(message)
        except OSError:
            raise SystemExit(1) from None
