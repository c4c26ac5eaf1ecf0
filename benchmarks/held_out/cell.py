"""The cells of tasks that are judged on held-out data."""

from dataclasses import dataclass

from benchmarks.task import Cell


@dataclass(frozen=True)
class MethodCell(Cell):
    """One method that learns from one start.

    Attributes:
        method: What learns.
        seed: Of the start, which all methods share, and of the method's randomness.
    """

    method: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the cell lives; see `Cell.folder`."""
        return f"cells/{self.method}/{self.seed:02d}"

    @property
    def title(self) -> str:
        """What people are shown; see `Cell.title`."""
        return f"{self.method}, seed {self.seed}"
