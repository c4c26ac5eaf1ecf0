"""The report's tables: rankings with intervals and tests, and every metric side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.report.contest import Quantity
from benchmarks.report.document import Entry, Interval, Table
from benchmarks.report.numbers import p_value, significant
from benchmarks.report.ranking import Placing, Standing, standings
from benchmarks.report.results import Combination


def ranking_table(ranked: Sequence[Standing], caption: str, beside: Sequence[str] = ()) -> Table:
    """Ranks the combinations of a task.

    Args:
        ranked: Their standings, the best first.
        caption: What is ranked by; how intervals are drawn is added.
        beside: Further metrics whose means are shown, where there are any. Intervals are then
            below the means and not drawn, to leave room.
    """
    best = ranked[0]
    contest = best.combination.contest
    quantity = contest.quantity
    headers = [
        "rank", *contest.choices, _two_lines(quantity.label),
        *([] if beside else ["95 % interval", "interval drawn"]),
        _two_lines(_relation(quantity)), "differs from\nthe best?",
        *(_two_lines(contest.quantities[name].label) for name in beside),
        "seeds", _two_lines(f"{contest.evaluation}s"), "CPU s",
    ]  # fmt: skip
    rows = []
    for rank, standing in enumerate(ranked, 1):
        one, interval = standing.combination, standing.interval
        rows.append(
            [
                Entry(str(rank), rank),
                *map(Entry, one.choice),
                Entry(
                    significant(standing.mean),
                    standing.mean,
                    note=_range(interval, 2) if beside and interval else "",
                    mark="best" if standing is best else "",
                ),
                *([] if beside else _interval(standing)),
                _behind(quantity, standing.behind, standing.behind_interval),
                _verdict(standing, standing is best),
                *(_mean(one, name) for name in beside),
                Entry(str(len(one.seeds)), len(one.seeds)),
                *_cost(one),
            ]
        )
    positive = all(bound > 0 for s in ranked for bound in (s.mean, *(s.interval or ())))
    logarithmic = quantity.logarithmic and positive
    if logarithmic and not beside:
        caption += " Intervals are drawn on a logarithmic scale."
    return Table(headers, rows, caption, logarithmic)


def metrics_table(found: Sequence[Combination], caption: str) -> Table:
    """Shows every metric of a task's combinations, each with its interval and its best."""
    contest = found[0].contest
    shown = [name for name in contest.quantities if any(name in one.metrics for one in found)]
    entries: dict[tuple[str, tuple[str, ...]], Entry] = {}
    for name in shown:
        ranked = standings([one for one in found if name in one.metrics], name)
        digits = contest.quantities[name].digits
        for standing in ranked:
            interval = standing.interval
            entries[name, standing.combination.key] = Entry(
                f"{'≈ ' if standing.tied else ''}{significant(standing.mean, digits)}",
                standing.mean,
                note="" if interval is None else _range(interval, digits),
                mark="best" if standing is ranked[0] else "tied" if standing.tied else "",
            )
    headers = [*contest.choices, *(_header(contest.quantities[name]) for name in shown)]
    rows = [
        [*map(Entry, one.choice), *(entries.get((name, one.key), Entry("-")) for name in shown)]
        for one in found
    ]
    caption = (
        "Means over seeds with 95 % intervals below them; arrows say which way is better. "
        f"{caption} The best of each column is in bold type, and ≈ marks what cannot be told apart "
        "from it."
    )
    return Table(headers, rows, caption)


def placings_table(kind: str, placed: Sequence[Placing], of: str, quantity: Quantity) -> Table:
    """Ranks choices over several comparisons.

    Args:
        kind: What is ranked, in the singular.
        placed: The placings, the best first.
        of: What one comparison is, for the caption.
        quantity: What is ranked by.
    """
    headers = ["rank", kind, _relation(quantity), "95 % interval", "mean rank",
               "differs from the first?", "comparisons"]  # fmt: skip
    rows = [
        [
            Entry(str(rank), rank),
            Entry(one.name),
            _behind(quantity, one.behind, mark="" if rank > 1 else "best"),
            _bounds(quantity, one.interval),
            Entry(f"{one.mean_rank:.2f}", one.mean_rank),
            _verdict(one, rank == 1),
            Entry(str(one.comparisons), one.comparisons),
        ]
        for rank, one in enumerate(placed, 1)
    ]
    least = f"{quantity.label} {'over' if quantity.logarithmic else 'less'} the least mean"
    averaged = "averaged geometrically" if quantity.logarithmic else "averaged"
    caption = (
        f"Each comparison: {of}. {_relation(quantity).capitalize()}: {least} of the comparison, "
        f"{averaged} over comparisons; {1 if quantity.logarithmic else 0} would be the best of "
        "every one."
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


def _interval(standing: Standing) -> list[Entry]:
    """Shows a mean's interval, in numbers and drawn."""
    mean, interval = standing.mean, standing.interval
    if interval is None:
        return [Entry("-"), Entry("-", mean, interval=Interval(mean, mean, mean))]
    shown = _range(interval, 3)
    return [Entry(shown, interval[0]), Entry(shown, mean, interval=Interval(mean, *interval))]


def _relation(quantity: Quantity) -> str:
    """Names how far something is behind the best."""
    return "times the best" if quantity.logarithmic else "above the best"


def _behind(
    quantity: Quantity,
    value: float,
    interval: tuple[float, float] | None = None,
    mark: str = "",
) -> Entry:
    """Shows how far something is behind the best."""
    text = f"{value:.2f}" if quantity.logarithmic else significant(value, 2)
    note = "" if interval is None else _range(interval, 2)
    return Entry(text, value, note, mark)


def _bounds(quantity: Quantity, interval: tuple[float, float] | None) -> Entry:
    """Shows the interval of how far something is behind."""
    if interval is None:
        return Entry("-")
    if quantity.logarithmic:
        return Entry(f"{interval[0]:.2f} to {interval[1]:.2f}", interval[0])
    return Entry(_range(interval, 2), interval[0])


def _mean(one: Combination, metric: str) -> Entry:
    """Shows a metric's mean, or that there is none."""
    if metric not in one.metrics:
        return Entry("-")
    mean = float(np.mean(one.metrics[metric]))
    return Entry(significant(mean, one.contest.quantities[metric].digits), mean)


def _cost(one: Combination) -> list[Entry]:
    """Shows what one run costs, likelihood evaluations and CPU seconds."""
    evaluations, seconds = np.mean(one.likelihood_evaluations), np.mean(one.cpu_seconds)
    return [
        Entry(f"{evaluations:,.0f}", float(evaluations)),
        Entry(f"{seconds:.1f}", float(seconds)),
    ]


def _header(quantity: Quantity) -> str:
    """Names a metric, with an arrow to where it is better."""
    return f"{quantity.label}\N{NO-BREAK SPACE}{'↓' if quantity.lower_is_better else '↑'}"


def _two_lines(words: str) -> str:
    """Breaks a header before its last word."""
    return "\n".join(words.rsplit(" ", 1))
