"""What a posterior suite found: the final metrics of every combination, seed by seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.posterior.sweep import PosteriorCell
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError

METRIC = "total_variation"
"""What the combinations are ranked by."""


@dataclass(frozen=True)
class Combination:
    """All finished trainings of one objective with one exploration on one task.

    Attributes:
        task: The model.
        objective: The objective.
        exploration: The exploration.
        seeds: Which seeds finished, at least one.
        metrics: Each metric's final value of every seed.
        updates: Policy updates of each training.
        likelihood_evaluations: Of every seed.
        cpu_seconds: Of every seed, without measurements.
    """

    task: str
    objective: str
    exploration: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]
    updates: int
    likelihood_evaluations: tuple[float, ...]
    cpu_seconds: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the others."""
        return self.task, self.objective, self.exploration

    @property
    def name(self) -> str:
        """What people are shown, beside the task."""
        return f"{self.objective} with {self.exploration}"

    @property
    def values(self) -> tuple[float, ...]:
        """The ranking metric's value of every seed."""
        return self.metrics[METRIC]

    @property
    def mean(self) -> float:
        """The ranking metric's mean over seeds."""
        return float(np.mean(self.values))

    @property
    def standard_error(self) -> float | None:
        """The mean's standard error over seeds; None of one seed."""
        if len(self.values) < 2:
            return None
        return float(np.std(self.values, ddof=1) / len(self.values) ** 0.5)

    def by_seed(self, metric: str = METRIC) -> dict[int, float]:
        """Returns a metric's value of each seed."""
        return dict(zip(self.seeds, self.metrics[metric], strict=True))


def read(folder: RunFolder, cells: Sequence[PosteriorCell]) -> list[Combination]:
    """Reads the summaries of finished cells, combined over seeds, in the order of the cells.

    Raises:
        UserError: If a summary is damaged.
    """
    groups: dict[tuple[str, str, str], list[tuple[int, dict[str, Any]]]] = {}
    for cell in cells:
        run = RunFolder(folder.path / cell.folder)
        summary = run.read_json("summary.json")
        try:
            found = {name: float(metric["mean"]) for name, metric in summary["metrics"].items()}
            cost = {name: float(value) for name, value in summary["cost"].items()}
            record = {"metrics": {METRIC: found[METRIC], **found},
                      "updates": int(cost["updates"]),
                      "likelihood_evaluations": cost["likelihood_evaluations"],
                      "cpu_seconds": cost["cpu_seconds"]}  # fmt: skip
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise run.damaged("summary.json") from error
        key = (cell.task, cell.objective, cell.exploration)
        groups.setdefault(key, []).append((cell.seed, record))
    return [_combine(key, group) for key, group in groups.items()]


def _combine(key: tuple[str, str, str], group: list[tuple[int, dict[str, Any]]]) -> Combination:
    """Combines the seeds of one combination."""
    records = [record for _, record in group]
    return Combination(
        *key,
        seeds=tuple(seed for seed, _ in group),
        metrics={
            name: tuple(record["metrics"][name] for record in records)
            for name in records[0]["metrics"]
        },
        updates=records[0]["updates"],
        likelihood_evaluations=tuple(record["likelihood_evaluations"] for record in records),
        cpu_seconds=tuple(record["cpu_seconds"] for record in records),
    )


def best_of(found: list[Combination], task: str) -> Combination | None:
    """Returns the combination with the lowest mean on a task, if any finished."""
    of_task = [one for one in found if one.task == task]
    return min(of_task, key=lambda one: one.mean, default=None)


def to_json(found: list[Combination]) -> list[dict[str, Any]]:
    """Writes combinations in JSON types, numbers to six digits."""

    def short(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: short(inner) for name, inner in value.items()}
        if isinstance(value, tuple):
            return [short(inner) for inner in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return [short(dataclasses.asdict(one)) for one in found]


def from_json(records: Any) -> list[Combination]:
    """Undoes `to_json`, but for the digits.

    Raises:
        UserError: If it is not what `to_json` wrote.
    """
    try:
        return [
            Combination(
                task=str(record["task"]),
                objective=str(record["objective"]),
                exploration=str(record["exploration"]),
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
