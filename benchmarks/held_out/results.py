"""What a run found, and how its methods compare on the same test observations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np

from benchmarks.held_out.cell import MethodCell
from benchmarks.report.statistics import LEVEL, bootstrap_interval, holm, paired_p_value
from benchmarks.run_folder import RunFolder


@dataclass(frozen=True)
class MethodResult:
    """All finished runs of one method.

    Attributes:
        cells: The runs, at least one.
        details: What was measured on each test observation, float `[runs, T]` by its name.
        means: Every metric of each run, float `[runs]` by its name; `cpu_seconds`, without
            measurements, is among it.
        curves: Each measurement on validation data, float `[runs, M]` by its name; `minibatches`
            and `cpu_seconds` are among it. Runs that ended early keep their last values.
        details_file: Which file of a cell's folder has the details.
        of_curves: What is read of each measurement beside `minibatches` and `cpu_seconds`.
        of_curves_if_any: What is read too if the first measurement has it.
    """

    cells: Sequence[MethodCell]
    details: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]
    curves: Mapping[str, np.ndarray]
    details_file: ClassVar[str]
    of_curves: ClassVar[Sequence[str]]
    of_curves_if_any: ClassVar[Sequence[str]] = ()

    @property
    def method(self) -> str:
        """Whose runs they are."""
        return self.cells[0].method

    @property
    def minibatches(self) -> int:
        """Of a run; their mean where some ended early."""
        return round(self.curves["minibatches"][:, -1].mean())

    @property
    def scores(self) -> np.ndarray:
        """What methods are compared by, less is better, float `[runs, T]`."""
        return self.details["nll"]

    @property
    def score(self) -> np.ndarray:
        """The score of each test observation, averaged over runs, float `[T]`."""
        return self.scores.mean(0)

    def mean(self, name: str) -> float:
        """Averages a quantity over runs and test observations."""
        return float(self.details[name].mean())

    @classmethod
    def read(cls, folder: RunFolder, cells: Sequence[MethodCell]) -> Self:
        """Reads the finished runs of one method.

        Raises:
            UserError: If a file is damaged.
        """
        runs = [cls._read_run(RunFolder(folder.path / cell.folder)) for cell in cells]
        means, details = (
            {name: np.stack([run[part][name] for run in runs]) for name in runs[0][part]}
            for part in range(2)
        )
        curves = {name: _stack_longest([run[2][name] for run in runs]) for name in runs[0][2]}
        return cls(cells, details, means, curves)

    @classmethod
    def _read_run(cls, run: RunFolder) -> tuple[dict[str, np.ndarray], ...]:
        """Reads a finished run's numbers: of the whole, of each observation, of each measurement.

        Raises:
            UserError: If a file is damaged.
        """
        summary, saved = run.read_json("summary.json"), run.read_json(cls.details_file)
        lines = run.read_metrics()
        try:
            name = "summary.json"
            metrics = summary["metrics"]
            means = {key: np.array(one["mean"], dtype=float) for key, one in metrics.items()}
            means["cpu_seconds"] = np.array(summary["cost"]["cpu_seconds"])
            name = cls.details_file
            details = {key: np.array(values, dtype=float) for key, values in saved.items()}
            if any(values.shape != (metrics["nll"]["n"],) for values in details.values()):
                raise ValueError("another number of observations")
            name = "metrics.jsonl"
            if not lines:
                raise ValueError("no measurements")
            columns = ["minibatches", "cpu_seconds", *cls.of_curves]
            columns += [key for key in cls.of_curves_if_any if key in lines[0]]
            curves = {key: np.array([float(line[key]) for line in lines]) for key in columns}
        except (KeyError, TypeError, ValueError) as error:
            raise run.damaged(name) from error
        return means, details, curves


def _stack_longest(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks rows of numbers, repeating the last one of those that are shorter."""
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), "edge") for row in rows])


ResultT = TypeVar("ResultT", bound=MethodResult)


@dataclass(frozen=True)
class Standing(Generic[ResultT]):
    """One method beside the best.

    Attributes:
        result: What it found.
        interval: Of its mean score, over test observations; None of a single one.
        behind: By how much its mean score is above the best method's; 0 of the best.
        behind_interval: Of that, from the differences of each observation; None of the best.
        tied: Whether its score cannot be told apart from the best method's.
    """

    result: ResultT
    interval: tuple[float, float] | None
    behind: float
    behind_interval: tuple[float, float] | None
    tied: bool

    @property
    def is_best(self) -> bool:
        """Whether it is the best method's."""
        return self.behind_interval is None and self.behind == 0


def read_results(
    kind: type[ResultT], folder: RunFolder, cells: Iterable[MethodCell]
) -> list[ResultT]:
    """Reads finished cells, the runs of a method together, in the order of the cells.

    Raises:
        UserError: If a file is damaged.
    """
    groups: dict[str, list[MethodCell]] = {}
    for cell in cells:
        groups.setdefault(cell.method, []).append(cell)
    return [kind.read(folder, group) for group in groups.values()]


def stand(results: Sequence[ResultT]) -> list[Standing[ResultT]]:
    """Compares methods with the best, paired by test observation.

    The p-values of t-tests on the observations' differences are corrected by Holm's method.

    Args:
        results: The methods, at least one.

    Returns:
        A standing of each, in their order.
    """
    best = min(results, key=lambda one: one.score.mean())
    p_values = holm(
        [
            None if one is best else paired_p_value(one.score, best.score, logarithmic=False)
            for one in results
        ]
    )
    return [
        Standing(
            one,
            bootstrap_interval(one.score),
            float((one.score - best.score).mean()),
            None if one is best else bootstrap_interval(one.score - best.score),
            one is not best and p_value is not None and p_value > 1 - LEVEL,
        )
        for one, p_value in zip(results, p_values, strict=True)
    ]
