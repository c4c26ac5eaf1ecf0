"""Objectives alone and explorations alone: each over all comparisons of like with like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.posterior.contest import CONTEST
from benchmarks.report.document import Block, Paragraph, Section, Strong, Words
from benchmarks.report.numbers import listing
from benchmarks.report.ranking import Placing, placings
from benchmarks.report.ranking_tables import placings_table
from benchmarks.report.results import Combination

COMPARED = {
    "objective": "all objectives with one exploration on one task",
    "exploration": "all explorations of one objective on one task",
}
"""What one comparison is."""


def alone(found: Sequence[Combination]) -> dict[str, list[Placing]]:
    """Ranks objectives, whatever they explore by, and explorations, whatever they serve."""
    return {
        "objective": placings(
            found, lambda one: one.choice[0], lambda one: (one.task, one.choice[1])
        ),
        "exploration": placings(
            found, lambda one: one.choice[1], lambda one: (one.task, one.choice[0])
        ),
    }


def alone_at_a_glance(placed: Mapping[str, Sequence[Placing]]) -> list[Block]:
    """Says which objective and which exploration is best, where there are several."""
    words = [word for kind, of_kind in placed.items() if of_kind
             for word in _sentence(kind, of_kind)]  # fmt: skip
    return [Paragraph(*words)] if words else []


def alone_tables(placed: Mapping[str, Sequence[Placing]]) -> list[Block]:
    """Ranks objectives and explorations in tables, where there are several."""
    return [
        Section(
            f"{kind.capitalize()}s alone",
            [placings_table(kind, of_kind, COMPARED[kind], CONTEST.quantity)],
        )
        for kind, of_kind in placed.items()
        if len(of_kind) > 1
    ]


def _sentence(kind: str, placed: Sequence[Placing]) -> list[Words]:
    """Says which objective or exploration is best, like compared with like."""
    first = placed[0]
    others = [
        f"{one.name} {one.behind:.2f}"
        + ("" if one.comparisons == first.comparisons
           else f" (in {one.comparisons} of {first.comparisons} comparisons)")
        for one in placed[1:]
    ]  # fmt: skip
    return [
        f"Of {kind}s alone, like compared with like, ", Strong(first.name), " comes first with "
        f"{first.behind:.2f} times the least total variation on average; {listing(others)}. ",
    ]  # fmt: skip
