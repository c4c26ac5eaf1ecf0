"""How far a run is: which cells are finished, which failed, and which are not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.provenance import SEVERAL
from benchmarks.report.document import Block, Bullets, Notice, Paragraph
from benchmarks.report.numbers import counted
from benchmarks.run_folder import RunFolder
from benchmarks.task import Cell, Task
from gfn_envs.errors import UserError

NAMED = 20
"""So many cells are named; of more, the number is enough."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        finished: Cells with a summary, at least one.
        failed: Why each of the cells that failed in the last attempt did so.
        missing: The others.
    """

    finished: list[Any]
    failed: dict[Cell, str]
    missing: list[Cell]

    @classmethod
    def of(cls, task: Task, folder: RunFolder) -> Progress:
        """Looks which of a task's cells are finished; the run may be going on meanwhile.

        Raises:
            UserError: If none is.
        """
        finished = [cell for cell in task.cells if RunFolder(folder.path / cell.folder).finished]
        if not finished:
            raise UserError(
                f"Nothing is finished in {folder.path} yet; let the run go on, with --resume if it "
                "was stopped."
            )
        reasons = _reasons(task, folder)
        others = [cell for cell in task.cells if cell not in set(finished)]
        failed = {cell: reasons[cell] for cell in others if cell in reasons}
        return cls(finished, failed, [cell for cell in others if cell not in failed])

    def subtitle(self, folder: RunFolder, config: Mapping[str, Any]) -> str:
        """Says in a line which run this is."""
        finished = len(self.finished)
        cells = counted(finished + len(self.failed) + len(self.missing), "cell")
        commits = (config.get("git_commit") or "unknown").split(SEVERAL)
        word = "commit" if len(commits) == 1 else "commits"
        name = folder.path.resolve().name
        return (
            f"{name}: {finished:,} of {cells} finished, {word} {SEVERAL.join(map(_short, commits))}"
        )


def notices(progress: Progress) -> list[Block]:
    """Says what is not there; nothing where all is."""
    blocks: list[Block] = []
    if progress.missing:
        are = "is" if len(progress.missing) == 1 else "are"
        blocks += _notice(
            f"{counted(len(progress.missing), 'cell')} {are} not finished; this report is of the "
            "others.",
            [cell.title for cell in progress.missing],
        )
    if progress.failed:
        blocks += _notice(
            f"{counted(len(progress.failed), 'cell')} failed; this report is of the others.",
            [f"{cell.title}: {reason}" for cell, reason in progress.failed.items()],
        )
    return blocks


def _short(commit: str) -> str:
    """Abbreviates a commit."""
    commit, _, changes = commit.partition("+")
    return f"{commit[:12]} with {changes}" if changes else commit[:12]


def _notice(text: str, lines: Sequence[str]) -> list[Block]:
    """Makes a notice and a list of which cells it is about."""
    shown = list(lines[:NAMED])
    if len(lines) > NAMED:
        shown.append(f"and {len(lines) - NAMED} more")
    return [Notice(Paragraph(text)), Bullets([Paragraph(line) for line in shown])]


def _reasons(task: Task, folder: RunFolder) -> dict[Cell, str]:
    """Reads from the run's summary, where there is one, why cells failed."""
    if not folder.finished:
        return {}
    records = folder.read_json("summary.json").get("cells", [])
    return {
        cell: str(record["error"])
        for cell, record in zip(task.cells, records, strict=False)
        if isinstance(record, dict) and "error" in record
    }
