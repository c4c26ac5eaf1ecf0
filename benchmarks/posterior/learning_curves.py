"""The report's learning curves, against updates, likelihood evaluations and CPU seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.posterior.results import METRIC, Combination
from benchmarks.posterior.sweep import PosteriorCell
from benchmarks.report.curves import Axes, Line, draw_curves
from benchmarks.report.document import Figure, Tabs
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError

AGAINST = {
    "updates": "update", "likelihood evaluations": "likelihood_evaluations",
    "CPU-seconds": "cpu_seconds",
}  # fmt: skip
"""What is spent, and what it is called in `metrics.jsonl`."""


def learning_curves(
    task: str, folder: RunFolder, found: Sequence[Combination], labels: Sequence[str]
) -> Tabs:
    """Draws a task's learning curves, a panel an objective, a line an exploration.

    Args:
        task: The task.
        folder: The run's folder.
        found: The task's combinations.
        labels: Every exploration of the run, so that it looks the same for every task.

    Returns:
        One picture for each cost.
    """
    curves = {one.key: _read(folder, one) for one in found}
    level = min(one.mean for one in found)
    positive = all((curve[METRIC] > 0).all() for curve in curves.values())
    panels = {}
    for label, column in AGAINST.items():
        lines: dict[str, list[Line]] = {}
        for one in found:
            curve = curves[one.key]
            values = curve[METRIC]
            lines.setdefault(one.objective, []).append(
                Line(one.exploration, curve[column].mean(0), values.mean(0), values.min(0),
                     values.max(0))
            )  # fmt: skip
        axes = Axes(label, "total variation", label != "updates", positive, level)
        name = f"curves-{task}-{column.replace('_', '-')}"
        panels[f"against {label}"] = [
            Figure(
                name,
                draw_curves(lines, labels, axes),
                f"{task}: total variation against {label} for each objective and exploration",
                "Mean total variation over seeds; bands reach from the least to the greatest seed. "
                "The dotted line is where the task's best combination ends.",
            )
        ]
    return Tabs(panels)


def _read(folder: RunFolder, one: Combination) -> dict[str, np.ndarray]:
    """Reads every seed's measurements, float `[seeds, M]` for each column."""
    columns = (METRIC, *AGAINST.values())
    seeds = []
    for seed in one.seeds:
        run = RunFolder(folder.path / PosteriorCell(*one.key, seed).folder)
        try:
            lines = run.read_metrics()
            seeds.append([[float(line[column]) for line in lines] for column in columns])
        except (KeyError, TypeError) as error:
            raise run.damaged("metrics.jsonl") from error
    if len({len(rows[0]) for rows in seeds}) > 1 or not seeds[0][0]:
        last = RunFolder(folder.path / PosteriorCell(*one.key, one.seeds[-1]).folder)
        raise UserError(
            f"{last.path / 'metrics.jsonl'} has not as many measurements as other seeds' have; "
            f"delete {last.path} to run that part anew."
        )
    return dict(zip(columns, np.array(seeds).transpose(1, 0, 2), strict=True))
