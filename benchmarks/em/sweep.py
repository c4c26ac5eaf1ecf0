"""The settings of the EM suite: which grid it covers, on how much data and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.options import option
from benchmarks.task import Cell

POSITIVE = (
    "seeds", "iterations", "every", "points", "test_points", "e_updates", "first_e_updates",
    "posterior_samples", "beta_iterations",
)  # fmt: skip
"""Options that must be at least 1."""


@dataclass(frozen=True)
class EMCell(Cell):
    """One method that learns one model from one start.

    Attributes:
        task: The model.
        method: What learns it.
        seed: Of the data and the start, which all methods share, and of the method's randomness.
    """

    task: str
    method: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the cell lives; see `Cell.folder`."""
        return f"cells/{self.task}/{self.method}/{self.seed:02d}"

    @property
    def title(self) -> str:
        """What people are shown; see `Cell.title`."""
        return f"{self.task}, {self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Options:
    """What can be set on the command line; the defaults are the suite's standard comparison."""

    tasks: tuple[str, ...] = option(
        ("mixture-tiny", "hmm-tiny", "sbn-tiny"), "registered models that are learned"
    )
    methods: tuple[str, ...] = option(
        (
            "exact-em", "annealed-em", "mean-field-em", "monte-carlo-em", "gflownet-em",
            "gflownet-em-sleep", "wake-sleep", "reweighted-wake-sleep", "marginalisation",
        ),
        "registered EM methods",
    )  # fmt: skip
    seeds: int = option(3, "data sets and starts, with seeds 0, 1, ...")
    first_seed: int = option(0, "the seed to count from")
    iterations: int = option(60, "EM iterations of each run")
    every: int = option(5, "EM iterations between measurements")
    points: int = option(1000, "observations to learn from")
    test_points: int = option(2000, "observations to be judged by")
    e_updates: int = option(20, "policy updates of an E-step, where a policy is trained")
    first_e_updates: int = option(200, "the same of the first E-step, from a uniform policy")
    posterior_samples: int = option(
        4, "structures for each observation that an M-step sees, where a policy draws them"
    )
    m_step_points: int = option(
        0, "observations that such an M-step sees, drawn anew each time; 0: all"
    )
    policy: str = option("mlp", "registered policy network, the same for every method with one")
    beta: float = option(
        1.0, "power of the posterior that sampling E-steps aim at first, rising to 1"
    )
    beta_iterations: int = option(15, "EM iterations over which it rises")


LEARNING_POLICIES = (
    "gflownet-em", "gflownet-em-weighted", "reinforce-em", "reinforce-em-weighted",
    "reweighted-wake-sleep-tempered",
)  # fmt: skip
"""Methods with a policy for decoders that render: nothing but log p(x, z) to learn from."""

presets: Mapping[str, Mapping[str, Any]] = {
    # A decoder that renders: nothing but log p(x, z) to learn from, and too many z for a table.
    "sprites": {
        "tasks": ("sprites-small",),
        "methods": (*LEARNING_POLICIES, "monte-carlo-em-1", "gibbs-em"),
        "points": 4000,
        "iterations": 100,
        "posterior_samples": 32,
        "m_step_points": 1000,
        "policy": "additive",
        "beta": 0.2,
        "beta_iterations": 30,
    },
    # Latents of which each moves all later ones, so that chains of single changes get stuck.
    "paths": {
        "tasks": ("paths-small",),
        "methods": (
            *LEARNING_POLICIES,
            "gflownet-em-dreams",
            "reinforce-em-dreams",
            "reweighted-wake-sleep-dreams",
            # An iteration of these chains takes about as long as one with a policy does.
            "monte-carlo-em-short",
            "gibbs-em-2",
        ),
        "points": 4000,
        "test_points": 500,
        "iterations": 60,
        "every": 10,
        "e_updates": 5,
        "first_e_updates": 50,
        "posterior_samples": 8,
        "m_step_points": 1000,
        "policy": "turtle",
        "beta": 0.2,
        "beta_iterations": 20,
    },
}
