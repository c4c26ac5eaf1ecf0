"""Earlier results that a report is held against: a stored summary, or another run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runner import open_run
from benchmarks.task import Task
from gfn_envs.errors import UserError


@dataclass(frozen=True)
class Reference:
    """What a run is held against.

    Attributes:
        name: What people are shown.
        summary: What `Task.summary` returned for it.
    """

    name: str
    summary: Mapping[str, Any]


def find_reference(word: str, task_name: str, task: Task) -> Reference:
    """Finds earlier results.

    Args:
        word: "reference" for those stored with the task, the path of a summary, or a run's folder.
        task_name: The task that they must be of.
        task: The run's task.

    Raises:
        UserError: If there are none, or they cannot be read or are of another task.
    """
    path, name = Path(word), word
    if word == "reference":
        if task.reference is None:
            raise UserError(f"{task_name} has no stored reference; name a file or a run's folder.")
        path, name = task.reference, "the stored reference"
    if path.is_dir():
        return Reference(name, _other_run(path, task_name))
    if not path.is_file():
        raise UserError(
            f"There is no {word} to compare with; --against takes 'reference', a file written by "
            "--summary-out, or a run's folder."
        )
    return Reference(name, _read(path, task_name))


def _other_run(path: Path, task_name: str) -> dict[str, Any]:
    """Summarises another run."""
    folder, task = open_run(task_name, path)
    return task.summary(folder)


def _read(path: Path, task_name: str) -> dict[str, Any]:
    """Reads a summary that was stored."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); name another file.") from error
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or config.get("task") != task_name:
        raise UserError(f"{path} is no summary of {task_name} as --summary-out writes it.")
    return content


def dump_summary(summary: Mapping[str, Any]) -> str:
    """Writes a summary as JSON in which an entry of a list has one line, so that it is short."""
    fields = []
    for name, value in summary.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(one)}" for one in value)
            fields.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            fields.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(fields) + "\n}\n"
