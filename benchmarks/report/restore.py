"""Learners as finished cells have left them."""

from __future__ import annotations

from typing import Any

from benchmarks.run_folder import RunFolder
from benchmarks.task import Cell, Task


def restore(task: Task, folder: RunFolder, cell: Cell) -> Any | None:
    """Makes a cell's learner as it was at its last checkpoint.

    Args:
        task: The task.
        folder: The run's folder.
        cell: The cell.

    Returns:
        The learner, or None if the checkpoint is gone.

    Raises:
        UserError: If the checkpoint is damaged, or of another version.
    """
    run = RunFolder(folder.path / cell.folder)
    saved = run.read_checkpoint()
    if saved is None:
        return None
    learner = task.make_learner(cell)
    try:
        learner.load_state_dict(saved["learner"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise run.damaged("checkpoint.pt") from error
    return learner
