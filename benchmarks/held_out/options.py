"""The settings that tasks share: which methods, from how many starts, for how long."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from benchmarks.options import option, require_at_least, require_names
from gfn_envs.catalogue import Catalogue
from gfn_envs.errors import UserError


@dataclass(frozen=True)
class HeldOutOptions:
    """Methods and what they may spend."""

    methods: tuple[str, ...] = option((), "registered methods")
    seeds: int = option(1, "starts, with seeds 0, 1, ...")
    first_seed: int = option(0, "the seed to count from")
    updates: tuple[int, ...] = option(
        (), "mini-batches of each method, in their order, or one number for all; none: as many as "
        "--cpu-minutes allow, by what an update is measured to take when the run begins",
    )  # fmt: skip
    cpu_minutes: float = option(
        0.5, "CPU-minutes of each method and seed, where --updates is not given"
    )
    rounds: int = option(100, "rounds that the mini-batches are spread over, for log and bar")
    batch_size: int = option(32, "observations a mini-batch")
    every: int = option(5, "rounds between two measurements on validation data")
    patience: int = option(
        0, "measurements in a row without a lower validation NLL that end a run early, which then "
        "lacks the last updates' smaller learning rates; 0: none do",
    )  # fmt: skip

    def updates_of(self, method: str) -> int:
        """Returns how many mini-batches a method has in all, at most."""
        if len(self.updates) == 1:
            return self.updates[0]
        return self.updates[self.methods.index(method)]

    def check_shared(self, known: Catalogue) -> None:
        """Raises a UserError if one of these options cannot be served.

        Args:
            known: The methods that there are.
        """
        require_at_least(1, self, ("seeds", "rounds", "batch_size", "every"))
        require_at_least(0, self, ("first_seed", "patience"))
        require_names("methods", self.methods, known)
        if not self.methods:
            raise UserError("--methods names no method.")
        if not 0 < self.cpu_minutes < math.inf:
            raise UserError(f"--cpu-minutes must be a positive number; got {self.cpu_minutes}.")
        if self.updates and len(self.updates) not in (1, len(self.methods)):
            raise UserError(
                f"--updates takes one number, or one for each of the {len(self.methods)} methods; "
                f"got {len(self.updates)}."
            )
        if self.updates and min(self.updates) < self.rounds:
            raise UserError(
                f"--updates must be at least --rounds, {self.rounds}; got {min(self.updates)}."
            )


OptionsT = TypeVar("OptionsT", bound=HeldOutOptions)

MAY_DIFFER = ("methods", "seeds", "first_seed", "updates", "cpu_minutes", "data")
"""Between runs that are merged; the data are compared themselves, wherever they lie.

Methods may have been given different CPU-minutes, each what it does best with: tables show them."""


def merge_options(all_options: Sequence[OptionsT]) -> OptionsT:
    """Puts the methods and the seeds of several runs together.

    Returns:
        Options of all methods and seeds, with each method's updates and the most CPU-minutes.

    Raises:
        UserError: If the runs differ in anything else.
    """
    first = all_options[0]
    for field in fields(first):
        values = list(dict.fromkeys(getattr(options, field.name) for options in all_options))
        if field.name not in MAY_DIFFER and len(values) > 1:
            raise UserError(
                f"These runs differ in --{field.name.replace('_', '-')}, {values[0]} and "
                f"{values[1]}; only those of other methods or seeds can be merged."
            )
    updates: dict[str, int] = {}
    for options in all_options:
        for method in options.methods:
            number, known = options.updates_of(method), updates.get(method)
            if known not in (None, number):
                raise UserError(
                    f"{method} has {known:,} updates in one run and {number:,} in another; runs of "
                    "the same method must be given the same --updates."
                )
            updates[method] = number
    begin = min(options.first_seed for options in all_options)
    end = max(options.first_seed + options.seeds for options in all_options)
    return replace(
        first, methods=tuple(updates), updates=tuple(updates.values()), first_seed=begin,
        seeds=end - begin, cpu_minutes=max(options.cpu_minutes for options in all_options),
    )  # fmt: skip
