"""The report's tables: rankings with intervals and tests, and every metric side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.posterior.quantities import QUANTITIES
from benchmarks.posterior.ranking import Placing, Standing, standings
from benchmarks.posterior.results import Combination
from benchmarks.report.document import Entry, Interval, Table
from benchmarks.report.numbers import p_value, significant


def ranking_table(ranked: Sequence[Standing]) -> Table:
    """Ranks the combinations of a task by total variation."""
    headers = [
        "rank", "objective", "exploration", "total\nvariation", "95 % interval", "interval drawn",
        "times\nthe best", "differs from\nthe best?", "seeds", "likelihood\nevaluations", "CPU s",
    ]  # fmt: skip
    best = ranked[0]
    rows = []
    for rank, standing in enumerate(ranked, 1):
        one, interval = standing.combination, standing.interval
        ratio = standing.mean / best.mean if best.mean else 1.0
        mark = "best" if standing is best else ""
        drawn = Interval(standing.mean, *(interval or (standing.mean, standing.mean)))
        low_high = "-" if interval is None else _range(interval, 3)
        rows.append(
            [
                Entry(str(rank), rank),
                Entry(one.objective),
                Entry(one.exploration),
                Entry(significant(standing.mean), standing.mean, mark=mark),
                Entry(low_high, None if interval is None else interval[0]),
                Entry(low_high, standing.mean, interval=drawn),
                Entry(f"{ratio:.2f}", ratio),
                _verdict(standing, standing is best),
                Entry(str(len(one.seeds)), len(one.seeds)),
                *_cost(one),
            ]
        )
    caption = (
        "Total variation between q(z | x) and the exact posterior, 0 to 1, averaged over the "
        "observations, after the last update. Costs are of one training, without measurements. "
        "Intervals are drawn on a logarithmic scale."
    )
    positive = all(bound > 0 for s in ranked for bound in (s.mean, *(s.interval or ())))
    return Table(headers, rows, caption, logarithmic=positive)


def metrics_table(found: Sequence[Combination]) -> Table:
    """Shows every metric of a task's combinations, each with its interval and its best."""
    shown = [name for name in QUANTITIES if all(name in one.metrics for one in found)]
    entries: dict[tuple[str, tuple[str, str, str]], Entry] = {}
    for name in shown:
        ranked, digits = standings(found, name), 3 if QUANTITIES[name].logarithmic else 4
        for standing in ranked:
            interval = standing.interval
            entries[name, standing.combination.key] = Entry(
                f"{'≈ ' if standing.tied else ''}{significant(standing.mean, digits)}",
                standing.mean,
                note="" if interval is None else _range(interval, digits),
                mark="best" if standing is ranked[0] else "tied" if standing.tied else "",
            )
    headers = ["objective", "exploration", *(_header(name) for name in shown)]
    rows = [
        [Entry(one.objective), Entry(one.exploration), *(entries[name, one.key] for name in shown)]
        for one in found
    ]
    caption = (
        "Means over seeds with 95 % intervals below them; arrows say which way is better. KL, "
        "ELBO, IWAE and EUBO in nats. The best of each column is in bold type, and ≈ marks what "
        "cannot be told apart from it."
    )
    return Table(headers, rows, caption)


def placings_table(kind: str, placed: Sequence[Placing], of: str) -> Table:
    """Ranks choices over several comparisons.

    Args:
        kind: What is ranked, in the singular.
        placed: The placings, the best first.
        of: What one comparison is, for the caption.
    """
    headers = ["rank", kind, "times the best", "95 % interval", "mean rank",
               "differs from the first?", "comparisons"]  # fmt: skip
    rows = [
        [
            Entry(str(rank), rank),
            Entry(one.name),
            Entry(f"{one.ratio:.2f}", one.ratio, mark="" if rank > 1 else "best"),
            _decimals(one.interval),
            Entry(f"{one.mean_rank:.2f}", one.mean_rank),
            _verdict(one, rank == 1),
            Entry(str(one.comparisons), one.comparisons),
        ]
        for rank, one in enumerate(placed, 1)
    ]
    caption = (
        f"Each comparison: {of}. Times the best: total variation over the least mean of the "
        "comparison, averaged geometrically over comparisons; 1 would be the best of every one."
    )
    return Table(headers, rows, caption)


def _verdict(one: Standing | Placing, first: bool) -> Entry:
    """Says whether something differs from the best."""
    if first:
        return Entry("the best", -1.0)
    if one.p_value is None:
        return Entry("not known", 3.0)
    if one.tied:
        return Entry(f"no ({p_value(one.p_value)})", 1 + one.p_value, mark="tied")
    return Entry(f"yes ({p_value(one.p_value)})", one.p_value)


def _range(interval: tuple[float, float], digits: int) -> str:
    """Shows an interval."""
    return " to ".join(significant(bound, digits) for bound in interval)


def _decimals(interval: tuple[float, float] | None) -> Entry:
    """Shows a ratio's interval."""
    if interval is None:
        return Entry("-")
    return Entry(f"{interval[0]:.2f} to {interval[1]:.2f}", interval[0])


def _cost(one: Combination) -> list[Entry]:
    """Shows what one training costs, likelihood evaluations and CPU seconds."""
    evaluations, seconds = np.mean(one.likelihood_evaluations), np.mean(one.cpu_seconds)
    return [
        Entry(f"{evaluations:,.0f}", float(evaluations)),
        Entry(f"{seconds:.1f}", float(seconds)),
    ]


def _header(metric: str) -> str:
    """Names a metric, with an arrow to where it is better."""
    quantity = QUANTITIES[metric]
    return f"{quantity.label}\N{NO-BREAK SPACE}{'↓' if quantity.lower_is_better else '↑'}"
