"""Makes one run of several that differ in methods, their time or seeds alone."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.provenance import SEVERAL
from benchmarks.report.command import task_of
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run, read_options
from benchmarks.task import Task, find_task
from gfn_envs.errors import UserError


def merge_runs(paths: Sequence[Path], out: Path) -> tuple[RunFolder, Task, int]:
    """Copies the finished cells of several runs into a new run.

    The new run's `config.json` names the others, with what each was made with.

    Args:
        paths: The runs' folders, at least two; they need not be finished.
        out: The new run's folder.

    Returns:
        The new run's folder, its task, and how many of its cells are not finished.

    Raises:
        UserError: If the runs do not fit together, a cell is finished in several of them, or the
            folder is not empty or cannot be written.
    """
    if len(paths) < 2:
        raise UserError("Name at least two runs to merge.")
    name = task_of(paths[0])
    folders = [RunFolder.open(path) for path in paths]
    options = (
        find_task(name).load().merge_options([read_options(name, folder) for folder in folders])
    )
    configs = [folder.read_json("config.json") for folder in folders]
    if len({config.get("data_sha256") for config in configs}) > 1:
        raise UserError("These runs have different data.")
    cells = _finished_cells(folders)
    config = {
        "task": name,
        "options": dataclasses.asdict(options),
        "data_sha256": configs[0]["data_sha256"],
        "versions": _together([config["versions"] for config in configs]),
        "git_commit": _all_of([config["git_commit"] for config in configs]),
        "machine": _together([config["machine"] for config in configs]),
        "merged": [
            {
                "run": str(path),
                **{key: config[key] for key in ("git_commit", "versions", "machine")},
            }
            for path, config in zip(paths, configs, strict=True)
        ],
    }
    try:
        folder = RunFolder.create(out, config)
        for cell, source in cells.items():
            # By way of another name: a cell is there as a whole or not at all.
            beside = out / ".cell.new"
            shutil.copytree(source, beside)
            (out / cell).parent.mkdir(parents=True, exist_ok=True)
            beside.rename(out / cell)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {out}: {reason}; delete it and try again.") from error
    folder, task = open_run(name, out)
    known = {cell.folder for cell in task.cells}
    return folder, task, len(known - cells.keys())


def _finished_cells(folders: Sequence[RunFolder]) -> dict[str, Path]:
    """Finds the finished cells of all runs: where each is, by its folder inside a run.

    Raises:
        UserError: If one is finished in several runs.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for summary in sorted(folder.path.glob("cells/**/summary.json")):
            cell = str(summary.parent.relative_to(folder.path))
            if cell in found:
                raise UserError(f"{cell} is finished in {folder.path} and in another of the runs.")
            found[cell] = summary.parent
    return found


def _together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Says of each name what all have, or what each has."""
    return {key: _all_of([part.get(key) for part in parts]) for key in parts[0]}


def _all_of(values: Sequence[Any]) -> Any:
    """Gives what all values are, or all that they are."""
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else SEVERAL.join(map(str, distinct))
