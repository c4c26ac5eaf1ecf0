"""The suite's heat maps: objectives down, explorations across."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report import heat_map
from benchmarks.report.results import Combination, best_of

if TYPE_CHECKING:
    from benchmarks.posterior.suite import PosteriorSuite


def draw_heat_map(
    suite: PosteriorSuite,
    task: str,
    found: list[Combination],
    tied: Collection[tuple[str, ...]] = (),
) -> Figure:
    """Draws the mean total variation of each objective with each exploration.

    Args:
        suite: The suite.
        task: The task.
        found: What finished; the rest stays blank.
        tied: The keys of the combinations that cannot be told apart from the best.

    Returns:
        The figure.
    """
    rows, columns = suite.options.objectives, suite.options.explorations

    def place(one: Combination) -> tuple[int, int]:
        objective, exploration = one.choice
        return rows.index(objective), columns.index(exploration)

    values = np.full((len(rows), len(columns)), np.nan)
    of_task = [one for one in found if one.task == task]
    for one in of_task:
        values[place(one)] = one.mean
    best = best_of(found, task)
    return heat_map.draw_heat_map(
        values, rows, columns, "total variation", None if best is None else place(best),
        {place(one) for one in of_task if one.key in tied},
    )  # fmt: skip
