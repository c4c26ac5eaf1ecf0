"""Carries out a task's cells, each resumable to the very numbers of an undisturbed run."""

import dataclasses
import functools
import hashlib
import math
import resource
import socket
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from algorithms.learner import Learner
from benchmarks.options import saved_options
from benchmarks.provenance import made_with
from benchmarks.ray_workers import carry_out_on_ray
from benchmarks.run_folder import RunFolder, remove_unfinished
from benchmarks.sweep_bar import SweepBar
from benchmarks.task import Cell, Task, find_task
from benchmarks.workers import Done, JobDisplay, Progress, Reporter, Said, Stopped, carry_out
from gfn_envs.errors import UserError

SECONDS_BETWEEN_CHECKPOINTS = 5.0

SECONDS_BETWEEN_REPORTS = 0.1
"""A worker says no oftener how far it is, and notices no later that its parent is gone."""

SECONDS_FOR_ORPHANS = 30.0
"""How long a cell waits for a worker whose parent was killed and that has not noticed yet."""


def start_run(task_name: str, task: Task, path: Path) -> RunFolder:
    """Makes the folder of a new run.

    Args:
        task_name: A registered task.
        task: The task, made from the run's options.
        path: Where the folder is to be.

    Returns:
        The folder.

    Raises:
        UserError: If the folder is not empty or cannot be written.
    """
    config = {
        "task": task_name,
        "options": dataclasses.asdict(task.options),
        "data_sha256": _fingerprint(task),
        **made_with(),
    }
    return make_folder(path, config)


def make_folder(path: Path, config: dict[str, Any]) -> RunFolder:
    """Makes a new folder; see `RunFolder.create`.

    Raises:
        UserError: If the folder is not empty or cannot be written.
    """
    try:
        return RunFolder.create(path, config)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot make a run folder at {path}: {reason}.") from error


def open_run(task_name: str, path: Path) -> tuple[RunFolder, Task]:
    """Opens the folder of a run to be resumed.

    Args:
        task_name: The task that the run must be of.
        path: The folder.

    Returns:
        The folder, and the task made from the options that the run was started with.

    Raises:
        UserError: If the folder is not of a run of this task, or its data have changed.
    """
    folder = RunFolder.open(path)
    config = folder.read_json("config.json")
    task = find_task(task_name).load()(read_options(task_name, folder))
    if config.get("data_sha256") != _fingerprint(task):
        raise UserError(
            f"The data are not those that the run in {path} was started with; restore them, or "
            "start a new run."
        )
    return folder, task


def read_options(task_name: str, folder: RunFolder) -> Any:
    """Reads the options that a run was started with.

    Args:
        task_name: The task that the run must be of.
        folder: The run's folder.

    Raises:
        UserError: If the run is of another task or version.
    """
    config = folder.read_json("config.json")
    if config.get("task") != task_name:
        raise UserError(
            f"{folder.path} holds a run of {config.get('task', 'something else')}, not of "
            f"{task_name}; nothing was changed."
        )
    return saved_options(find_task(task_name).load().options_type, config, task_name, folder.path)


def run_task(
    task: Task,
    folder: RunFolder,
    tensorboard: bool = False,
    workers: int = 1,
    engine: str = "local",
    address: str | None = None,
) -> tuple[str, list[Path]]:
    """Carries out every cell that is not finished, then reports.

    A cell that fails is named at once. If the task's `failures_are_reported`, the others go on and
    the run's `summary.json` has the status "some cells failed"; resuming tries those cells again.

    Args:
        task: The task.
        folder: The run's folder.
        tensorboard: Whether to write every metric as TensorBoard events too.
        workers: How many processes to carry cells out in; 1 local one is this one.
        engine: Where they are: "local", or "ray" for a Ray cluster.
        address: Which Ray cluster; see `carry_out_on_ray`.

    Returns:
        A table to print, and the files to look at.

    Raises:
        UserError: If another process is in the folder, or a cell fails, training diverging say,
            that the task cannot do without, or the Ray cluster cannot be reached.
    """
    with folder.locked():
        cells = task.cells
        finished = [RunFolder(folder.path / cell.folder).finished for cell in cells]
        unfinished = [job for job, done in enumerate(finished) if not done]
        with SweepBar(task, sum(finished)) as bar:
            if unfinished and (workers > 1 or engine == "ray"):
                name = folder.read_json("config.json")["task"]
                path, carry_out_cells = folder.path, carry_out
                if engine == "ray":
                    path = path.absolute()  # elsewhere there is another current folder
                    carry_out_cells = functools.partial(carry_out_on_ray, address=address)
                failed = carry_out_cells(_work, (name, path, tensorboard), unfinished, workers, bar)
            else:
                failed = _carry_out_here(task, folder, unfinished, bar, tensorboard)
        failures = {cells[job]: reason for job, reason in sorted(failed.items())}
        table, files = task.report(folder, failures)
        summaries = [
            {**dataclasses.asdict(cell), "status": "failed", "error": failures[cell]}
            if cell in failures
            else RunFolder(folder.path / cell.folder).read_json("summary.json")
            for cell in cells
        ]
        status = "some cells failed" if failures else "finished"
        folder.write_json("summary.json", {"status": status, "cells": summaries})
    return table, files


def _carry_out_here(
    task: Task, run: RunFolder, jobs: list[int], bar: SweepBar, tensorboard: bool
) -> dict[int, str]:
    """Carries out cells one after another in this process; see `carry_out`."""
    failures = {}
    for job in jobs:
        display = JobDisplay(functools.partial(bar.show, job), functools.partial(bar.say, job))
        failure = _attempt_cell(task, task.cells[job], run, display, tensorboard)
        if failure is None:
            bar.show(job, task.num_updates, {})  # also of a cell that ended early
        else:
            failures[job] = failure
            bar.fail(job, failure)
    return failures


def _work(connection: Connection, task_name: str, path: Path, tensorboard: bool) -> None:
    """Carries out cells in a worker process, as many as it is given; see `carry_out`."""
    torch.set_num_threads(1)  # the other cores are the other workers'
    # Bars' own lock is a semaphore, which a worker that is killed leaves behind.
    tqdm.set_lock(threading.RLock())
    parent = Reporter(connection)
    last_shown = 0.0

    def show(updates: int, metrics: dict[str, float]) -> None:
        nonlocal last_shown
        if time.monotonic() - last_shown > SECONDS_BETWEEN_REPORTS:
            parent.send(Progress(updates, metrics))
            last_shown = time.monotonic()

    display = JobDisplay(show, lambda text: parent.send(Said(text)))
    try:
        if not path.is_dir():
            raise UserError(
                f"A worker on {socket.gethostname()} cannot see {path}; the run's folder must be "
                "on a file system that all of its machines share."
            )
        run, task = open_run(task_name, path)
        while True:
            cell = task.cells[parent.next_job()]
            failure = _attempt_cell(task, cell, run, display, tensorboard)
            if failure is None:
                parent.send(Progress(task.num_updates, {}))
            parent.send(Done(failure))
    except (UserError, OSError, MemoryError) as error:
        parent.send(Stopped(error))
    except Exception:
        parent.send(Stopped(RuntimeError(traceback.format_exc())))


def _attempt_cell(
    task: Task,
    cell: Cell,
    run: RunFolder,
    display: JobDisplay,
    tensorboard: bool,
) -> str | None:
    """Carries out one cell and returns why it failed, or None.

    Raises:
        OSError: If the folder cannot be written: that is no fault of the cell's.
        Exception: Any failure, if the task cannot do without the cell.
    """
    try:
        _run_cell(task, cell, run, display, tensorboard)
    except OSError:
        raise
    except UserError as error:
        if not task.failures_are_reported:
            raise UserError(f"{cell.title}: {error}") from error
        return str(error)
    except Exception as error:
        if not task.failures_are_reported:
            raise
        RunFolder(run.path / cell.folder).write_text("error.txt", traceback.format_exc())
        return f"{type(error).__name__}: {error} (see {cell.folder}/error.txt)"
    return None


def _run_cell(
    task: Task,
    cell: Cell,
    run: RunFolder,
    display: JobDisplay,
    tensorboard: bool,
) -> None:
    """Carries out one cell, from its checkpoint if it has one."""
    path = run.path / cell.folder
    remove_unfinished(path)
    folder = RunFolder(path) if path.is_dir() else RunFolder.create(path, dataclasses.asdict(cell))
    with folder.locked(patience=SECONDS_FOR_ORPHANS):
        if not folder.finished:
            _update_cell(task, cell, run, folder, display, tensorboard)


def _update_cell(
    task: Task,
    cell: Cell,
    run: RunFolder,
    folder: RunFolder,
    display: JobDisplay,
    tensorboard: bool,
) -> None:
    """Makes the updates that a cell still needs, and its summary."""
    learner = task.make_learner(cell)
    data = task.data(cell)
    saved = folder.read_checkpoint()
    cost = {"cpu_seconds": 0.0, "wall_seconds": 0.0}
    done = 0
    if saved is not None:
        learner.load_state_dict(saved["learner"])
        torch.set_rng_state(saved["global_random_state"])
        cost, done = saved["cost"], saved["updates"]
    display.show(done, {})
    folder.keep_metrics(math.ceil(done / task.evaluate_every))

    writer = None
    if tensorboard:
        name = cell.folder.removeprefix("cells/").replace("/", "-")
        writer = tensorboard_writer()(run.path / "tensorboard" / name, purge_step=done + 1)
    last_saved = time.monotonic()
    while done < task.num_updates and not task.is_done(learner):
        update = done + 1
        cpu, wall = time.process_time(), time.perf_counter()
        metrics = learner.update(data)
        cost["cpu_seconds"] += time.process_time() - cpu
        cost["wall_seconds"] += time.perf_counter() - wall
        _require_finite(metrics, update)
        done = update
        if update % task.evaluate_every != 0 and update < task.num_updates:
            display.show(update, metrics)
            continue
        metrics |= task.evaluate(learner)
        _require_finite(metrics, update)
        warning = task.warning(learner, update, metrics)
        if warning is not None:
            display.say(warning)
        folder.append_metrics({"update": update, **metrics, "cpu_seconds": cost["cpu_seconds"]})
        if writer is not None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, update)
        display.show(update, metrics)
        if time.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS:
            _save(folder, learner, cost, update)
            last_saved = time.monotonic()
    if writer is not None:
        writer.close()
    _save(folder, learner, cost, done)
    final_metrics = task.final_metrics(learner)
    task.save_details(learner, folder)
    folder.write_json(
        "summary.json",
        {
            **dataclasses.asdict(cell),
            "status": "finished",
            "metrics": final_metrics,
            "cost": {
                **cost,
                "updates": done,
                "likelihood_evaluations": learner.likelihood_evaluations,
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            },
        },
    )


def _save(folder: RunFolder, learner: Learner, cost: dict[str, float], updates: int) -> None:
    """Writes the checkpoint after so many updates."""
    folder.write_checkpoint(
        {
            "learner": learner.state_dict(),
            "global_random_state": torch.get_rng_state(),
            "cost": cost,
            "updates": updates,
        }
    )


def _require_finite(metrics: dict[str, float], update: int) -> None:
    """Raises a UserError if a metric is not a number: training has diverged."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UserError(
                f"{name} became {value} at update {update}; a lower learning rate may help."
            )


def _fingerprint(task: Task) -> str:
    """Hashes the training data of all cells, those that cells share once, and what judges them."""
    hashed = hashlib.sha256()
    training = {id(data): data for data in map(task.data, task.cells)}
    for data in (*training.values(), *task.judging_data):
        hashed.update(data.numpy().tobytes())
    return hashed.hexdigest()


def tensorboard_writer() -> Any:
    """Imports TensorBoard's writer; raises a UserError if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs the package tensorboard: pip install 'gflownet-em[tensorboard]'."
        ) from error
    return SummaryWriter
