"""The settings of the posterior suite: which grid it covers, and for how long it trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.options import option
from benchmarks.posterior.training import LEARNING_RATE
from benchmarks.task import Cell


@dataclass(frozen=True)
class PosteriorCell(Cell):
    """One training of one policy.

    Attributes:
        task: The model whose posterior is sampled.
        objective: The objective.
        exploration: Where training trajectories come from.
        seed: Of everything random.
    """

    task: str
    objective: str
    exploration: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the cell lives; see `Cell.folder`."""
        return f"cells/{self.task}/{self.objective}/{self.exploration}/{self.seed:02d}"

    @property
    def title(self) -> str:
        """What people are shown; see `Cell.title`."""
        return f"{self.task}, {self.objective}, {self.exploration}, seed {self.seed}"


@dataclass(frozen=True)
class Options:
    """What can be set on the command line; the defaults are the suite's standard comparison."""

    tasks: tuple[str, ...] = option(
        ("mixture-tiny", "hmm-tiny", "sbn-tiny"), "registered models whose posteriors are sampled"
    )
    objectives: tuple[str, ...] = option(
        ("tb", "vargrad", "db", "subtb", "fl-subtb", "reverse-kl"), "registered objectives"
    )
    explorations: tuple[str, ...] = option(
        ("on-policy", "epsilon-uniform", "replay", "back-and-forth", "tempered"),
        "registered explorations",
    )
    seeds: int = option(3, "trainings of each combination, with seeds 0, 1, ...")
    updates: int = option(1000, "policy updates of each training")
    every: int = option(100, "updates between measurements")
    learning_rate: float = option(
        LEARNING_RATE, "Adam's for the first two thirds of the updates, and a tenth of it then"
    )


presets: Mapping[str, Mapping[str, Any]] = {
    # Trees of short sentences: what of these the chart policy can learn from, at little cost.
    "grammars": {
        "tasks": ("pcfg-tiny", "ncfg-tiny", "energy-tiny"),
        "objectives": ("tb", "vargrad", "span-db", "reverse-kl", "forward-kl"),
        "explorations": ("on-policy", "epsilon-uniform", "exact-oracle"),
        "updates": 500,
    },
}
