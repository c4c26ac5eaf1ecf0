"""Workers on a Ray cluster: the same jobs and messages as those of processes on this machine."""

import contextlib
import functools
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

from benchmarks.workers import Display, Message, Stopped, hand_out
from gfn_envs.errors import UserError

SECONDS_TO_ANSWER = 5.0
"""How long it may take until something answers at a cluster's address."""

SECONDS_TO_CONNECT = 30.0
"""How long it may take to connect to the cluster there."""

CONNECT = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"
"""Ray itself waits for minutes for what is no cluster; a process of its own can be ended."""

OBJECT_STORE_BYTES = 100 * 2**20
"""What a cluster that is started here sets aside for objects: the messages are small."""


def carry_out_on_ray(
    target: Callable[..., None],
    arguments: Sequence[Any],
    jobs: Sequence[int],
    workers: int,
    display: Display,
    address: str | None = None,
) -> dict[int, str]:
    """Hands jobs to workers on a Ray cluster until all are done; see `workers.carry_out`.

    Ray ends the workers of a driver that was killed.

    Args:
        target: What a worker does; its module must be installed on every node.
        arguments: Whatever else it needs; picklable.
        jobs: Numbers of the jobs, in the order in which they are begun.
        workers: How many workers, one core each; where the cluster has no room for so many, the
            others wait.
        display: What people see.
        address: Which cluster, as Ray writes it. None: the one that RAY_ADDRESS names, or else one
            that is started on this machine and ended with the jobs.

    Returns:
        Why each of the jobs that failed did so.

    Raises:
        UserError: If the cluster cannot be reached; `require` finds that out sooner.
        Exception: What a worker sent in `Stopped`.
    """
    with _cluster(address, workers):
        start = functools.partial(_RayWorker, target, arguments)
        return hand_out(start, _RayWorker.ready, jobs, workers, display)


def require(address: str | None) -> None:
    """Raises a UserError if Ray is not installed, or soon if its cluster cannot be reached."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray needs the package ray: pip install 'gflownet-em[ray]'.")
    address = _chosen(address)
    if address == "local":
        return
    try:
        if address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
        connected = subprocess.run(
            [sys.executable, "-c", CONNECT, address],
            capture_output=True, text=True, timeout=SECONDS_TO_CONNECT,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"'{address}' is no address of a Ray cluster; write HOST:PORT.") from error
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, "what answers there is no cluster") from error
    if connected.returncode != 0:
        raise _unreachable(address, connected.stderr.strip().rpartition("\n")[2])


def _chosen(address: str | None) -> str:
    """Returns the address of the cluster, "local" for a new one on this machine."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _unreachable(address: str, reason: str) -> UserError:
    """Builds the error for a cluster that cannot be reached."""
    return UserError(
        f"Cannot connect to a Ray cluster at {address} ({reason}). Start one there with 'ray "
        "start', or leave out --address and RAY_ADDRESS."
    )


@contextlib.contextmanager
def _cluster(address: str | None, workers: int) -> Iterator[None]:
    """Connects to a cluster, or starts one for so many workers, and leaves it again."""
    import ray

    if ray.is_initialized():  # by whoever calls this from Python
        yield
        return
    address = _chosen(address)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        settings |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _unreachable(address, str(error).partition("\n")[0]) from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray sets its own
    # What Ray's own processes say, of a worker that died say, comes even without log_to_driver.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


class _Actor:
    """A worker where it runs; Ray calls each method in a thread of its own.

    To the target it is the connection to the driver, with `recv` and `send`.
    """

    def __init__(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # options may name files relative to it
            os.chdir(folder)
        self._jobs: SimpleQueue[int] = SimpleQueue()
        self._messages: SimpleQueue[Message] = SimpleQueue()

    def work(self, pickled: bytes) -> None:
        """Does jobs for ever."""
        import ray.cloudpickle

        try:
            target, arguments = ray.cloudpickle.loads(pickled)
            target(self, *arguments)
        except ImportError as error:
            reason = f"A worker on {socket.gethostname()} cannot start: {error}; install "
            self.send(Stopped(UserError(f"{reason}gflownet-em as it is here on every node.")))
        except Exception:
            self.send(Stopped(RuntimeError(traceback.format_exc())))

    def give(self, job: int) -> None:
        """Takes a job from the driver."""
        self._jobs.put(job)

    def message(self) -> Message:
        """Waits for the next message to the driver."""
        return self._messages.get()

    def recv(self) -> int:
        """Waits for a job; the driver ends a worker that it has none for."""
        return self._jobs.get()

    def send(self, message: Message) -> None:
        """Sends a message to the driver."""
        self._messages.put(message)


class _RayWorker:
    """A worker as the driver sees it; see `workers.Worker`.

    Attributes:
        job: What it is doing.
        message: Ray's promise of the next message.
        end: How it died, in words.
    """

    end = "died"

    def __init__(self, target: Callable[..., None], arguments: Sequence[Any], job: int) -> None:
        """Asks Ray for the worker, with its first job."""
        import ray

        actor = ray.remote(num_cpus=1, max_concurrency=3)(_Actor)
        self._actor = actor.remote(os.getcwd())
        self._actor.work.remote(ray.cloudpickle.dumps((target, arguments)))
        self.message = self._actor.message.remote()
        self.give(job)

    @staticmethod
    def ready(pool: Sequence["_RayWorker"]) -> list["_RayWorker"]:
        """Waits until one has sent something or is dead; see `hand_out`."""
        import ray

        messages, _ = ray.wait([worker.message for worker in pool])
        return [worker for worker in pool if worker.message in messages]

    def give(self, job: int) -> None:
        """Gives it a job; see `Worker.give`."""
        self.job = job
        self._actor.give.remote(job)

    def receive(self) -> Message | None:
        """Receives what it sent; see `Worker.receive`."""
        import ray

        try:
            message = ray.get(self.message)
        except ray.exceptions.RayError as error:
            reason = re.search(r"is dead because (.*?)\.(\s|$)", str(error))
            self.end = f"died ({reason[1]})" if reason else "died"
            return None
        self.message = self._actor.message.remote()
        return message

    def stop(self) -> None:
        """Kills it; see `Worker.stop`."""
        import ray

        ray.kill(self._actor)
