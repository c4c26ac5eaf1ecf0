"""The posterior suite: objectives x explorations against exact posteriors, theta fixed."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from algorithms.explorations import explorations
from algorithms.objectives import objectives
from benchmarks.grid import make_grid
from benchmarks.options import require_names
from benchmarks.posterior import report, sweep
from benchmarks.posterior.contest import CONTEST
from benchmarks.posterior.curves import measure_e_step
from benchmarks.posterior.learner import PosteriorLearner
from benchmarks.posterior.sweep import Options, PosteriorCell
from benchmarks.posterior.training import make_data, make_e_step
from benchmarks.report import results
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from gfn_envs.errors import UserError
from lvms.models import models

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference

METRICS = (
    "total_variation", "jensen_shannon", "forward_kl", "reverse_kl", "elbo", "eubo", "iwae", "ess",
    "top_coverage", "mass_coverage",
)  # fmt: skip
"""What is measured along the way and in the end."""


class PosteriorSuite(Task):
    """Trains a policy for each task, objective, exploration and seed, all for as many updates.

    Attributes:
        left_out: Why a task, an objective and an exploration do not fit together.
    """

    options_type = Options
    presets = sweep.presets
    failures_are_reported = True
    reference = Path(__file__).parent / "reference.json"
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options and finds out which combinations fit together; see `Task`."""
        self.options = options
        for name in ("seeds", "updates", "every"):
            if getattr(options, name) < 1:
                raise UserError(f"--{name} must be at least 1.")
        if not 0 < options.learning_rate < math.inf:
            raise UserError("--learning-rate must be a positive number.")
        require_names("tasks", options.tasks, models)
        require_names("objectives", options.objectives, objectives)
        require_names("explorations", options.explorations, explorations)
        self.evaluate_every = options.every
        self._data = {task: make_data(task) for task in options.tasks}
        combinations = product(options.tasks, options.objectives, options.explorations)
        self._cells, self.left_out = make_grid(
            combinations, range(options.seeds), PosteriorCell, self.make_learner
        )

    @property
    def cells(self) -> Sequence[PosteriorCell]:
        """The whole grid with the first seed, then with the next; see `Task.cells`."""
        return self._cells

    @property
    def num_updates(self) -> int:
        """The number of policy updates; see `Task.num_updates`."""
        return self.options.updates

    def data(self, cell: PosteriorCell) -> Tensor:
        """Returns the task's observations; see `Task.data`."""
        return self._data[cell.task]

    def make_learner(self, cell: PosteriorCell) -> PosteriorLearner:
        """Makes the training of a new policy; see `Task.make_learner`."""
        x, rate = self.data(cell), self.options.learning_rate
        e_step = make_e_step(cell.task, cell.objective, cell.exploration, x, cell.seed, rate)
        return PosteriorLearner(e_step, x, rate, self.options.updates)

    def evaluate(self, learner: PosteriorLearner) -> dict[str, float]:
        """Measures the policy's distance to the posterior; see `Task.evaluate`."""
        means = {name: metric["mean"] for name, metric in self.final_metrics(learner).items()}
        return {**means, "likelihood_evaluations": learner.likelihood_evaluations}

    def final_metrics(self, learner: PosteriorLearner) -> dict[str, dict[str, float]]:
        """Measures the same on each observation; see `Task.final_metrics`."""
        return measure_e_step(learner.e_step, learner.x, METRICS)

    def report(
        self, folder: RunFolder, failures: Mapping[PosteriorCell, str]
    ) -> tuple[str, list[Path]]:
        """Writes the table and the heat maps; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.posterior.document import make_document  # training needs no statistics

        return make_document(self, folder, against)

    def summary(self, folder: RunFolder) -> dict[str, Any]:
        """Lists every seed's final metrics and cost; see `Task.summary`."""
        return results.summary(CONTEST, self, folder)
