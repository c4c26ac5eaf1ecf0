"""What a benchmark task is, and the registry of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from algorithms.learner import Learner
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError, unknown_name
from gfn_envs.registration import load, load_plugins

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference


@dataclass(frozen=True)
class Cell(ABC):
    """One learner run of a task: a frozen dataclass whose fields tell it from the others.

    The fields are strings and numbers; they become the cell's `config.json`.
    """

    @property
    @abstractmethod
    def folder(self) -> str:
        """Where the cell lives inside its run's folder: below `cells/`."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What people are shown."""


class Task(ABC):
    """Data, a model to learn, the methods that learn it, and what is reported of them.

    A task is made from its options; the runner then carries out its cells, each a learner that
    is updated `num_updates` times, and hands the finished folder back to `report`.

    Attributes:
        options_type: A frozen dataclass, each field with a default and metadata `help`; the command
            line is made from it.
        presets: Option values under a name, for `--preset`.
        failures_are_reported: Whether the report can do without cells that fail. The others are
            then carried out nevertheless; otherwise the first failure ends the run.
        evaluate_every: How many updates lie between two evaluations, each a line of
            `metrics.jsonl`; there is always one after the last update.
        shown_metrics: The metrics that the progress bar shows; the first ones if none is named.
        reference: A file with the summary of a run at the default settings, if one is stored, for
            `gfnem report --against reference`.
        options: The options that the task was made from.
    """

    options_type: ClassVar[type]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    failures_are_reported: ClassVar[bool] = False
    evaluate_every: int = 1
    shown_metrics: ClassVar[Sequence[str]] = ()
    reference: ClassVar[Path | None] = None
    options: Any

    @abstractmethod
    def __init__(self, options: Any) -> None:
        """Checks the options and loads the data.

        Raises:
            UserError: If an option cannot be served.
        """

    @classmethod
    def merge_options(cls, options: Sequence[Any]) -> Any:
        """Gives the options of one run that has all cells of several.

        Args:
            options: Of the several, whose data are the same.

        Raises:
            UserError: If they differ in what all cells of a run have in common, or runs of this
                task cannot be merged.
        """
        raise UserError("Runs of this task cannot be merged.")

    @property
    @abstractmethod
    def cells(self) -> Sequence[Cell]:
        """Every learner run, in the order in which they are carried out."""

    @property
    @abstractmethod
    def num_updates(self) -> int:
        """How many updates each learner gets, at most; see `is_done`."""

    @abstractmethod
    def data(self, cell: Any) -> Tensor:
        """Returns what each update of a cell's learner sees, `[N, ...]`."""

    @property
    def judging_data(self) -> Sequence[Tensor]:
        """What learners are judged by, where it is read from files and so may change."""
        return ()

    @abstractmethod
    def make_learner(self, cell: Any) -> Learner:
        """Makes a cell's learner, the same every time it is called."""

    @abstractmethod
    def evaluate(self, learner: Any) -> dict[str, float]:
        """Measures a learner after an update; not counted in its cost."""

    def is_done(self, learner: Any) -> bool:
        """Says whether a learner is at its end though updates are left; never by default.

        Asked after every measurement, and of a learner that is resumed; it must depend on nothing
        but what `Learner.state_dict` holds.
        """
        return False

    def warning(self, learner: Any, update: int, metrics: dict[str, float]) -> str | None:
        """Says what people should know at once of a learner that was just measured, if anything.

        Args:
            learner: The learner.
            update: How many updates it has had.
            metrics: What it was measured to be.
        """
        return None

    @abstractmethod
    def final_metrics(self, learner: Any) -> dict[str, dict[str, float]]:
        """Measures a learner at its end: name to mean, standard_error and n."""

    def save_details(self, learner: Any, folder: RunFolder) -> None:
        """Saves what the report needs of a cell beside its final metrics; nothing by default.

        Args:
            learner: The learner at its end.
            folder: The cell's folder, to be written to before its summary.
        """

    @abstractmethod
    def report(self, folder: RunFolder, failures: Mapping[Any, str]) -> tuple[str, list[Path]]:
        """Writes the tables and pictures of a finished run.

        Args:
            folder: The run's folder, every cell of which is finished or has failed.
            failures: Why each of the cells that failed did so; empty unless the task's
                `failures_are_reported`.

        Returns:
            A table to print, and the files to look at.
        """

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not, for `gfnem report`.

        Args:
            folder: The run's folder. Cells may be unfinished, failed, or not begun.
            against: Earlier results to compare with, if any.

        Returns:
            The report.

        Raises:
            UserError: If no cell is finished, a file is damaged, or the task has no such report.
        """
        raise UserError(f"Runs in {folder.path} have no report but the one that they end with.")

    def summary(self, folder: RunFolder) -> dict[str, Any]:
        """Summarises a run in JSON types, to compare later runs with.

        Args:
            folder: The run's folder, with at least one finished cell.

        Returns:
            The run's `config`, and its results.

        Raises:
            UserError: If there are none, or the task's runs cannot be compared.
        """
        raise UserError(f"Runs in {folder.path} have no summary to compare with others.")


@dataclass(frozen=True)
class TaskSpec:
    """A registered task.

    Attributes:
        name: What it is called on the command line.
        entry_point: `module:Class` of a `Task`.
        description: One line.
        command: Which `gfnem` command carries it out, "run" or "bench".
    """

    name: str
    entry_point: str
    description: str
    command: str = "run"

    def load(self) -> type[Task]:
        """Imports the task's class."""
        return load(self.entry_point)


tasks: dict[str, TaskSpec] = {}
"""Every registered task by name."""


def register_task(name: str, entry_point: str, description: str, command: str = "run") -> None:
    """Registers a task.

    In another process (a worker, the command line) the registering module is found through the
    entry-point group `gfn_envs.plugins`.

    Args:
        name: What it is called on the command line.
        entry_point: `module:Class` of a `Task`.
        description: One line for `gfnem list`.
        command: "run" for a task of its own, "bench" for a suite that compares parts.
    """
    tasks[name] = TaskSpec(name, entry_point, description, command)


def tasks_of(command: str) -> dict[str, TaskSpec]:
    """Returns the registered tasks that `gfnem run` or `gfnem bench` carries out, by name."""
    return {name: spec for name, spec in tasks.items() if spec.command == command}


def find_task(name: str, command: str | None = None) -> TaskSpec:
    """Finds a registered task.

    Args:
        name: What it is called.
        command: The `gfnem` command that it must be for, "run" or "bench"; any by default.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in tasks:
        load_plugins()
    known = tasks if command is None else tasks_of(command)
    if name not in known:
        raise unknown_name("task", name, known)
    return known[name]


register_task(
    "hierarchical-mixture",
    "benchmarks.hierarchical_mixture.task:HierarchicalMixture",
    "Learn a hierarchy of Gaussian components by EM, with five E-steps (paper, section 5.1)",
)
register_task(
    "discrete-vae",
    "benchmarks.discrete_vae.task:DiscreteVAETask",
    "Learn discrete VAEs of images by GFlowNet-EM and its competitors (paper, section 5.3)",
)
register_task(
    "grammar",
    "benchmarks.grammar.task:GrammarTask",
    "Learn grammars from sentences by exact inference and by Monte Carlo (paper, section 5.2)",
)
register_task(
    "posterior",
    "benchmarks.posterior.suite:PosteriorSuite",
    "Compare objectives and explorations on exact posteriors, at equal numbers of updates",
    command="bench",
)
register_task(
    "tree-posterior",
    "benchmarks.tree_posterior.suite:TreePosteriorSuite",
    "Compare policies over parse trees and their objectives on exact posteriors of grammars",
    command="bench",
)
register_task(
    "em",
    "benchmarks.em.suite:EMSuite",
    "Learn standard models from scratch by every EM method, from the same data and starts",
    command="bench",
)
