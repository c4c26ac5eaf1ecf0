"""Carries out standard tasks one after the other, each a run in a folder of its own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.em_data.tasks import DataTask, find_data_task
from benchmarks.held_out.options import HeldOutOptions
from benchmarks.options import option, saved_options
from benchmarks.provenance import made_with
from benchmarks.run_folder import RunFolder
from benchmarks.runner import make_folder, open_run, run_task, start_run
from benchmarks.task import Task
from gfn_envs.errors import UserError, unknown_name

SUITE = "em-data"


@dataclass(frozen=True)
class Options:
    """What can be set on the command line; what is left alone is as each task has it."""

    tasks: tuple[str, ...] = option(
        ("toy", "digits"), "standard tasks: toy (a grammar whose truth is known), craft-10 (a "
        "treebank's sentences of at most 10 words), digits and mnist-5k (images)",
    )  # fmt: skip
    methods: tuple[str, ...] = option(
        (), "registered methods; each task takes those of its kind; none: each task's own choice"
    )
    seeds: int = option(3, "starts, with seeds 0, 1, ...")
    first_seed: int = option(0, "the seed to count from")
    cpu_minutes: float = option(
        0.0, "CPU-minutes of each method and seed; 0: as each task has them"
    )
    treebank: str = option("", "the data of craft-10; see --data of gfnem run grammar")

    def of(self, task: DataTask) -> HeldOutOptions:
        """Makes the options of one task.

        Raises:
            UserError: If the task knows none of the methods, or its data are not named.
        """
        changes: dict[str, Any] = {"seeds": self.seeds, "first_seed": self.first_seed}
        if self.cpu_minutes:
            changes["cpu_minutes"] = self.cpu_minutes
        if task.needs_treebank:
            if not self.treebank:
                raise UserError(f"{task.name} needs --treebank, a folder of bracketed trees.")
            changes["data"] = self.treebank
        known = task.load().known_methods
        if self.methods:
            changes["methods"] = tuple(name for name in self.methods if name in known)
            if not changes["methods"]:
                raise UserError(
                    f"{task.name} has none of the --methods; it knows {', '.join(known)}."
                )
        return task.options(**changes)

    def check(self) -> None:
        """Raises a UserError if an option cannot be served; each task checks its own too."""
        if not self.tasks:
            raise UserError("--tasks names no task.")
        tasks = [find_data_task(name) for name in self.tasks]
        if len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"--tasks names {max(self.tasks, key=self.tasks.count)} twice.")
        known = [name for task in tasks for name in task.load().known_methods]
        for method in self.methods:
            if method not in known:
                raise unknown_name("method", method, dict.fromkeys(known))
        for task in tasks:
            self.of(task)


def start(options: Options, path: Path) -> RunFolder:
    """Makes the folder of a new run of the suite, and those of its tasks.

    Raises:
        UserError: If an option cannot be served, or the folder is not empty or cannot be written.
    """
    options.check()
    made = [(task, task.load()(options.of(task))) for task in map(find_data_task, options.tasks)]
    folder = make_folder(path, {"suite": SUITE, "options": asdict(options), **made_with()})
    for task, run in made:
        start_run(task.task, run, folder.path / task.name)
    return folder


def resume(path: Path) -> tuple[RunFolder, Options]:
    """Opens a run of the suite.

    Raises:
        UserError: If there is none.
    """
    folder = RunFolder.open(path)
    config = folder.read_json("config.json")
    if config.get("suite") != SUITE:
        raise UserError(f"{path} does not hold a run of {SUITE}; nothing was changed.")
    return folder, saved_options(Options, config, SUITE, path)


def carry_out(
    folder: RunFolder,
    options: Options,
    say: Callable[[str], None],
    tensorboard: bool = False,
    workers: int = 1,
    engine: str = "local",
    address: str | None = None,
) -> tuple[Sequence[Path], bool]:
    """Carries out what the tasks still need; see `run_task`.

    Args:
        folder: The suite's folder.
        options: Its options.
        say: Shows a task's table as soon as it is there.
        tensorboard: See `run_task`.
        workers: See `run_task`.
        engine: See `run_task`.
        address: See `run_task`.

    Returns:
        The files to look at, and whether every cell of every task has finished.
    """
    tables, files, finished = [], [folder.path / "table.md"], True
    for name in options.tasks:
        run, task = _open(folder, options, find_data_task(name))
        table, of_task = run_task(task, run, tensorboard, workers, engine, address)
        finished &= run.read_json("summary.json")["status"] == "finished"
        say(f"{name}\n\n{table}")
        tables.append(f"## {name}\n\n{table}\n")
        files += of_task
    folder.write_text("table.md", "\n".join(tables))
    return files, finished


def _open(folder: RunFolder, options: Options, standard: DataTask) -> tuple[RunFolder, Task]:
    """Opens a task's run, or makes it if the suite was killed before it was made."""
    path = folder.path / standard.name
    if not (path / "config.json").is_file():
        start_run(standard.task, standard.load()(options.of(standard)), path)
    return open_run(standard.task, path)
