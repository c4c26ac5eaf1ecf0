"""Who is best, by how much, and who cannot be told apart from the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.posterior.quantities import QUANTITIES
from benchmarks.posterior.results import METRIC, Combination
from benchmarks.report.statistics import (
    LEVEL,
    SMALLEST,
    bootstrap_geometric_interval,
    bootstrap_interval,
    geometric_mean,
    holm,
    paired_p_value,
)

Group = dict[str, Combination]
"""What is compared like with like, by the name of the choice that differs."""


class Tested:
    """What was held against the best.

    Attributes:
        p_value: Of the paired difference from the best, corrected for the number of comparisons;
            None for the best itself, and where fewer than two seeds finished on both sides.
    """

    p_value: float | None

    @property
    def tied(self) -> bool:
        """Whether it was compared and cannot be told apart from the best."""
        return self.p_value is not None and self.p_value > 1 - LEVEL


@dataclass(frozen=True)
class Standing(Tested):
    """A combination among those of its task, by one metric.

    Attributes:
        combination: Which.
        mean: The metric's mean over seeds.
        interval: Its bootstrap interval, None of one seed.
    """

    combination: Combination
    mean: float
    interval: tuple[float, float] | None
    p_value: float | None


def standings(found: Sequence[Combination], metric: str = METRIC) -> list[Standing]:
    """Ranks the combinations of one task by a metric's mean, the best first.

    Each is held against the best by a t-test paired by seed, with Holm's correction.
    """
    quantity = QUANTITIES[metric]
    sign = 1 if quantity.lower_is_better else -1
    means = {one.key: float(np.mean(one.metrics[metric])) for one in found}
    ranked = sorted(found, key=lambda one: sign * means[one.key])
    if not ranked:
        return []
    values = [one.by_seed(metric) for one in ranked]
    raw = [_paired(values[0], other, quantity.logarithmic) for other in values[1:]]
    p_values = [None, *holm(raw)]
    return [
        Standing(one, means[one.key], bootstrap_interval(one.metrics[metric]), p_value)
        for one, p_value in zip(ranked, p_values, strict=True)
    ]


@dataclass(frozen=True)
class Placing(Tested):
    """A choice over several comparisons, each of like with like.

    Attributes:
        name: The choice: a combination, an objective or an exploration.
        ratio: The geometric mean over comparisons of its mean error over the least mean error.
        interval: The ratio's bootstrap interval over seeds, None of one seed; the least mean errors
            are held fixed.
        mean_rank: Its mean rank in the comparisons, 1 for the best.
        comparisons: How many it took part in.
    """

    name: str
    ratio: float
    interval: tuple[float, float] | None
    mean_rank: float
    comparisons: int
    p_value: float | None


def placings(
    found: Sequence[Combination],
    choice: Callable[[Combination], str],
    comparison: Callable[[Combination], tuple[str, ...]],
) -> list[Placing]:
    """Ranks choices over comparisons, those that took part in the most first, then the best.

    Args:
        found: All combinations.
        choice: What is ranked.
        comparison: Combinations of which this is the same, and whose choices differ, are compared.

    Returns:
        A placing for each choice that was compared with another.
    """
    groups: dict[tuple[str, ...], Group] = {}
    for one in found:
        groups.setdefault(comparison(one), {})[choice(one)] = one
    compared = [group for group in groups.values() if len(group) > 1]
    names = dict.fromkeys(name for group in compared for name in group)
    rows = []
    for name in names:
        own = [group for group in compared if name in group]
        ratios = [group[name].mean / _least(group) for group in own]
        ranks = [sorted(one.mean for one in group.values()).index(group[name].mean) + 1
                 for group in own]  # fmt: skip
        interval = bootstrap_geometric_interval(_seeds_by_groups(own, name))
        rows.append((name, geometric_mean(ratios), interval, float(np.mean(ranks)), len(own)))
    rows.sort(key=lambda row: (-row[4], row[1]))
    raw = [_paired_over_groups(compared, rows[0][0], row[0]) for row in rows[1:]]
    p_values = [None, *holm(raw)] if rows else []
    return [Placing(*row, p_value) for row, p_value in zip(rows, p_values, strict=True)]


def _least(group: Group) -> float:
    """Finds the least mean error of a comparison."""
    return max(min(one.mean for one in group.values()), SMALLEST)


def _seeds_by_groups(groups: Sequence[Group], name: str) -> list[list[float]]:
    """Divides errors by the least mean errors, of seeds finished in every comparison `[N, G]`."""
    errors = [group[name].by_seed() for group in groups]
    seeds = sorted(set.intersection(*map(set, errors)))
    least = [_least(group) for group in groups]
    return [[error[seed] / low for error, low in zip(errors, least, strict=True)] for seed in seeds]


def _paired_over_groups(groups: Sequence[Group], first: str, other: str) -> float | None:
    """Tests two choices over the comparisons and seeds that both took part in."""
    a, b = [], []
    for seed in sorted({s for group in groups for one in group.values() for s in one.seeds}):
        shared = [
            group
            for group in groups
            if all(name in group and seed in group[name].seeds for name in (first, other))
        ]
        if shared:
            a.append(geometric_mean([group[first].by_seed()[seed] for group in shared]))
            b.append(geometric_mean([group[other].by_seed()[seed] for group in shared]))
    return paired_p_value(a, b, logarithmic=True)


def _paired(a: Mapping[int, float], b: Mapping[int, float], logarithmic: bool) -> float | None:
    """Tests two methods on the seeds that both finished."""
    seeds = [seed for seed in a if seed in b]
    return paired_p_value([a[s] for s in seeds], [b[s] for s in seeds], logarithmic)
