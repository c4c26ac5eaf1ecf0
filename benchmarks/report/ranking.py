"""Who is best, by how much, and who cannot be told apart from the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.report.contest import Quantity
from benchmarks.report.results import Combination
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
        behind: How far it is behind the best: how many times as large its mean is, or how much
            worse it is on average on the seeds that both finished.
        behind_interval: The bootstrap interval of that difference over seeds; None of the best, of
            ratios, and of fewer than two seeds.
    """

    combination: Combination
    mean: float
    interval: tuple[float, float] | None
    behind: float
    behind_interval: tuple[float, float] | None
    p_value: float | None


def standings(found: Sequence[Combination], metric: str | None = None) -> list[Standing]:
    """Ranks the combinations of one task by a metric's mean, the best first.

    Each is held against the best by a t-test paired by seed, with Holm's correction.

    Args:
        found: The combinations, each with a value of the metric.
        metric: The contest's ranking metric by default.
    """
    if not found:
        return []
    contest = found[0].contest
    metric = metric or contest.metric
    quantity = contest.quantities[metric]
    sign = 1 if quantity.lower_is_better else -1
    means = {one.key: float(np.mean(one.metrics[metric])) for one in found}
    ranked = sorted(found, key=lambda one: sign * means[one.key])
    best = ranked[0].by_seed(metric)
    raw = [_paired(best, other.by_seed(metric), quantity) for other in ranked[1:]]
    p_values = [None, *holm(raw)]
    return [
        Standing(
            one,
            means[one.key],
            bootstrap_interval(one.metrics[metric]),
            *_behind(one, ranked[0], metric),
            p_value,
        )
        for one, p_value in zip(ranked, p_values, strict=True)
    ]


def _behind(
    one: Combination, best: Combination, metric: str
) -> tuple[float, tuple[float, float] | None]:
    """Measures how far a combination is behind the best; see `Standing`."""
    quantity = one.contest.quantities[metric]
    own, others = one.by_seed(metric), best.by_seed(metric)
    shared = [seed for seed in own if seed in others]
    if quantity.logarithmic or not shared:
        means = (float(np.mean(either.metrics[metric])) for either in (one, best))
        return behind(quantity, *means), None
    differences = [behind(quantity, own[seed], others[seed]) for seed in shared]
    interval = None if one is best else bootstrap_interval(differences)
    return float(np.mean(differences)), interval


def behind(quantity: Quantity, value: float, best: float) -> float:
    """Returns how many times as large as the best an error is, or how much worse a value is."""
    if quantity.logarithmic:
        return max(value, SMALLEST) / max(best, SMALLEST)
    return value - best if quantity.lower_is_better else best - value


def _average(quantity: Quantity, values: ArrayLike) -> float:
    """Averages values `[N]`, or how far they are behind, on the scale that they are compared on."""
    return (
        geometric_mean(values)
        if quantity.logarithmic
        else float(np.mean(np.asarray(values, dtype=float)))
    )


@dataclass(frozen=True)
class Placing(Tested):
    """A choice over several comparisons, each of like with like.

    Attributes:
        name: The choice: a combination, or one part of it.
        behind: How far its mean error is behind the least mean error, averaged over comparisons:
            the geometric mean of ratios, or the mean of differences.
        interval: The bootstrap interval of that over seeds, None of one seed. In ratios the least
            mean errors are held fixed; differences are from the same seed of what has them.
        mean_rank: Its mean rank in the comparisons, 1 for the best.
        comparisons: How many it took part in.
    """

    name: str
    behind: float
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
    if not compared:
        return []
    quantity = found[0].contest.quantity
    names = dict.fromkeys(name for group in compared for name in group)
    rows = []
    for name in names:
        own = [group for group in compared if name in group]
        distances = [behind(quantity, group[name].mean, _best(group).mean) for group in own]
        ranks = [sorted(one.mean for one in group.values()).index(group[name].mean) + 1
                 for group in own]  # fmt: skip
        interval = _interval(quantity, own, name)
        average = _average(quantity, distances)
        rows.append((name, average, interval, float(np.mean(ranks)), len(own)))
    rows.sort(key=lambda row: (-row[4], row[1]))
    raw = [_paired_over_groups(quantity, compared, rows[0][0], row[0]) for row in rows[1:]]
    p_values = [None, *holm(raw)]
    return [Placing(*row, p_value) for row, p_value in zip(rows, p_values, strict=True)]


def _best(group: Group) -> Combination:
    """Finds what has the least mean error of a comparison."""
    return min(group.values(), key=lambda one: one.mean)


def _interval(quantity: Quantity, groups: Sequence[Group], name: str) -> tuple[float, float] | None:
    """Computes a placing's interval from the seeds that are finished in every comparison."""
    own, best = [group[name] for group in groups], [_best(group) for group in groups]
    finished = own if quantity.logarithmic else own + best
    distances = [
        [
            behind(quantity, one.by_seed()[seed],
                   other.mean if quantity.logarithmic else other.by_seed()[seed])
            for one, other in zip(own, best, strict=True)
        ]
        for seed in sorted(set.intersection(*(set(one.seeds) for one in finished)))
    ]  # fmt: skip
    if quantity.logarithmic:
        return bootstrap_geometric_interval(distances)
    return bootstrap_interval([float(np.mean(row)) for row in distances])


def _paired_over_groups(
    quantity: Quantity, groups: Sequence[Group], first: str, other: str
) -> float | None:
    """Tests two choices over the comparisons and seeds that both took part in."""
    a, b = {}, {}
    for seed in sorted({s for group in groups for one in group.values() for s in one.seeds}):
        shared = [
            group
            for group in groups
            if all(name in group and seed in group[name].seeds for name in (first, other))
        ]
        if shared:
            a[seed] = _average(quantity, [group[first].by_seed()[seed] for group in shared])
            b[seed] = _average(quantity, [group[other].by_seed()[seed] for group in shared])
    return _paired(a, b, quantity)


def _paired(a: Mapping[int, float], b: Mapping[int, float], quantity: Quantity) -> float | None:
    """Tests two methods on the seeds that both finished."""
    seeds = [seed for seed in a if seed in b]
    return paired_p_value(
        [a[s] for s in seeds], [b[s] for s in seeds], quantity.logarithmic, quantity.rounding
    )
