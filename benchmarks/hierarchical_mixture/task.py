"""Learn a hierarchy of Gaussian components by EM, with five E-steps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from algorithms.alternation import Alternation, FixedUpdates, LossThreshold
from algorithms.backward_policy import (
    BackwardPolicy,
    LearnedBackward,
    UniformActions,
    UniformTrajectories,
)
from algorithms.e_step import require_table
from algorithms.em import EM
from algorithms.exploration import EpsilonUniform
from algorithms.m_step import ClosedForm, GradientAscent, MStep
from algorithms.objectives import objectives
from algorithms.residual_loss import Huber, Squared
from algorithms.schedule import Exponential, Linear
from benchmarks.em import methods
from benchmarks.em.e_step_table import e_step_total_variation
from benchmarks.em.problem import Problem
from benchmarks.hierarchical_mixture import report, sweep
from benchmarks.hierarchical_mixture.sweep import MethodCell, Options
from benchmarks.posterior.metrics import summarise
from benchmarks.provenance import derive_seed
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from gfn_envs.errors import UserError
from lvms.data.points import Points, load_csv, synthetic_square
from lvms.hierarchical_mixture import HierarchicalGaussianMixture

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference

BACKWARD_POLICIES: dict[str, type[BackwardPolicy]] = {
    "uniform": UniformActions,
    "uniform-trajectories": UniformTrajectories,
    "learned": LearnedBackward,
}


class HierarchicalMixture(Task):
    """Exact, annealed, mean-field, Monte Carlo and GFlowNet-EM from the same initialisations."""

    options_type = Options
    presets = sweep.presets
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options and loads the data; see `Task`."""
        self.options = options
        for name in sweep.POSITIVE:
            if getattr(options, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1.")
        if not 0 < options.m_learning_rate < math.inf:
            raise UserError("--m-learning-rate must be a positive number.")
        rates = options.learning_rate
        if len(rates) not in (1, 2) or not all(0 < rate < math.inf for rate in rates):
            raise UserError(
                "--learning-rate takes its first and its last value, or one for the whole run; "
                "they must be positive."
            )
        if options.batch_size < 0 or not 0 <= options.huber_delta < math.inf:
            raise UserError("--batch-size and --huber-delta must not be negative.")
        if not 0 < options.beta <= 1:
            raise UserError("--beta must be above 0 and at most 1.")
        if not options.min_log_reward < math.inf:
            raise UserError("--min-log-reward must be a number, or -inf for none.")
        bounds = options.loss_bound
        if len(bounds) not in (1, 2) or not all(0 <= bound < math.inf for bound in bounds):
            raise UserError(
                "--loss-bound takes its first and its last value, or one for the whole run."
            )
        if len(set(options.methods)) < len(options.methods):
            raise UserError("--methods names a method twice.")
        self.points = self._load_data()
        model = self.make_model(initialisation=0)
        require_table(model.env.num_structures(model.context(self.points.train)[0]))
        self.make_learner(MethodCell("gflownet-em", 0))  # refuses options that do not fit together

    @property
    def cells(self) -> Sequence[MethodCell]:
        """All methods from one initialisation, then from the next; see `Task.cells`."""
        starts = range(self.options.initialisations)
        return [MethodCell(method, start) for start in starts for method in self.options.methods]

    @property
    def num_updates(self) -> int:
        """The number of EM iterations; see `Task.num_updates`."""
        return self.options.iterations

    @property
    def train_data(self) -> Tensor:
        """The training points, float `[N, 2]`."""
        return self.points.train

    def data(self, cell: MethodCell) -> Tensor:
        """Returns the training points, the same for every cell; see `Task.data`."""
        return self.train_data

    def make_model(self, initialisation: int) -> HierarchicalGaussianMixture:
        """Makes a model that starts at random data points, the same for every method."""
        options = self.options
        model = HierarchicalGaussianMixture(
            options.branching, options.scale, options.radius, options.order
        )
        seed = derive_seed(options.seed, "initialisation", initialisation)
        model.start_at_data(self.points.train, torch.Generator().manual_seed(seed))
        return model

    def make_learner(self, cell: MethodCell) -> EM[HierarchicalGaussianMixture]:
        """Makes EM with the E-step that the method names; see `Task.make_learner`."""
        options = self.options
        seed = derive_seed(options.seed, cell.method, cell.initialisation)
        model = self.make_model(cell.initialisation)
        problem = Problem(
            model, self.points.train, options.iterations, self._make_m_step(model),
            torch.Generator().manual_seed(seed), posterior_samples=options.posterior_samples,
        )  # fmt: skip
        match cell.method:
            case "exact-em":
                return methods.exact_em(problem)
            case "annealed-em":
                return methods.annealed_em(problem, options.beta, options.beta_iterations)
            case "mean-field-em":
                return methods.mean_field_em(problem, options.sweeps)
            case "monte-carlo-em":
                return methods.monte_carlo_em(problem, options.moves, options.posterior_samples)
            case "gflownet-em":
                return self._gflownet_em(problem)
        raise UserError(f"There is no method '{cell.method}'.")

    @torch.no_grad()
    def evaluate(self, learner: EM[HierarchicalGaussianMixture]) -> dict[str, float]:
        """Measures the mean test log-likelihood, nats; see `Task.evaluate`."""
        return {"log_likelihood": learner.model.log_marginal(self.points.test).mean().item()}

    @torch.no_grad()
    def final_metrics(
        self, learner: EM[HierarchicalGaussianMixture]
    ) -> dict[str, dict[str, float]]:
        """Measures log-likelihoods and the E-step's distance to the exact posterior.

        Nothing of that counts as a cost of learning.
        """
        model, test = learner.model, self.points.test
        per_point = {
            "log_likelihood": model.log_marginal(test),
            "train_log_likelihood": model.log_marginal(self.points.train),
        }
        variation = e_step_total_variation(learner, test)
        if variation is not None:
            per_point["total_variation"] = variation
        return {name: summarise(values) for name, values in per_point.items()}

    def report(
        self, folder: RunFolder, failures: Mapping[MethodCell, str]
    ) -> tuple[str, list[Path]]:
        """Writes the table and the pictures; see `Task.report`."""
        return report.write(self, folder)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.hierarchical_mixture.document import make_document

        if against is not None:
            raise UserError("Runs of hierarchical-mixture are not compared; leave out --against.")
        return make_document(self, folder)

    def true_log_likelihood(self) -> float | None:
        """The mean test log-likelihood of the parameters that the data came from, if known."""
        if self.options.data:
            return None
        with torch.no_grad():
            return HierarchicalGaussianMixture().log_marginal(self.points.test).mean().item()

    def _load_data(self) -> Points:
        """Loads the points that the options name."""
        seed = derive_seed(self.options.seed, "data")
        if self.options.data:
            return load_csv(self.options.data, standardise=self.options.standardise, seed=seed)
        return synthetic_square(self.options.points, seed)

    def _make_m_step(self, model: HierarchicalGaussianMixture) -> MStep:
        """Makes the M-step that the options name."""
        if self.options.m_step == "gradient":
            sgd = torch.optim.SGD(model.parameters(), lr=self.options.m_learning_rate)
            return GradientAscent(sgd, model)
        return ClosedForm(model)

    def _gflownet_em(
        self, problem: Problem[HierarchicalGaussianMixture]
    ) -> EM[HierarchicalGaussianMixture]:
        """Makes EM with the GFlowNet E-step that the options describe."""
        options = self.options
        residual_loss = Huber(options.huber_delta) if options.huber_delta else Squared()
        backward = None if problem.model.env.is_tree else BACKWARD_POLICIES[options.backward]()
        alternation: Alternation = FixedUpdates(options.e_updates)
        if any(options.loss_bound):
            bound = Linear(options.loss_bound[0], options.loss_bound[-1], options.iterations)
            alternation = LossThreshold(bound, max_updates=options.e_updates)
        return methods.amortised_em(
            problem,
            objectives.make(options.objective, backward, residual_loss),
            methods.annealed(
                EpsilonUniform(options.epsilon),
                Exponential(options.beta, 1.0, options.beta_iterations),
            ),
            alternation=alternation,
            hidden=options.hidden,
            learning_rate=(options.learning_rate[0], options.learning_rate[-1]),
            batch_size=options.batch_size or len(problem.x),
            samples_per_x=options.samples_per_x,
            min_log_reward=options.min_log_reward,
        )
