"""What a suite compares: how its results are named, by what they are ranked, how it is worded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.task import Cell


@dataclass(frozen=True)
class Quantity:
    """A metric as a report shows it.

    Attributes:
        label: What people are shown.
        lower_is_better: Whether it is an error or a cost.
        logarithmic: Whether it is compared by ratios; otherwise by differences.
        digits: How many significant ones are shown.
        unit: Of values and differences, in words.
        rounding: Differences no larger than this, of logarithms where those are compared, are
            errors of rounding.
    """

    label: str
    lower_is_better: bool
    logarithmic: bool
    digits: int = 3
    unit: str = ""
    rounding: float = 0.0


@dataclass(frozen=True)
class Contest:
    """What a suite compares on each task, by which metrics, and in which words.

    Attributes:
        cell_type: Makes a cell of a task, what was chosen, and a seed.
        choices: What is chosen, in the singular: the fields of a cell between `task` and `seed`.
        metric: What is ranked by, an error.
        quantities: Every metric, in the order in which they are shown.
        wins: What the best does, in words.
        run: What a cell is.
        update: What it is made of.
        evaluation: What is counted as its cost.
        seeds_share: Whether a seed brings its own data, the same for all that is compared, so that
            other runs are compared seed by seed too.
    """

    cell_type: Callable[..., Cell]
    choices: tuple[str, ...]
    metric: str
    quantities: Mapping[str, Quantity]
    wins: str
    run: str
    update: str
    evaluation: str
    seeds_share: bool

    @property
    def quantity(self) -> Quantity:
        """The metric that is ranked by."""
        return self.quantities[self.metric]

    @property
    def costs(self) -> dict[str, str]:
        """What is spent, and what it is called in `metrics.jsonl`."""
        return {
            f"{self.update}s": "update",
            f"{self.evaluation}s": "likelihood_evaluations",
            "CPU-seconds": "cpu_seconds",
        }
