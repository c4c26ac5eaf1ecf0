"""What tasks share that judge methods on held-out data."""

import functools
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tqdm import tqdm

from algorithms.minibatch_learner import MinibatchLearner
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.learner import HeldOutLearner
from benchmarks.held_out.options import HeldOutOptions, merge_options
from benchmarks.held_out.timing import updates_within
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from gfn_envs.catalogue import Catalogue


class HeldOutTask(Task):
    """Models from the same starts by every method, at equal CPU time or equal updates.

    A subclass loads its data in `__init__` and calls `settle_updates` at its end.

    Attributes:
        details: The file of each cell's folder with what was measured on each test observation.
        known_methods: Every method that there is.
    """

    failures_are_reported = True
    details: ClassVar[str]
    known_methods: ClassVar[Catalogue]
    options: Any

    @abstractmethod
    def make_own_learner(self, cell: MethodCell, num_updates: int, rounds: int) -> MinibatchLearner:
        """Makes the method's own learner for so many mini-batches, spread over so many rounds."""

    def settle_updates(self) -> None:
        """Refuses what does not fit together, and fixes the number of updates of each method.

        Measured once: the numbers are part of the run's settings from here on.
        """
        options: HeldOutOptions = self.options
        for method in options.methods:
            cell = MethodCell(method, options.first_seed)
            self.make_own_learner(cell, options.rounds, options.rounds)
        if not options.updates:
            self.options = replace(options, updates=self._measure_updates())

    @classmethod
    def merge_options(cls, options: Sequence[Any]) -> Any:
        """Puts methods and seeds together; see `Task.merge_options`."""
        return merge_options(options)

    @property
    def cells(self) -> Sequence[MethodCell]:
        """All methods with the first seed, then with the next; see `Task.cells`."""
        first = self.options.first_seed
        seeds = range(first, first + self.options.seeds)
        return [MethodCell(method, seed) for seed in seeds for method in self.options.methods]

    @property
    def num_updates(self) -> int:
        """The number of rounds, at most; see `Task.num_updates`."""
        return self.options.rounds

    def num_minibatches(self, method: str) -> int:
        """Returns how many mini-batches a method has in all, at most."""
        options: HeldOutOptions = self.options
        return options.updates_of(method)

    def evaluate(self, learner: HeldOutLearner) -> dict[str, float]:
        """Measures it on validation data; see `Task.evaluate`."""
        return learner.validate()

    def is_done(self, learner: HeldOutLearner) -> bool:
        """Says whether `--patience` is at its end; see `Task.is_done`."""
        return 0 < self.options.patience <= learner.measurements_since_best

    def final_metrics(self, learner: HeldOutLearner) -> dict[str, dict[str, float]]:
        """Judges its best weights on test data; see `Task.final_metrics`."""
        return learner.summary()

    def save_details(self, learner: HeldOutLearner, folder: RunFolder) -> None:
        """Saves what was measured on each test observation, so that methods compare by them."""
        lists = {name: values.tolist() for name, values in learner.judge().items()}
        folder.write_text(self.details, json.dumps(lists) + "\n")

    def _measure_updates(self) -> tuple[int, ...]:
        """Measures how many mini-batches each method can make in the time that it has."""
        options, budget = self.options, 60 * self.options.cpu_minutes
        counts = []
        for method in tqdm(options.methods, "measuring updates", unit="method", leave=False):
            cell = MethodCell(method, options.first_seed)
            make = functools.partial(self.make_own_learner, cell, rounds=1)
            counts.append(max(options.rounds, updates_within(budget, make, self.data(cell))))
        return tuple(counts)
