"""The table and the heat maps of a posterior suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from benchmarks.posterior.contest import CONTEST
from benchmarks.posterior.heat_map import draw_heat_map
from benchmarks.posterior.sweep import PosteriorCell
from benchmarks.report.about import left_out
from benchmarks.report.numbers import counted
from benchmarks.report.results import Combination, best_of, read
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.posterior.suite import PosteriorSuite

HEADERS = (
    "task", "objective", "exploration", "total variation", "standard error", "seeds", "updates",
    "likelihood evaluations", "CPU s",
)  # fmt: skip


def write(
    suite: PosteriorSuite, folder: RunFolder, failures: Mapping[PosteriorCell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md` and a `heat-map-TASK.png` for each task.

    Args:
        suite: The suite.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The table, and the files to look at.
    """
    found = read(CONTEST, folder, [cell for cell in suite.cells if cell not in failures])
    table = make_table(suite, found, failures)
    folder.write_text("table.md", table + "\n")
    updates = counted(suite.options.updates, "update")
    pictures = []
    for task in suite.options.tasks:
        figure = draw_heat_map(suite, task, found)
        figure.axes[0].set_title(f"{task}: total variation after {updates}")
        pictures.append(folder.write_figure(f"heat-map-{task}.png", figure))
    return table, [folder.path / "table.md", *pictures]


def make_table(
    suite: PosteriorSuite, found: list[Combination], failures: Mapping[PosteriorCell, str]
) -> str:
    """Compares the combinations in a Markdown table, with a legend and what is missing below."""
    rows = []
    for task in suite.options.tasks:
        best = best_of(found, task)
        for one in found:
            if one.task != task:
                continue
            error = one.standard_error(CONTEST.metric)
            mark = "**" if one is best else ""
            rows.append(
                [
                    task,
                    *one.choice,
                    f"{mark}{one.mean:.4f}{mark}",
                    "-" if error is None else f"{error:.4f}",
                    len(one.values),
                    one.updates,
                    f"{np.mean(one.likelihood_evaluations):.0f}",
                    f"{np.mean(one.cpu_seconds):.1f}",
                ]
            )
    lines = [
        tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True),
        "",
        "Total variation between the policy's q(z | x) and the exact posterior, averaged over the "
        "training observations, 0 to 1: mean and standard error over seeds after the last update. "
        "The lowest of each task is in bold type. Likelihood evaluations and CPU s: of one "
        "training, without measurements.",
    ]
    if suite.left_out:
        lines += ["", "Left out, because they do not fit together:", ""]
        lines += [f"- {line}" for line in left_out(suite.left_out)]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {cell.title}: {reason}" for cell, reason in failures.items()]
    return "\n".join(lines)
