"""What each method had reached at equal CPU time, in a suite of equal numbers of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.learning_curves import read_curves
from benchmarks.report.results import Combination
from benchmarks.run_folder import RunFolder

SHARES = (0.25, 0.5, 1.0)
"""Of the time after which the first run of a task was done: when methods are compared."""

EXPLANATION = (
    "Gap to truth at equal CPU time, in nats a point: interpolated between measurements at a "
    "quarter, a half and all of the time that the task's quickest run took, so no run is shown "
    "after its end; mean ± standard error over seeds. A dash: not all seeds had been measured by "
    "then. CPU seconds are those of this machine, and vary with what else it does."
)


@dataclass(frozen=True)
class Gap:
    """The gap of one method at one time.

    Attributes:
        values: Of every seed, nats a point; NaN before its first measurement.
        best: Whether its mean is the smallest of all methods then.
    """

    values: np.ndarray
    best: bool

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN unless all have been measured."""
        return float(self.values.mean())

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "-"
        if len(self.values) == 1:
            return f"{self.mean:.4f}"
        error = np.std(self.values, ddof=1) / len(self.values) ** 0.5
        return f"{self.mean:.4f} ± {error:.4f}"


@dataclass(frozen=True)
class EqualTime:
    """The gaps of one task's methods at the same times.

    Attributes:
        seconds: The CPU seconds, rising.
        gaps: For each method, in their order, the gap of every seed at each of them, float
            `[times, seeds]`, nats a point; NaN before its first measurement.
    """

    seconds: tuple[float, ...]
    gaps: dict[str, np.ndarray]

    @classmethod
    def of(cls, folder: RunFolder, runs: Sequence[Combination]) -> EqualTime:
        """Reads the measurements of a task's finished runs."""
        curves = {one.name: read_curves(folder, one, ("cpu_seconds", "gap")) for one in runs}
        end = min(float(curve["cpu_seconds"][:, -1].min()) for curve in curves.values())
        seconds = tuple(share * end for share in SHARES)
        gaps = {
            name: np.array(
                [
                    np.interp(seconds, times, gap, left=np.nan)
                    for times, gap in zip(curve["cpu_seconds"], curve["gap"], strict=True)
                ]
            ).T
            for name, curve in curves.items()
        }
        return cls(seconds, gaps)

    @property
    def headers(self) -> list[str]:
        """Names the times."""
        return [f"after {seconds:.3g} CPU s" for seconds in self.seconds]

    def of_method(self, method: str) -> list[Gap]:
        """Returns a method's gap at each time."""
        # fmin passes over what is not known.
        least = np.fmin.reduce([gaps.mean(1) for gaps in self.gaps.values()])
        pairs = zip(self.gaps[method], least, strict=True)
        return [Gap(values, bool(values.mean() == best)) for values, best in pairs]
