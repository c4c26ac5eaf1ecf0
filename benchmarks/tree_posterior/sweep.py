"""The settings of the tree posterior suite: which pairs are trained, and for how long."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from algorithms.gflownet_e_step import OPTIMIZERS
from algorithms.tree_policies import tree_policies
from benchmarks.options import option, require_at_least, require_names
from benchmarks.task import Cell
from benchmarks.tree_posterior.problem import tree_problems
from benchmarks.tree_posterior.training import SLEEP, TREES, Training
from gfn_envs.errors import UserError

BETWEEN = "/"
"""Stands between a policy and an objective."""


@dataclass(frozen=True)
class TreePosteriorCell(Cell):
    """One training of one policy.

    Attributes:
        task: The grammar.
        policy: The policy.
        objective: What trains it.
        seed: Of everything random.
    """

    task: str
    policy: str
    objective: str
    seed: int

    @property
    def folder(self) -> str:
        """Where the cell lives; see `Cell.folder`."""
        return f"cells/{self.task}/{self.policy}/{self.objective}/{self.seed:02d}"

    @property
    def title(self) -> str:
        """What people are shown; see `Cell.title`."""
        return f"{self.task}, {self.policy}, {self.objective}, seed {self.seed}"


@dataclass(frozen=True)
class Options:
    """What can be set on the command line; the defaults are the suite's standard comparison."""

    tasks: tuple[str, ...] = option(
        ("cfg-peaked", "ncfg-peaked"), f"grammars: {', '.join(tree_problems)}"
    )
    pairs: tuple[str, ...] = option(
        (
            "chart/span-db", "chart/tb", "chart/sleep", "neural/span-db", "neural/sleep",
            "neural/vargrad+sleep", "neural-plain/span-db", "forest/fl-subtb",
        ),
        f"registered tree policies, each with a registered objective, behind which +{SLEEP} adds "
        f"dreams, or with {SLEEP}",
    )  # fmt: skip
    seeds: int = option(3, "trainings of each pair, with seeds 0, 1, ...")
    cpu_seconds: float = option(
        60.0, "CPU-seconds of each training, without measurements, where --updates is not given"
    )
    updates: tuple[int, ...] = option(
        (), "updates of each training in place of that: one number for all"
    )
    rounds: int = option(6, "measurements of each training, evenly spread")
    learning_rate: float = option(
        Training.learning_rate,
        "the optimiser's for the first two thirds of the updates, and a tenth of it then",
    )
    batch_size: int = option(
        Training.batch_size, f"sentences of an update, with {TREES} trees each, or as many dreams"
    )
    optimizer: str = option(
        Training.optimizer, "adam, or muon for the weights of linear layers", OPTIMIZERS
    )

    def check(self) -> None:
        """Raises a UserError if an option cannot be served."""
        require_at_least(1, self, ("seeds", "rounds", "batch_size"))
        require_names("tasks", self.tasks, tree_problems)
        for name in ("cpu_seconds", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name.replace('_', '-')} must be a positive number.")
        for pair in self.pairs:
            policy, _, _ = pair.partition(BETWEEN)
            if pair.count(BETWEEN) != 1:
                raise UserError(
                    f"--pairs takes a policy and an objective each, as in chart{BETWEEN}span-db; "
                    f"got {pair}."
                )
            tree_policies[policy]
        if len(set(self.pairs)) < len(self.pairs):
            raise UserError(f"--pairs names {max(self.pairs, key=self.pairs.count)} twice.")
        if any(number < self.rounds for number in self.updates):
            raise UserError("--updates must be at least --rounds.")
        if len(self.updates) not in (0, 1, len(self.tasks) * len(self.pairs)):
            raise UserError(f"--updates takes one number; got {len(self.updates)}.")

    @property
    def training(self) -> Training:
        """How updates are made."""
        return Training(self.learning_rate, self.batch_size, self.optimizer)

    @property
    def combinations(self) -> list[tuple[str, str, str]]:
        """All tasks, each with all policies and their objectives."""
        split = [(policy, objective) for policy, _, objective in
                 (pair.partition(BETWEEN) for pair in self.pairs)]  # fmt: skip
        return [(task, *names) for task in self.tasks for names in split]


presets: Mapping[str, Mapping[str, Any]] = {
    # A look at everything in about a minute.
    "quick": {"pairs": ("chart/span-db", "chart/sleep"), "seeds": 1, "cpu_seconds": 10.0},
    # What comes closest to a posterior within a minute.
    "closest": {"pairs": ("chart/span-db",), "batch_size": 64, "optimizer": "muon"},
    # The prototype's kind of grammar, whose rules are nearly alike: it is easy.
    "flat": {
        "tasks": ("cfg", "ncfg"),
        "pairs": ("chart/span-db", "neural/span-db", "neural-plain/span-db"),
        "seeds": 3,
        "cpu_seconds": 30.0,
    },
    # A prior over shapes, where only enumeration is exact.
    "energy": {
        "tasks": ("energy",),
        "pairs": tuple(
            f"{policy}{BETWEEN}{objective}"
            for policy in ("chart", "neural")
            for objective in ("vargrad", "tb", "sleep", "vargrad+sleep")
        ),
        "cpu_seconds": 20.0,
    },
    # Every objective with every policy that it fits, hours.
    "whole": {
        "pairs": tuple(
            f"{policy}{BETWEEN}{objective}"
            for policy in ("chart", "neural", "neural-plain", "forest")
            for objective in (
                "span-db",
                "tb",
                "vargrad",
                "fl-subtb",
                SLEEP,
                "tb+sleep",
                "vargrad+sleep",
                "span-db+sleep",
            )
        ),
    },
}
