"""The report's first sentences: what is best on each task, by how much, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.report.contest import Quantity
from benchmarks.report.document import Block, Bullets, Paragraph, Strong, Words
from benchmarks.report.numbers import counted, duration, significant, times
from benchmarks.report.ranking import Placing, Standing


def at_a_glance(
    ranked: Mapping[str, Sequence[Standing]], overall: Sequence[Placing]
) -> list[Block]:
    """Says who is best.

    Args:
        ranked: The standings of each task, at least one.
        overall: The placings of all combinations over the tasks.

    Returns:
        A sentence about all tasks, where there are several, and some about each.
    """
    blocks: list[Block] = []
    if len(ranked) > 1 and overall:
        first = next(iter(ranked.values()))[0].combination
        blocks.append(_over_all(overall, first.contest.quantity))
    blocks.append(Bullets([_of_task(task, standing) for task, standing in ranked.items()]))
    return blocks


def _over_all(placed: Sequence[Placing], quantity: Quantity) -> Paragraph:
    """Says which combination is best over all tasks."""
    first = placed[0]
    words: list[Words] = ["Over all tasks, ", Strong(first.name), " comes first: "]
    if quantity.logarithmic:
        words.append(
            f"its {quantity.label} is on average {first.behind:.2f} times that of each task's best"
            f"{_interval(first.interval, 2)}."
        )
    else:
        words.append(
            f"its {quantity.label} is on average {significant(first.behind, 2)} {quantity.unit} "
            f"above that of each task's best{_interval(first.interval)}."
        )
    if len(placed) > 1:
        second = placed[1]
        far = (
            f"{second.behind:.2f} times" if quantity.logarithmic
            else f"{significant(second.behind, 2)} {quantity.unit}"
        )  # fmt: skip
        words.append(f" Next comes {second.name}, with {far}.")
    return Paragraph(*words)


def _of_task(task: str, ranked: Sequence[Standing]) -> Paragraph:
    """Says which combination is best on a task, what it cost and what it cannot be told from."""
    best, others = ranked[0], ranked[1:]
    one = best.combination
    contest = one.contest
    quantity = contest.quantity
    value = f"{significant(best.mean, 2)} {quantity.unit}".rstrip()
    evaluations = counted(round(np.mean(one.likelihood_evaluations)), contest.evaluation)
    words: list[Words] = [
        Strong(task), ": ", Strong(one.name), f" {contest.wins}, with a "
        f"{quantity.label} of {value}{_interval(best.interval)} over "
        f"{counted(len(one.seeds), 'seed')}, after {counted(one.updates, contest.update)}, "
        f"{evaluations} and {duration(float(np.mean(one.cpu_seconds)))} of CPU time a "
        f"{contest.run}.",
    ]  # fmt: skip
    tied = [other for other in others if other.tied]
    apart = [other for other in others if other.p_value is not None and not other.tied]
    if tied and apart:
        words.append(
            f" Of the {len(others)} others, {len(tied)} cannot be told apart from it: "
            f"{_grouped(tied, ranked)}. The rest can, {_span(apart)}."
        )
    elif tied and len(others) == 1:
        words.append(f" The other, {tied[0].combination.name}, cannot be told apart from it.")
    elif tied:
        words.append(f" None of the {len(others)} others can be told apart from it.")
    elif apart and len(others) == 1:
        words.append(f" The other can be told apart from it, {_span(apart)}.")
    elif apart:
        words.append(f" All {len(others)} others can be told apart from it, {_span(apart)}.")
    elif others:
        runner_up = others[0]
        far = (
            f"{times(runner_up.behind)} as far away" if quantity.logarithmic
            else f"{significant(runner_up.behind, 2)} {quantity.unit} behind"
        )  # fmt: skip
        words.append(f" Next comes {runner_up.combination.name}, {far}.")
    return Paragraph(*words)


def _span(apart: Sequence[Standing]) -> str:
    """Says how far away the nearest and the farthest are."""
    nearest, farthest = apart[0], apart[-1]
    quantity = nearest.combination.contest.quantity
    if quantity.logarithmic:
        near = f"{nearest.combination.name} at {times(nearest.behind)} its {quantity.label}"
        far = f"{farthest.combination.name} at {times(farthest.behind)}"
    else:
        near = f"{nearest.combination.name}, {significant(nearest.behind, 2)} {quantity.unit} above"
        far = f"{farthest.combination.name}, {significant(farthest.behind, 2)} above"
    return near if nearest is farthest else f"from {near} to {far}"


def _grouped(tied: Sequence[Standing], ranked: Sequence[Standing]) -> str:
    """Names combinations; those of two choices by the first, what goes with it together."""
    best = ranked[0].combination
    if len(best.choice) != 2:
        return ", ".join(one.combination.name for one in tied)
    groups: dict[str, list[str]] = {}
    for one in tied:
        first, second = one.combination.choice
        groups.setdefault(first, []).append(second)
    parts = []
    for first, names in groups.items():
        others = [one for one in ranked[1:] if one.combination.choice[0] == first]
        if 2 < len(others) == len(names):
            every = "every other" if first == best.choice[0] else "every"
            names = [f"{every} {best.contest.choices[1]}"]
        parts.append(f"{first} with {', '.join(names)}")
    return "; ".join(parts)


def _interval(interval: tuple[float, float] | None, decimals: int | None = None) -> str:
    """Shows an interval in brackets, nothing where there is none."""
    if interval is None:
        return ""
    low, high = (significant(x, 2) if decimals is None else f"{x:.{decimals}f}" for x in interval)
    return f" (95 % interval {low} to {high})"
