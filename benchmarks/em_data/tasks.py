"""Standard tasks of learning from data: settings of `gfnem run` that everybody shares."""

from dataclasses import dataclass

from benchmarks.held_out.options import HeldOutOptions
from benchmarks.held_out.task import HeldOutTask
from benchmarks.task import find_task
from gfn_envs.errors import unknown_name


@dataclass(frozen=True)
class DataTask:
    """A standard task.

    Attributes:
        name: What it is called.
        task: The task of `gfnem run` that it is, a `HeldOutTask`.
        preset: Which of its presets.
        needs_treebank: Whether its data are a treebank that the user has to name.
    """

    name: str
    task: str
    preset: str
    needs_treebank: bool = False

    def load(self) -> type[HeldOutTask]:
        """Imports the task's class."""
        kind = find_task(self.task, "run").load()
        assert issubclass(kind, HeldOutTask)
        return kind

    def options(self, **changes: object) -> HeldOutOptions:
        """Makes its options.

        Args:
            **changes: What differs from the preset.
        """
        kind = self.load()
        options = kind.options_type(**{**kind.presets[self.preset], **changes})
        assert isinstance(options, HeldOutOptions)
        return options


data_tasks: dict[str, DataTask] = {}
"""Every registered standard task by name."""


def register_data_task(
    name: str, task: str, preset: str | None = None, needs_treebank: bool = False
) -> None:
    """Registers a standard task.

    Args:
        name: What it is called on the command line.
        task: A registered task of `gfnem run` that judges methods on held-out data.
        preset: One of its presets; the one of that name by default.
        needs_treebank: Whether its data are a treebank that the user has to name.
    """
    data_tasks[name] = DataTask(name, task, preset or name, needs_treebank)


def find_data_task(name: str) -> DataTask:
    """Finds a standard task, or raises a UserError."""
    if name not in data_tasks:
        raise unknown_name("task", name, data_tasks)
    return data_tasks[name]


register_data_task("toy", "grammar")
register_data_task("craft-10", "grammar", needs_treebank=True)
register_data_task("digits", "discrete-vae")
register_data_task("mnist-5k", "discrete-vae")
