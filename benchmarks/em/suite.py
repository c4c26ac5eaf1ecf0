"""The EM suite: models learned from scratch by every method, against their true parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from algorithms.policies import policies
from benchmarks.em import report, sweep
from benchmarks.em.contest import CONTEST
from benchmarks.em.learner import EMLearner
from benchmarks.em.methods import em_methods
from benchmarks.em.problem import Problem, make_m_step
from benchmarks.em.sweep import EMCell, Options
from benchmarks.em_data.tasks import data_tasks
from benchmarks.grid import make_grid
from benchmarks.options import require_names
from benchmarks.posterior.training import is_grammar
from benchmarks.provenance import derive_seed
from benchmarks.report import results
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from gfn_envs.errors import UserError
from lvms.enumeration import exact_posterior
from lvms.model import LatentVariableModel, StartAtData
from lvms.models import models

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference


@dataclass(frozen=True)
class Data:
    """What one seed of a task draws from the true model.

    Attributes:
        train: What is learned from, `[N, ...]`.
        test: What is judged by, `[M, ...]`.
        true_log_likelihood: log p(x) of `test` at the true parameters, float `[M]`, nats.
    """

    train: Tensor
    test: Tensor
    true_log_likelihood: Tensor


class EMSuite(Task):
    """Learns each task's model by each method from each seed's data and start.

    Attributes:
        left_out: Why a method cannot learn a task's model.
    """

    options_type = Options
    presets = sweep.presets
    failures_are_reported = True
    reference = Path(__file__).parent / "reference.json"
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options, draws the data and finds out what fits together; see `Task`."""
        self.options = options
        for name in sweep.POSITIVE:
            if getattr(options, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1.")
        if options.m_step_points < 0:
            raise UserError("--m-step-points must be at least 0.")
        if not 0 < options.beta <= 1:
            raise UserError(f"--beta must be above 0 and at most 1; got {options.beta}.")
        for task in options.tasks:
            if task in data_tasks:
                raise UserError(f"{task} is learned from data; see: gfnem bench em-data --help")
        require_names("tasks", options.tasks, models)
        for task in options.tasks:
            if is_grammar(models.make(task)):
                raise UserError(
                    f"{task} keeps to sentences of one length, so a grammar that makes no others "
                    "would beat the truth; learn grammars with: gfnem run grammar"
                )
        require_names("methods", options.methods, em_methods)
        require_names("policy", [options.policy], policies)
        self.evaluate_every = options.every
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        self._data = {key: self._draw_data(*key) for key in product(options.tasks, seeds)}
        combinations = product(options.tasks, options.methods)
        self._cells, self.left_out = make_grid(combinations, seeds, EMCell, self.make_learner)

    @property
    def cells(self) -> Sequence[EMCell]:
        """The whole grid with the first seed, then with the next; see `Task.cells`."""
        return self._cells

    @property
    def num_updates(self) -> int:
        """The number of EM iterations; see `Task.num_updates`."""
        return self.options.iterations

    def data(self, cell: EMCell) -> Tensor:
        """Returns the training observations of the cell's task and seed; see `Task.data`."""
        return self._data[cell.task, cell.seed].train

    def make_learner(self, cell: EMCell) -> EMLearner:
        """Makes the method's learner from the start that all methods share."""
        data = self._data[cell.task, cell.seed]
        model: LatentVariableModel = models.make(cell.task)
        if not isinstance(model, StartAtData):
            raise UserError(f"{type(model).__name__} has no start_at_data to begin learning from.")
        start_seed = derive_seed(cell.seed, cell.task, "start")
        model.start_at_data(data.train, torch.Generator().manual_seed(start_seed))
        own_seed = derive_seed(cell.seed, cell.task, cell.method)
        problem = Problem(
            model,
            data.train,
            self.options.iterations,
            make_m_step(model),
            torch.Generator().manual_seed(own_seed),
            e_updates=self.options.e_updates,
            first_e_updates=self.options.first_e_updates,
            posterior_samples=self.options.posterior_samples,
            m_step_points=self.options.m_step_points,
            policy=self.options.policy,
            beta=self.options.beta,
            beta_iterations=self.options.beta_iterations,
        )
        learner = em_methods.make(cell.method, problem)
        return EMLearner(learner, problem, data.test, data.true_log_likelihood)

    def evaluate(self, learner: EMLearner) -> dict[str, float]:
        """Measures the model and the E-step; see `Task.evaluate`."""
        means = {name: metric["mean"] for name, metric in learner.measure().items()}
        return {**means, "likelihood_evaluations": learner.likelihood_evaluations}

    def final_metrics(self, learner: EMLearner) -> dict[str, dict[str, float]]:
        """Measures the same; see `Task.final_metrics`."""
        return learner.measure()

    def report(self, folder: RunFolder, failures: Mapping[EMCell, str]) -> tuple[str, list[Path]]:
        """Writes the table and the learning curves; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.em.document import make_document  # learning needs no statistics

        return make_document(self, folder, against)

    def summary(self, folder: RunFolder) -> dict[str, Any]:
        """Lists every seed's final metrics and cost; see `Task.summary`."""
        return results.summary(CONTEST, self, folder)

    @torch.no_grad()
    def _draw_data(self, task: str, seed: int) -> Data:
        """Draws the data of a task and a seed from the task's true model."""
        truth = models.make(task)
        generator = torch.Generator().manual_seed(derive_seed(seed, task, "data"))
        train, _ = truth.sample(self.options.points, generator)
        test, _ = truth.sample(self.options.test_points, generator)
        return Data(train, test, exact_posterior(truth).log_marginal(test))
