"""What the cells of an EM suite have left in their folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.em.sweep import EMCell
from benchmarks.run_folder import RunFolder


@dataclass(frozen=True)
class MethodRuns:
    """Every finished run of one method on one task.

    Attributes:
        task: The model.
        method: What learned it.
        seeds: The seed of each run, at least one.
        summaries: What each run's `summary.json` holds.
        curves: Each metric along the way, float `[seeds, measurements]`, `update` and `cpu_seconds`
            among them.
    """

    task: str
    method: str
    seeds: tuple[int, ...]
    summaries: list[dict[str, Any]]
    curves: dict[str, np.ndarray]

    def metric(self, name: str) -> tuple[float, float | None] | None:
        """Returns a final metric's mean over seeds and its standard error, None of one seed.

        Args:
            name: The metric.

        Returns:
            None if this method does not have it.
        """
        found = [run["metrics"][name]["mean"] for run in self.summaries if name in run["metrics"]]
        if not found:
            return None
        error = float(standard_error(np.array(found))) if len(found) > 1 else None
        return float(np.mean(found)), error

    def cost(self, name: str) -> float:
        """Returns the mean over seeds of one of the costs of learning."""
        return float(np.mean([run["cost"][name] for run in self.summaries]))

    @property
    def true_log_likelihood(self) -> float:
        """The mean over seeds of the test log-likelihood at the true parameters, nats a point."""
        final = [run["metrics"] for run in self.summaries]
        return float(np.mean([m["log_likelihood"]["mean"] + m["gap"]["mean"] for m in final]))


def read(folder: RunFolder, cells: Sequence[EMCell]) -> list[MethodRuns]:
    """Reads the folders of finished cells, those of a task and a method together, in their order.

    Args:
        folder: The suite's run folder.
        cells: Cells that have come to their end.
    """
    groups: dict[tuple[str, str], list[EMCell]] = {}
    for cell in cells:
        groups.setdefault((cell.task, cell.method), []).append(cell)
    return [_read_group(folder, *key, group) for key, group in groups.items()]


def standard_error(values: np.ndarray) -> np.ndarray:
    """Computes the standard error of the mean over the first axis, of at least two values."""
    return np.std(values, axis=0, ddof=1) / len(values) ** 0.5


def _read_group(folder: RunFolder, task: str, method: str, cells: list[EMCell]) -> MethodRuns:
    """Reads the runs of one method on one task."""
    opened = [RunFolder(folder.path / cell.folder) for cell in cells]
    lines: list[list[Mapping[str, float]]] = [list(run.read_metrics()) for run in opened]
    curves = {
        name: np.array([[line[name] for line in curve] for curve in lines]) for name in lines[0][0]
    }
    seeds = tuple(cell.seed for cell in cells)
    return MethodRuns(task, method, seeds, [r.read_json("summary.json") for r in opened], curves)
