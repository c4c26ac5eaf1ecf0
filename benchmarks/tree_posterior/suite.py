"""The tree posterior suite: policies x objectives at fixed theta, at equal CPU time."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm

from benchmarks.grid import make_grid
from benchmarks.held_out.timing import updates_within
from benchmarks.posterior.curves import measure_e_step
from benchmarks.report import results
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from benchmarks.tree_posterior import report, sweep
from benchmarks.tree_posterior.contest import CONTEST
from benchmarks.tree_posterior.learner import TreePosteriorLearner
from benchmarks.tree_posterior.sweep import Options, TreePosteriorCell
from benchmarks.tree_posterior.training import make_e_step, make_problem

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference

TREES = 16
"""So many are drawn for each held-out sentence when a policy is measured."""


class TreePosteriorSuite(Task):
    """Trains a policy for each grammar, policy, objective and seed.

    How many updates a training has is measured once, so that all take as much CPU time, and is
    part of the run's settings from then on.

    Attributes:
        left_out: Why a task, a policy and an objective do not fit together.
    """

    options_type = Options
    presets = sweep.presets
    failures_are_reported = True
    shown_metrics = ("elbo_gap", "eubo_gap", "ess")
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options, finds out what fits together, and fixes the updates; see `Task`."""
        options.check()
        self.options = options
        self._cells, self.left_out = make_grid(
            options.combinations,
            range(options.seeds),
            TreePosteriorCell,
            lambda cell: self._learner(cell, options.rounds, options.rounds),
        )
        if not options.updates:
            self.options = replace(options, updates=self._measure_updates())

    @property
    def cells(self) -> Sequence[TreePosteriorCell]:
        """The whole grid with the first seed, then with the next; see `Task.cells`."""
        return self._cells

    @property
    def num_updates(self) -> int:
        """The number of rounds; see `Task.num_updates`."""
        return self.options.rounds

    def data(self, cell: TreePosteriorCell) -> Tensor:
        """Returns the training sentences; see `Task.data`."""
        return make_problem(cell.task, cell.policy).training

    def make_learner(self, cell: TreePosteriorCell) -> TreePosteriorLearner:
        """Makes the training of a new policy; see `Task.make_learner`."""
        return self._learner(cell, self.policy_updates(cell), self.options.rounds)

    def policy_updates(self, cell: TreePosteriorCell) -> int:
        """Returns how many updates a cell's policy has in all."""
        updates = self.options.updates
        if len(updates) == 1:
            return updates[0]
        names = cell.task, cell.policy, cell.objective
        return updates[self.options.combinations.index(names)]

    def evaluate(self, learner: TreePosteriorLearner) -> dict[str, float]:
        """Measures the policy's distance to the posterior; see `Task.evaluate`."""
        means = {name: metric["mean"] for name, metric in self.final_metrics(learner).items()}
        return {
            **means,
            "policy_updates": learner.e_step.updates,
            "likelihood_evaluations": learner.likelihood_evaluations,
        }

    def final_metrics(self, learner: TreePosteriorLearner) -> dict[str, dict[str, float]]:
        """Measures the same on each held-out sentence; see `Task.final_metrics`."""
        return measure_e_step(learner.e_step, learner.x, list(CONTEST.quantities), k=TREES)

    def report(
        self, folder: RunFolder, failures: Mapping[TreePosteriorCell, str]
    ) -> tuple[str, list[Path]]:
        """Writes the table and the curves; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.tree_posterior.document import make_document  # needs statistics

        return make_document(self, folder, against)

    def summary(self, folder: RunFolder) -> dict[str, Any]:
        """Lists every seed's final metrics and cost; see `Task.summary`."""
        return results.summary(CONTEST, self, folder)

    def _learner(self, cell: TreePosteriorCell, updates: int, rounds: int) -> TreePosteriorLearner:
        """Makes the training of a new policy, so long and in so many rounds."""
        training = self.options.training
        e_step = make_e_step(cell.task, cell.policy, cell.objective, cell.seed, training)
        held_out = make_problem(cell.task, cell.policy).held_out
        return TreePosteriorLearner(e_step, held_out, training.learning_rate, updates, rounds)

    def _measure_updates(self) -> tuple[int, ...]:
        """Measures how many updates each combination can make in the time that it has."""
        counts = []
        combinations = self.options.combinations
        for names in tqdm(combinations, "measuring updates", unit="pair", leave=False):
            if names in self.left_out:
                counts.append(self.options.rounds)  # which nothing will make
                continue
            cell = TreePosteriorCell(*names, seed=0)
            make = functools.partial(self._learner, cell, rounds=1)
            measured = updates_within(self.options.cpu_seconds, make, self.data(cell))
            counts.append(max(self.options.rounds, measured))
        return tuple(counts)
