"""The report's drawings: likeliest structures with their exact and learned probabilities."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from algorithms.policy import Policy
from benchmarks.posterior.evaluation import Evaluation
from benchmarks.posterior.metrics import total_variation
from benchmarks.report.numbers import significant
from benchmarks.report.svg import INK, PAGE_WIDTH, SERIES, style, to_svg
from lvms.model import LatentVariableModel

OBSERVATIONS, STRUCTURES = 3, 6
"""So many observations are drawn, and the likeliest structures of each."""


def draw_posteriors(model: LatentVariableModel, policy: Policy, x: Tensor) -> str:
    """Draws exact and learned posteriors of a few observations side by side.

    Args:
        model: The model, whose structures can be enumerated.
        policy: What has learned to sample its posterior.
        x: Observations, `[B, ...]`; the first few are drawn.

    Returns:
        The picture's markup.
    """
    x = x[:OBSERVATIONS]
    evaluation = Evaluation(model, policy, x)
    variation = total_variation(evaluation)
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, 4), layout="constrained")
        figure.subfigures(1, len(x))
        for row, part in enumerate(figure.subfigs):
            _draw_observation(part, evaluation, row)
            distance = significant(variation[row].item(), 2)
            part.suptitle(f"{_show(x[row], row)}\ntotal variation {distance}", fontsize=10)
        handles, labels = figure.subfigs[0].axes[-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return to_svg(figure)


def _draw_observation(figure: FigureBase, evaluation: Evaluation, row: int) -> None:
    """Draws one observation's structures on the left and their probabilities on the right."""
    p, q = (table[row].exp() for table in (evaluation.log_p, evaluation.log_q))
    best = p.topk(min(STRUCTURES, len(p))).indices
    grid = figure.add_gridspec(len(best), 2, width_ratios=(1, 1.6))
    for place, index in enumerate(best.tolist()):
        structure = evaluation.structures[index]
        picture = evaluation.env.render(structure, evaluation.context[row], "rgb_array")
        axes = figure.add_subplot(grid[place, 0])
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()
    axes = figure.add_subplot(grid[:, 1])
    places = np.arange(len(best))
    for offset, values, label, colour, hatch in (
        (-0.19, p[best].tolist(), "exact p(z | x)", SERIES[0], ""),
        (0.19, q[best].tolist(), "learned q(z | x)", SERIES[4], "////"),
    ):
        bars = axes.barh(
            places + offset, values, height=0.36, label=label, color=colour, hatch=hatch,
            edgecolor=INK, linewidth=0.5,
        )  # fmt: skip
        axes.bar_label(bars, [significant(value, 2) for value in values], padding=2, fontsize=7.5)
    axes.set_xlim(0, 1.22 * max(p[best].max().item(), q[best].max().item()))
    axes.set_ylim(len(best) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel("probability")


def _show(x: Tensor, row: int) -> str:
    """Names an observation, by its numbers where they are few."""
    flat = x.flatten().tolist()
    if torch.equal(x, x.round()) and len(flat) <= 16 and set(flat) <= set(range(10)):
        return f"x = {''.join(str(int(value)) for value in flat)}"
    if len(flat) <= 4:
        return f"x = ({', '.join(f'{value:.2f}' for value in flat)})"
    return f"observation {row}"
