"""The settings of the hierarchical-mixture task, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.options import option
from benchmarks.task import Cell

POSITIVE = (
    "initialisations", "iterations", "points", "hidden", "samples_per_x", "e_updates",
    "beta_iterations", "posterior_samples", "sweeps", "moves",
)  # fmt: skip
"""Options that must be at least 1."""

METHODS = ("exact-em", "annealed-em", "mean-field-em", "monte-carlo-em", "gflownet-em")


@dataclass(frozen=True)
class MethodCell(Cell):
    """EM with one E-step from one start.

    Attributes:
        method: Which method learns.
        initialisation: Which of the shared initialisations it starts from.
    """

    method: str
    initialisation: int

    @property
    def folder(self) -> str:
        """Where the cell lives; see `Cell.folder`."""
        return f"cells/{self.method}/{self.initialisation:02d}"

    @property
    def title(self) -> str:
        """What people are shown; see `Cell.title`."""
        return f"{self.method}, initialisation {self.initialisation}"


@dataclass(frozen=True)
class Options:
    """What can be set on the command line; the defaults are this suite's own settings."""

    methods: tuple[str, ...] = option(METHODS, "E-steps to compare", METHODS)
    initialisations: int = option(20, "random starts, shared by all methods")
    iterations: int = option(60, "EM iterations of each run")
    seed: int = option(0, "the one seed that everything random follows from")

    data: str = option("", "CSV file of two numeric columns; the paper's square if not given")
    standardise: bool = option(True, "shift and scale the columns of --data to mean 0, variance 1")
    points: int = option(4000, "synthetic points to train on, and as many to test on")

    branching: tuple[int, ...] = option((4, 4), "branches at each level of the model")
    scale: float = option(0.25, "standard deviation of a leaf component")
    radius: float = option(1.0, "radius of the second level's fixed offsets")
    order: str = option("fixed", "order in which the GFlowNet builds z", ("fixed", "any"))

    objective: str = option("vargrad", "GFlowNet loss", ("vargrad", "tb"))
    backward: str = option(
        "uniform", "P_B where --order is any", ("uniform", "uniform-trajectories", "learned")
    )
    epsilon: float = option(0.1, "share of uniform actions in training trajectories")
    huber_delta: float = option(5.0, "residuals beyond this cost linearly, nats; 0: all squared")
    min_log_reward: float = option(-float("inf"), "lower log rewards are raised to this, nats")
    hidden: int = option(64, "width of the policy's hidden layer")
    learning_rate: tuple[float, ...] = option(
        (0.1, 0.005), "Adam's, for the policy: first and last value over the run"
    )
    batch_size: int = option(256, "observations an E-update; 0: all")
    samples_per_x: int = option(4, "trajectories for each observation of an E-update")
    loss_bound: tuple[float, ...] = option(
        (0.0,), "E-step until the average loss is below this: first and last value; 0: no bound"
    )
    e_updates: int = option(20, "E-updates in an E-step, or the most where --loss-bound is not 0")
    beta: float = option(
        0.03, "annealed-em and gflownet-em: power of the posterior in the first E-step; 1: none"
    )
    beta_iterations: int = option(15, "EM iterations over which that power rises to 1")

    posterior_samples: int = option(1, "samples of z for each point in the M-step")
    m_step: str = option("closed-form", "how parameters are fitted", ("closed-form", "gradient"))
    m_learning_rate: float = option(0.1, "SGD's, of a gradient M-step")
    sweeps: int = option(10, "coordinate sweeps of a mean-field E-step")
    moves: int = option(20, "Metropolis moves a point of a Monte Carlo E-step")


presets: Mapping[str, Mapping[str, Any]] = {
    # Hu et al. 2023, section 5.1. Its 60 x 1000 full-batch updates take minutes for each start.
    "paper": {
        "iterations": 60,
        "objective": "tb",
        "epsilon": 0.0,
        "huber_delta": 0.0,
        "min_log_reward": -20.0,
        "hidden": 32,
        "learning_rate": (3e-4,),
        "batch_size": 0,
        "samples_per_x": 1,
        "loss_bound": (0.0,),
        "e_updates": 1000,
        "beta": 1.0,
        "m_step": "gradient",
    },
    # Section 4.2: E-steps until the loss is low enough; long at first, short once it stays so.
    "adaptive": {"loss_bound": (2.0, 0.2), "e_updates": 100},
}
