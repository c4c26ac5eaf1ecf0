"""The table and the pictures of a hierarchical-mixture run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tabulate import tabulate

from benchmarks.em.lines import LINES
from benchmarks.hierarchical_mixture.sweep import MethodCell
from benchmarks.report.numbers import counted
from benchmarks.report.restore import restore
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.hierarchical_mixture.task import HierarchicalMixture

POOR_OPTIMUM_GAP = 0.05
"""A run this far below the best of all runs, nats a point, is in a poor local optimum."""

CLOSE_TO_EXACT = 1e-3
"""A run within this of exact EM from the same start has caught up with it, nats a point."""

DPI = 110
"""Of every picture."""

HEADERS = ("method", "test log-likelihood", "best", "poor optima", "total variation", "CPU s",
           "CPU s to exact EM", "p(x, z) evaluations")  # fmt: skip


@dataclass(frozen=True)
class MethodRuns:
    """Every run of one method, one entry for each initialisation.

    Attributes:
        summaries: What each run's `summary.json` holds.
        log_likelihood: float `[I, iterations]`, on test points, nats a point.
        cpu_seconds: float `[I, iterations]`, spent up to each iteration's end.
    """

    summaries: list[dict[str, Any]]
    log_likelihood: np.ndarray
    cpu_seconds: np.ndarray

    @classmethod
    def read(cls, folder: RunFolder, cells: list[MethodCell]) -> MethodRuns:
        """Reads the cells' folders."""
        opened = [RunFolder(folder.path / cell.folder) for cell in cells]
        curves = [run.read_metrics() for run in opened]
        return cls(
            [run.read_json("summary.json") for run in opened],
            np.array([[line["log_likelihood"] for line in curve] for curve in curves]),
            np.array([[line["cpu_seconds"] for line in curve] for curve in curves]),
        )

    def metric(self, name: str) -> list[float]:
        """Returns a final metric's mean of each run; empty where the method has none."""
        found = [summary["metrics"].get(name) for summary in self.summaries]
        return [metric["mean"] for metric in found if metric is not None]


def write(task: HierarchicalMixture, folder: RunFolder) -> tuple[str, list[Path]]:
    """Writes `table.md`, `means-and-assignments.png` and `learning-curves.png`.

    Args:
        task: The task.
        folder: Its run's folder, every cell finished.

    Returns:
        The table, and the files to look at.
    """
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False,
                                "axes.spines.right": False, "figure.dpi": DPI})  # fmt: skip
    starts = range(task.options.initialisations)
    runs = read_runs(task, folder, starts)
    rows = make_rows(task, runs)
    table = tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)
    table = f"{table}\n\n{legend(task, len(starts))}"
    folder.write_text("table.md", table + "\n")
    assignments = "means-and-assignments.png"
    folder.write_bytes(assignments, to_png(draw_assignments(task, folder, runs, starts)))
    curves = folder.write_figure("learning-curves.png", draw_curves(task, runs))
    return table, [folder.path / "table.md", folder.path / assignments, curves]


def read_runs(
    task: HierarchicalMixture, folder: RunFolder, starts: Sequence[int]
) -> dict[str, MethodRuns]:
    """Reads every method's runs from some initialisations, all of them finished."""
    return {
        method: MethodRuns.read(folder, [MethodCell(method, start) for start in starts])
        for method in task.options.methods
    }


def make_rows(task: HierarchicalMixture, runs: dict[str, MethodRuns]) -> list[list[str]]:
    """Compares the methods: the rows of a table below `HEADERS`."""
    final = {method: run.log_likelihood[:, -1] for method, run in runs.items()}
    truth = task.true_log_likelihood()
    best = max([values.max() for values in final.values()] + ([truth] if truth else []))
    exact = final.get("exact-em")
    rows = []
    for method, run in runs.items():
        seconds = run.cpu_seconds[:, -1]
        variation = run.metric("total_variation")
        rows.append(
            [
                method,
                f"{final[method].mean():.4f} ± {final[method].std():.4f}",
                f"{final[method].max():.4f}",
                f"{(final[method] < best - POOR_OPTIMUM_GAP).sum()} of {len(seconds)}",
                f"{np.mean(variation):.4f}" if variation else "-",
                f"{seconds.mean():.2f}",
                "-" if exact is None else _catch_up(run, exact),
                f"{np.mean([s['cost']['likelihood_evaluations'] for s in run.summaries]):.3g}",
            ]
        )
    if truth is not None:
        rows.append(["true parameters", f"{truth:.4f}", f"{truth:.4f}", *["-"] * 5])
    return rows


def legend(task: HierarchicalMixture, starts: int) -> str:
    """Explains the table of runs from so many initialisations."""
    return (
        f"Log-likelihood in nats a point, mean ± spread over {counted(starts, 'initialisation')} "
        f"after {counted(task.options.iterations, 'EM iteration')}. Poor optima: runs more than "
        f"{POOR_OPTIMUM_GAP} nats below the best. Total variation: between the E-step's "
        "distribution and the exact posterior at the final parameters, averaged over test points. "
        f"CPU s to exact EM: median (and largest) time until a run is within {CLOSE_TO_EXACT:g} of "
        "where exact EM ends from the same start."
    )


def _catch_up(run: MethodRuns, exact: np.ndarray) -> str:
    """Says when runs come within `CLOSE_TO_EXACT` of exact EM from the same start."""
    caught = run.log_likelihood >= exact[:, None] - CLOSE_TO_EXACT
    times = [s[c.argmax()] for s, c in zip(run.cpu_seconds, caught, strict=True) if c.any()]
    if not times:
        return "never"
    text = f"{np.median(times):.2f} ({max(times):.2f})"
    return text if len(times) == len(exact) else f"{text}; {len(times)} of {len(exact)}"


def draw_assignments(
    task: HierarchicalMixture,
    folder: RunFolder,
    runs: dict[str, MethodRuns],
    starts: Sequence[int],
) -> Figure:
    """Draws data, learned means and posterior assignments for each method (paper, figure 2).

    The first row shows the first initialisation; a second one, where there are more, shows the
    initialisation on which the methods differ most.

    Args:
        task: The task.
        folder: Its run's folder.
        runs: Every method's runs.
        starts: The initialisations that they are from.
    """
    finals = np.stack([run.log_likelihood[:, -1] for run in runs.values()])
    differ = int(np.ptp(finals, axis=0).argmax())
    shown = [0] if differ == 0 else [0, differ]
    methods = list(runs)
    figure = Figure(figsize=(3.2 * (len(methods) + 1), 3.5 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(methods) + 1, squeeze=False, sharex=True, sharey=True)
    for row, place in zip(axes, shown, strict=True):
        start = starts[place]
        points = task.train_data
        initial = task.make_model(start).means.detach()
        row[0].scatter(*points.T, s=3, color="0.7", linewidths=0)
        row[0].scatter(*initial.T, s=70, marker="x", color="black", linewidths=2)
        row[0].set_title(f"initialisation {start}: data and start")
        for panel, method in zip(row[1:], methods, strict=True):
            _draw_method(panel, task, folder, MethodCell(method, start))
            panel.set_title(f"{method}\n{runs[method].log_likelihood[place, -1]:.4f} nats a point")
        for panel in row:
            panel.set_aspect("equal")
    return figure


def to_png(figure: Figure) -> bytes:
    """Makes a PNG file of 256 colours: of thousands of points a quarter as large as with all."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI)
    picture = Image.open(full).convert("RGB")
    # Of PIL's methods the one that keeps white white and moves no colour far.
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True, dpi=(DPI, DPI))
    return small.getvalue()


def _draw_method(
    panel: Any, task: HierarchicalMixture, folder: RunFolder, cell: MethodCell
) -> None:
    """Draws one method's final means and its assignment of test points."""
    learner = restore(task, folder, cell)
    if learner is None:
        panel.text(0.5, 0.5, "its checkpoint is gone", ha="center", transform=panel.transAxes)
        return
    model, points = learner.model, task.train_data
    samples = learner.e_step.posterior(points, 1)
    assigned = samples.z[torch.arange(len(points)), samples.log_w.argmax(-1)]
    means = model.means.detach()
    z = model.env.enumerate(model.context(points)[0])
    leaves = means[z[:, 0]] + model.offset(z)
    # Colour tells the super-component, light and dark its component.
    colours = matplotlib.colormaps["tab10"](assigned[:, 0].numpy() % 10)[:, :3]
    lighter = 0.5 * (assigned[:, 1:].sum(-1, keepdim=True) % 2).numpy()
    panel.scatter(*points.T, s=3, c=colours + (1 - colours) * lighter, linewidths=0)
    panel.scatter(*leaves.T, s=14, marker="o", facecolors="none", edgecolors="black")
    panel.scatter(*means.T, s=70, marker="X", color="black", edgecolors="white")


def draw_curves(task: HierarchicalMixture, runs: dict[str, MethodRuns]) -> Figure:
    """Draws test log-likelihood against EM iterations and against CPU seconds.

    Lines are medians over initialisations, bands their range.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    for method, run in runs.items():
        colour, style = LINES[method][:2]
        middle = np.median(run.log_likelihood, axis=0)
        steps = np.arange(1, len(middle) + 1)
        band = {"color": colour, "alpha": 0.15, "linewidth": 0}
        low, high = run.log_likelihood.min(0), run.log_likelihood.max(0)
        by_iteration.plot(steps, middle, linestyle=style, color=colour, label=method)
        by_iteration.fill_between(steps, low, high, **band)
        by_time.plot(np.median(run.cpu_seconds, axis=0), middle, linestyle=style, color=colour)
    truth = task.true_log_likelihood()
    if truth is not None:
        by_iteration.axhline(truth, color="0.3", linewidth=0.8, label="true parameters")
        by_time.axhline(truth, color="0.3", linewidth=0.8)
    by_iteration.set(xlabel="EM iteration", ylabel="test log-likelihood (nats a point)")
    by_time.set(xlabel="CPU seconds", xscale="log")
    by_iteration.legend(frameon=False)
    return figure
