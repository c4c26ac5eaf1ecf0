"""The pictures of a discrete-VAE run: learning curves, reconstructions, samples from the prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from algorithms.rollout import rollout
from benchmarks.discrete_vae.learner import DVAELearner
from benchmarks.discrete_vae.lines import LINES
from benchmarks.discrete_vae.results import DVAEResult
from benchmarks.em.lines import lines_of
from benchmarks.held_out.curves import DPI, plot_curves
from benchmarks.report.restore import restore
from benchmarks.report.svg import PAGE_WIDTH
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.discrete_vae.task import DiscreteVAETask

IMAGES = 16
"""So many images a row."""

GAP = 1
"""Pixels between two images."""

GONE = "its checkpoint is gone"


def draw_curves(results: Sequence[DVAEResult]) -> Figure:
    """Draws the validation bound on the NLL against CPU seconds and against mini-batches.

    Lines are means over seeds and bands reach from the least to the greatest. The first of each,
    which fall far, may begin above the picture, so that what methods end at can be told apart. A
    thin line is where independent pixels are, if that is within it.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 4.8), dpi=DPI, layout="constrained")
    by_time, by_batch = figure.subplots(1, 2, sharey=True)
    lines = lines_of([one.method for one in results], LINES)
    marginal = float((results[0].curves["nll"] + results[0].curves["below_marginal"]).mean())
    for axes, column in ((by_time, "cpu_seconds"), (by_batch, "minibatches")):
        plot_curves(axes, results, lines, column, "nll")
        axes.axhline(
            marginal, color="0.3", linewidth=0.8, label=f"independent pixels: {marginal:.1f}"
        )
    settled = np.concatenate([_without_start(one.curves["nll"]).ravel() for one in results])
    margin = 0.04 * max(1.0, float(np.ptp(settled)))
    by_time.set_ylim(settled.min() - margin, settled.max() + margin)
    by_time.set(xlabel="CPU seconds", ylabel="validation NLL, bound (nats an image)")
    by_batch.set(xlabel="mini-batches")
    figure.legend(*by_time.get_legend_handles_labels(), loc="outside right center",
                  frameon=False)  # fmt: skip
    return figure


def _without_start(values: np.ndarray) -> np.ndarray:
    """Leaves the first fifth of measurements `[S, T]` out, whose NLLs are far above the others."""
    return values[:, values.shape[1] // 5 :]


def draw_reconstructions(
    task: DiscreteVAETask, folder: RunFolder, results: Sequence[DVAEResult]
) -> Figure:
    """Draws test images, and below them what each method decodes from one posterior sample."""
    x = task.judges.test[:IMAGES]
    rows: dict[str, Tensor | None] = {"test images": x}
    for one in results:
        learner = restore(task, folder, one.cells[0])
        rows[one.method] = None if learner is None else _reconstruct(learner, x)
    return _draw_rows(rows)


def draw_samples(task: DiscreteVAETask, folder: RunFolder, results: Sequence[DVAEResult]) -> Figure:
    """Draws test images, and below them what each method decodes from samples of its prior."""
    rows: dict[str, Tensor | None] = {"test images": task.judges.test[:IMAGES]}
    for one in results:
        learner = restore(task, folder, one.cells[0])
        rows[one.method] = (
            None if learner is None
            else learner.best()[0].dreams(IMAGES, task.judges.generator())
        )  # fmt: skip
    return _draw_rows(rows)


@torch.no_grad()
def _reconstruct(learner: DVAELearner, x: Tensor) -> Tensor:
    """Encodes images once each and decodes them: each pixel's probability, `[B, C, H, W]`."""
    model, policy = learner.best()
    batch = rollout(
        model.env, policy, x, context=model.context(x), generator=learner.judges.generator()
    )
    return model.decode(batch.z).sigmoid()


def _draw_rows(rows: dict[str, Tensor | None]) -> Figure:
    """Draws a row of images `[B, 1, H, W]` under each name, black on white."""
    figure = Figure(figsize=(9, 0.75 * len(rows) + 0.2), dpi=DPI, layout="constrained")
    for axes, (name, images) in zip(
        figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True
    ):
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if images is None:
            axes.text(0.5, 0.5, GONE, ha="center", transform=axes.transAxes)
            continue
        strip = np.concatenate([np.pad(one, GAP) for one in images.mean(1).numpy()], axis=1)
        axes.imshow(strip, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    return figure
