"""Numbers that change over training, as values."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from gfn_envs.errors import UserError


class Schedule(ABC):
    """A number for each step."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Returns the value at a step, counted from 0."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def at(self, step: int) -> float:
        """Returns the value; see `Schedule.at`."""
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end` over `steps` steps, and `end` after them."""

    start: float
    end: float
    steps: int

    def at(self, step: int) -> float:
        """Returns the value; see `Schedule.at`."""
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True)
class Exponential(Schedule):
    """A constant factor a step, from `start` to `end` over `steps` steps, and `end` after them.

    At step t the value is start (end / start)^(t / steps): a straight line in its logarithm.

    Raises:
        UserError: If start or end is not positive, or steps is below 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        """Checks the values."""
        if not (0 < self.start < math.inf and 0 < self.end < math.inf and self.steps >= 1):
            raise UserError(
                "An Exponential schedule needs a positive start and end and at least 1 step; got "
                f"{self.start}, {self.end} and {self.steps}."
            )

    def at(self, step: int) -> float:
        """Returns the value; see `Schedule.at`."""
        return self.start * (self.end / self.start) ** min(step / self.steps, 1.0)


@dataclass(frozen=True)
class Delayed(Schedule):
    """Another schedule that begins only after some steps, and its first value until then."""

    schedule: Schedule
    delay: int

    def at(self, step: int) -> float:
        """Returns the value; see `Schedule.at`."""
        return self.schedule.at(max(0, step - self.delay))


def falling(rate: float, begin: int, end: int) -> Schedule:
    """Makes a learning rate that is kept until step `begin` and a twentieth of it at `end`."""
    return Delayed(Exponential(rate, rate / 20, max(1, end - begin)), begin)


def as_schedule(value: "Schedule | float") -> Schedule:
    """Turns a plain number into a constant schedule."""
    return value if isinstance(value, Schedule) else Constant(float(value))


def require_positive(name: str, schedule: Schedule) -> None:
    """Raises a UserError if the schedule's first or last value is not a positive number."""
    for value in (schedule.at(0), schedule.at(10**12)):
        if not 0.0 < value < math.inf:
            raise UserError(f"{name} must be a positive number; got {value}.")
