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
from algorithms.e_step import EStep, ExactEStep, MeanFieldEStep, MetropolisEStep, require_table
from algorithms.em import EM
from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.m_step import ClosedForm, GradientAscent, MStep
from algorithms.mlp_policy import MLPPolicy
from algorithms.objectives import objectives
from algorithms.policy_distribution import policy_log_probs
from algorithms.residual_loss import Huber, Squared
from algorithms.schedule import Exponential, Linear, Schedule
from algorithms.tempered_reward import TemperedReward
from benchmarks.hierarchical_mixture import report, sweep
from benchmarks.hierarchical_mixture.sweep import MethodCell, Options
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
        seed = derive_seed(self.options.seed, cell.method, cell.initialisation)
        generator = torch.Generator().manual_seed(seed)
        model = self.make_model(cell.initialisation)
        e_step: EStep
        match cell.method:
            case "exact-em":
                e_step = ExactEStep(model)
            case "annealed-em":
                e_step = ExactEStep(model, self._beta())
            case "mean-field-em":
                e_step = MeanFieldEStep(model, self.options.sweeps)
            case "monte-carlo-em":
                e_step = MetropolisEStep(
                    model, self.options.moves, self.options.posterior_samples, generator
                )
            case "gflownet-em":
                e_step = self._make_gflownet(model, generator)
            case _:
                raise UserError(f"There is no method '{cell.method}'.")
        m_step: MStep
        if self.options.m_step == "gradient":
            sgd = torch.optim.SGD(model.parameters(), lr=self.options.m_learning_rate)
            m_step = GradientAscent(sgd, model)
        else:
            m_step = ClosedForm(model)
        return EM(
            model, e_step, m_step,
            posterior_samples=self.options.posterior_samples, generator=generator,
        )  # fmt: skip

    @torch.no_grad()
    def evaluate(self, learner: EM[HierarchicalGaussianMixture]) -> dict[str, float]:
        """Measures the mean test log-likelihood, nats; see `Task.evaluate`."""
        return {"log_likelihood": learner.model.log_marginal(self.points.test).mean().item()}

    @torch.no_grad()
    def final_metrics(
        self, learner: EM[HierarchicalGaussianMixture]
    ) -> dict[str, dict[str, float]]:
        """Measures log-likelihoods and the E-step's distance to the exact posterior."""
        model, test = learner.model, self.points.test
        per_point = {
            "log_likelihood": model.log_marginal(test),
            "train_log_likelihood": model.log_marginal(self.points.train),
        }
        log_q = self._e_step_log_probs(learner)
        if log_q is not None:
            exact = ExactEStep(model).posterior(test, 1).log_w
            per_point["total_variation"] = (log_q.exp() - exact.exp()).abs().sum(-1) / 2
        return {
            name: {
                "mean": values.mean().item(),
                "standard_error": (values.std() / len(values) ** 0.5).item(),
                "n": len(values),
            }
            for name, values in per_point.items()
        }

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

    def _beta(self) -> Schedule:
        """The power of the posterior in each E-step."""
        return Exponential(self.options.beta, 1.0, self.options.beta_iterations)

    def _make_gflownet(
        self, model: HierarchicalGaussianMixture, generator: torch.Generator
    ) -> GFlowNetEStep:
        """Makes the GFlowNet E-step that the options describe."""
        options = self.options
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            policy = MLPPolicy(model.env, x_size=2, hidden=options.hidden)
        residual_loss = Huber(options.huber_delta) if options.huber_delta else Squared()
        backward = None if model.env.is_tree else BACKWARD_POLICIES[options.backward]()
        alternation: Alternation = FixedUpdates(options.e_updates)
        if any(options.loss_bound):
            bound = Linear(options.loss_bound[0], options.loss_bound[-1], options.iterations)
            alternation = LossThreshold(bound, max_updates=options.e_updates)
        return GFlowNetEStep(
            model,
            policy,
            objectives.make(options.objective, backward, residual_loss),
            exploration=TemperedReward(
                EpsilonUniform(options.epsilon), self._beta(), per_m_step=True
            ),
            alternation=alternation,
            batch_size=options.batch_size or len(self.points.train),
            samples_per_x=options.samples_per_x,
            learning_rate=Exponential(
                options.learning_rate[0], options.learning_rate[-1], options.iterations
            ),
            min_log_reward=options.min_log_reward,
            generator=generator,
        )

    def _e_step_log_probs(self, learner: EM[HierarchicalGaussianMixture]) -> Tensor | None:
        """Computes the E-step's own log q(z | x) on test points `[M, Z]`, where it has one."""
        e_step, test = learner.e_step, self.points.test
        if isinstance(e_step, GFlowNetEStep):
            return policy_log_probs(learner.model.env, e_step.policy, test)
        if isinstance(e_step, MeanFieldEStep | ExactEStep):
            return e_step.posterior(test, 1).log_w
        return None
