"""The report's learning curves, against each of a contest's costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.report.contest import Quantity
from benchmarks.report.curves import Axes, Line, draw_curves
from benchmarks.report.document import Figure, Tabs
from benchmarks.report.results import Combination
from benchmarks.report.ticks import round_up
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError

SMALLEST_THRESHOLD = 1e-6
"""An axis is linear up to here at least, even if all that is drawn ends at zero."""


def learning_curves(
    task: str,
    folder: RunFolder,
    found: Sequence[Combination],
    place: Callable[[Combination], tuple[str, str]],
    labels: Sequence[str],
    reference: Combination | None = None,
) -> Tabs:
    """Draws a task's learning curves.

    The end of a curve is what matters: errors that are compared by ratios have a logarithmic axis,
    others one that is linear about where the curves end, for they may be negative there.

    Args:
        task: The task.
        folder: The run's folder.
        found: The task's combinations.
        place: In which panel a combination's line is, and under which label.
        labels: Every label of the run, so that it looks the same for every task.
        reference: The combination whose mean is drawn in every other panel too, by its own name.

    Returns:
        One picture for each cost.
    """
    contest = found[0].contest
    quantity = contest.quantity
    curves = {
        one.key: read_curves(folder, one, (contest.metric, *contest.costs.values()))
        for one in found
    }
    level = min(one.mean for one in found) if reference is None else reference.mean
    values = np.concatenate([curve[contest.metric].ravel() for curve in curves.values()])
    logarithmic, linear_to = _scale(quantity, values, level)
    y_label = f"{quantity.label}, {quantity.unit}" if quantity.unit else quantity.label
    whose_end = "the task's best combination" if reference is None else reference.name
    caption = (
        f"Mean {quantity.label} over seeds; bands reach from the least to the greatest seed. The "
        f"dotted line is where {whose_end} ends."
    )
    if linear_to is not None:
        caption += (
            f" The vertical axis is linear up to {linear_to:g} and logarithmic beyond, so that the "
            "ends can be told apart."
        )
    panels = {}
    for label, column in contest.costs.items():
        lines: dict[str, list[Line]] = {}
        for one in found:
            panel, name = place(one)
            inside = lines.setdefault(panel, [])
            if reference is not None and one is not reference:
                beside = _line(reference.name, curves[reference.key], column, contest.metric)
                inside.append(dataclasses.replace(beside, low=beside.mean, high=beside.mean))
            inside.append(_line(name, curves[one.key], column, contest.metric))
        axes = Axes(label, y_label, column != "update", logarithmic, linear_to, level)
        panels[f"against {label}"] = [
            Figure(
                f"curves-{task}-{column.replace('_', '-')}",
                draw_curves(lines, labels, axes),
                f"{task}: {quantity.label} against {label} for each "
                f"{' and '.join(contest.choices)}",
                caption,
            )
        ]
    return Tabs(panels)


def _scale(quantity: Quantity, values: np.ndarray, level: float) -> tuple[bool, float | None]:
    """Chooses whether an axis is logarithmic, and up to where it is linear then, if anywhere."""
    if quantity.logarithmic:
        return bool((values > 0).all()), None
    return True, round_up(max(-values.min(), abs(level), SMALLEST_THRESHOLD))


def _line(label: str, curve: dict[str, np.ndarray], column: str, metric: str) -> Line:
    """Makes the line of a combination, of what `read_curves` returned."""
    values = curve[metric]
    return Line(label, curve[column].mean(0), values.mean(0), values.min(0), values.max(0))


def read_curves(
    folder: RunFolder, one: Combination, columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """Reads every seed's measurements, float `[seeds, M]` for each column.

    Raises:
        UserError: If a file is damaged, or seeds have not been measured equally often.
    """
    seeds = []
    for seed in one.seeds:
        run = RunFolder(folder.path / one.cell(seed).folder)
        try:
            lines = run.read_metrics()
            seeds.append([[float(line[column]) for line in lines] for column in columns])
        except (KeyError, TypeError) as error:
            raise run.damaged("metrics.jsonl") from error
    if len({len(rows[0]) for rows in seeds}) > 1 or not seeds[0][0]:
        last = RunFolder(folder.path / one.cell(one.seeds[-1]).folder)
        raise UserError(
            f"{last.path / 'metrics.jsonl'} has not as many measurements as other seeds' have; "
            f"delete {last.path} to run that part anew."
        )
    return dict(zip(columns, np.array(seeds).transpose(1, 0, 2), strict=True))
