"""The progress bar of a run: all its cells in one."""

import sys

from tqdm import tqdm

from benchmarks.task import Task

FORMAT = (
    "{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}] {desc}"
)
"""What a narrow terminal cuts off comes last: the cell and its metrics."""

SHOWN = 3
"""So many metrics, the first ones, are shown where a task names none."""


class SweepBar:
    """One progress bar for all cells, with the time left and a line for whatever goes wrong."""

    def __init__(self, task: Task, finished: int) -> None:
        """Takes the task and how many of its cells are finished."""
        self._cells = task.cells
        self._num_updates = task.num_updates
        self._updates = [0] * len(self._cells)
        self._shown = task.shown_metrics
        self._metrics: list[dict[str, float]] = [{} for _ in self._cells]
        self._total = len(self._cells) * task.num_updates
        self._failed = 0
        self._bar = tqdm(
            total=self._total, initial=finished * task.num_updates,
            unit="update", smoothing=0.05, dynamic_ncols=True, bar_format=FORMAT,
        )  # fmt: skip

    def __enter__(self) -> "SweepBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, job: int, updates: int, metrics: dict[str, float]) -> None:
        """Shows how far a cell is; see `workers.Display`."""
        latest = self._metrics[job]
        latest |= metrics  # what is not measured after every update stays
        names = self._shown or list(latest)[:SHOWN]
        shown = [f"{name}={latest[name]:.4f}" for name in names if name in latest]
        text = ", ".join([self._cells[job].title, *shown])
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(updates - self._updates[job])  # less than 0 for one begun again
        self._updates[job] = updates

    def say(self, job: int, text: str) -> None:
        """Adds a line about a cell above the bar; see `workers.Display`."""
        self._bar.write(f"{self._cells[job].title}: {text}", file=sys.stderr)

    def fail(self, job: int, reason: str) -> None:
        """Counts a cell that failed, whose other updates never come; see `workers.Display`."""
        self._failed += 1
        self._total -= self._num_updates - self._updates[job]
        self._bar.total = self._total
        self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self.say(job, reason)
