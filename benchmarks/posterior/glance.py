"""The report's first sentences: what is best on each task, by how much, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.posterior.ranking import Placing, Standing
from benchmarks.report.document import Block, Bullets, Paragraph, Strong, Words
from benchmarks.report.numbers import duration, listing, significant, times


def at_a_glance(
    ranked: Mapping[str, Sequence[Standing]], overall: Mapping[str, Sequence[Placing]]
) -> list[Block]:
    """Says who is best.

    Args:
        ranked: The standings of each task.
        overall: The placings of each kind of choice: "combination", "objective", "exploration".

    Returns:
        A sentence about all tasks, where there are several, and some about each.
    """
    blocks: list[Block] = []
    if len(ranked) > 1 and overall["combination"]:
        blocks.append(_over_all(overall["combination"]))
    blocks.append(Bullets([_of_task(task, standing) for task, standing in ranked.items()]))
    alone = [_alone(kind, overall[kind]) for kind in ("objective", "exploration") if overall[kind]]
    if alone:
        blocks.append(Paragraph(*(word for sentence in alone for word in sentence)))
    return blocks


def _over_all(placed: Sequence[Placing]) -> Paragraph:
    """Says which combination is best over all tasks."""
    first = placed[0]
    words: list[Words] = [
        "Over all tasks, ", Strong(first.name), " comes first: its total variation is on "
        f"average {first.ratio:.2f} times that of each task's best"
        f"{_interval(first.interval, 2)}.",
    ]  # fmt: skip
    if len(placed) > 1:
        second = placed[1]
        words.append(f" Next comes {second.name}, with {second.ratio:.2f} times.")
    return Paragraph(*words)


def _of_task(task: str, ranked: Sequence[Standing]) -> Paragraph:
    """Says which combination is best on a task, what it cost and what it cannot be told from."""
    best, others = ranked[0], ranked[1:]
    one = best.combination
    seeds = f"{len(one.seeds)} seed{'s' if len(one.seeds) > 1 else ''}"
    words: list[Words] = [
        Strong(task), ": ", Strong(one.name), f" comes nearest to the posterior, with a total "
        f"variation of {significant(best.mean, 2)}{_interval(best.interval)} over {seeds}, after "
        f"{one.updates:,} updates, {np.mean(one.likelihood_evaluations):,.0f} likelihood "
        f"evaluations and {duration(float(np.mean(one.cpu_seconds)))} of CPU time a training.",
    ]  # fmt: skip
    tied = [other for other in others if other.tied]
    apart = [other for other in others if other.p_value is not None and not other.tied]
    if tied and apart:
        words.append(
            f" Of the {len(others)} others, {len(tied)} cannot be told apart from it: "
            f"{_grouped(tied, ranked)}. The rest can, {_span(apart, best)}."
        )
    elif tied:
        words.append(f" None of the {len(others)} others can be told apart from it.")
    elif apart:
        words.append(f" All {len(others)} others can be told apart from it, {_span(apart, best)}.")
    elif others:
        runner_up = others[0]
        words.append(
            f" Next comes {runner_up.combination.name}, "
            f"{times(runner_up.mean / best.mean)} as far away."
        )
    return Paragraph(*words)


def _span(apart: Sequence[Standing], best: Standing) -> str:
    """Says how far away the nearest and the farthest are."""
    nearest, farthest = apart[0], apart[-1]
    near = f"{nearest.combination.name} at {times(nearest.mean / best.mean)} its total variation"
    if nearest is farthest:
        return near
    return f"from {near} to {farthest.combination.name} at {times(farthest.mean / best.mean)}"


def _alone(kind: str, placed: Sequence[Placing]) -> list[Words]:
    """Says which objective or exploration is best, like compared with like."""
    first = placed[0]
    others = [
        f"{one.name} {one.ratio:.2f}"
        + ("" if one.comparisons == first.comparisons
           else f" (in {one.comparisons} of {first.comparisons} comparisons)")
        for one in placed[1:]
    ]  # fmt: skip
    return [
        f"Of {kind}s alone, like compared with like, ", Strong(first.name), " comes first with "
        f"{first.ratio:.2f} times the least total variation on average; {listing(others)}. ",
    ]  # fmt: skip


def _grouped(tied: Sequence[Standing], ranked: Sequence[Standing]) -> str:
    """Names combinations, those of one objective together."""
    best = ranked[0].combination
    groups: dict[str, list[str]] = {}
    for one in tied:
        groups.setdefault(one.combination.objective, []).append(one.combination.exploration)
    parts = []
    for objective, names in groups.items():
        others = [one for one in ranked[1:] if one.combination.objective == objective]
        if 2 < len(others) == len(names):
            names = ["every other exploration" if objective == best.objective
                     else "every exploration"]  # fmt: skip
        parts.append(f"{objective} with {', '.join(names)}")
    return "; ".join(parts)


def _interval(interval: tuple[float, float] | None, decimals: int | None = None) -> str:
    """Shows an interval in brackets, nothing where there is none."""
    if interval is None:
        return ""
    low, high = (significant(x, 2) if decimals is None else f"{x:.{decimals}f}" for x in interval)
    return f" (95 % interval {low} to {high})"
