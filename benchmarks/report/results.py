"""What a suite's run found: the final metrics of every combination, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report.contest import Contest
from benchmarks.report.progress import Progress
from benchmarks.run_folder import RunFolder
from benchmarks.task import Cell, Task
from gfn_envs.errors import UserError


@dataclass(frozen=True)
class Combination:
    """All finished runs of one choice on one task.

    Attributes:
        contest: What it is part of.
        task: The model.
        choice: What was chosen, one name for each of the contest's `choices`.
        seeds: Which seeds finished, at least one.
        metrics: Each metric's final value of every seed.
        updates: Of each run.
        likelihood_evaluations: Of every seed.
        cpu_seconds: Of every seed, without measurements.
    """

    contest: Contest
    task: str
    choice: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]
    updates: int
    likelihood_evaluations: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from the others."""
        return self.task, *self.choice

    @property
    def name(self) -> str:
        """What people are shown, beside the task."""
        return " with ".join(self.choice)

    @property
    def values(self) -> tuple[float, ...]:
        """The ranking metric's value of every seed."""
        return self.metrics[self.contest.metric]

    @property
    def mean(self) -> float:
        """The ranking metric's mean over seeds."""
        return float(np.mean(self.values))

    def standard_error(self, metric: str) -> float | None:
        """Returns the standard error over seeds of a metric's mean; None of one seed."""
        values = self.metrics[metric]
        if len(values) < 2:
            return None
        return float(np.std(values, ddof=1) / len(values) ** 0.5)

    def by_seed(self, metric: str | None = None) -> dict[int, float]:
        """Returns each seed's value of a metric, the ranking one by default."""
        return dict(zip(self.seeds, self.metrics[metric or self.contest.metric], strict=True))

    def cell(self, seed: int) -> Cell:
        """Returns the cell of a seed."""
        return self.contest.cell_type(*self.key, seed)


def read(contest: Contest, folder: RunFolder, cells: Iterable[Any]) -> list[Combination]:
    """Reads the summaries of finished cells, combined over seeds, in the order of the cells.

    Raises:
        UserError: If a summary is damaged.
    """
    groups: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}
    for cell in cells:
        run = RunFolder(folder.path / cell.folder)
        summary = run.read_json("summary.json")
        try:
            found = {name: float(metric["mean"]) for name, metric in summary["metrics"].items()}
            cost = {name: float(value) for name, value in summary["cost"].items()}
            record = {"metrics": {contest.metric: found[contest.metric], **found},
                      "updates": int(cost["updates"]),
                      "likelihood_evaluations": cost["likelihood_evaluations"],
                      "cpu_seconds": cost["cpu_seconds"]}  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise run.damaged("summary.json") from error
        key = (cell.task, *(getattr(cell, name) for name in contest.choices))
        groups.setdefault(key, []).append((cell.seed, record))
    return [_combine(contest, key, group) for key, group in groups.items()]


def _combine(
    contest: Contest, key: tuple[str, ...], group: list[tuple[int, dict[str, Any]]]
) -> Combination:
    """Combines the seeds of one combination."""
    records = [record for _, record in group]
    return Combination(
        contest,
        task=key[0],
        choice=key[1:],
        seeds=tuple(seed for seed, _ in group),
        metrics={
            name: tuple(record["metrics"][name] for record in records)
            for name in records[0]["metrics"]
        },
        updates=records[0]["updates"],
        likelihood_evaluations=tuple(record["likelihood_evaluations"] for record in records),
        cpu_seconds=tuple(record["cpu_seconds"] for record in records),
    )


def summary(contest: Contest, suite: Task, folder: RunFolder) -> dict[str, Any]:
    """Summarises a run of a suite, finished or not; see `Task.summary`."""
    found = read(contest, folder, Progress.of(suite, folder).finished)
    return {"config": folder.read_json("config.json"), "combinations": to_json(found)}


def best_of(found: Sequence[Combination], task: str) -> Combination | None:
    """Returns the combination with the lowest mean on a task, if any finished."""
    of_task = [one for one in found if one.task == task]
    return min(of_task, key=lambda one: one.mean, default=None)


def to_json(found: Sequence[Combination]) -> list[dict[str, Any]]:
    """Writes combinations in JSON types, numbers to six digits."""

    def short(values: tuple[float, ...]) -> list[float]:
        return [float(f"{value:.6g}") for value in values]

    return [
        {
            "task": one.task,
            **dict(zip(one.contest.choices, one.choice, strict=True)),
            "seeds": list(one.seeds),
            "metrics": {name: short(values) for name, values in one.metrics.items()},
            "updates": one.updates,
            "likelihood_evaluations": short(one.likelihood_evaluations),
            "cpu_seconds": short(one.cpu_seconds),
        }
        for one in found
    ]


def from_json(contest: Contest, records: Any) -> list[Combination]:
    """Undoes `to_json`, but for the digits.

    Raises:
        UserError: If it is not what `to_json` wrote.
    """
    try:
        return [
            Combination(
                contest,
                task=str(record["task"]),
                choice=tuple(str(record[name]) for name in contest.choices),
                seeds=tuple(map(int, record["seeds"])),
                metrics={k: tuple(map(float, v)) for k, v in record["metrics"].items()},
                updates=int(record["updates"]),
                likelihood_evaluations=tuple(map(float, record["likelihood_evaluations"])),
                cpu_seconds=tuple(map(float, record["cpu_seconds"])),
            )
            for record in records
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"These results are not as --summary-out writes them ({error}).") from error
