"""The whole report of a discrete-VAE run, for `gfnem report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.discrete_vae.pictures import draw_curves, draw_reconstructions, draw_samples
from benchmarks.discrete_vae.report import HEADERS, legend, make_rows
from benchmarks.discrete_vae.results import DVAEResult
from benchmarks.held_out.page import EARLY_STOPPING, single_runs, sortable_table, to_png
from benchmarks.held_out.results import Standing, read_results, stand
from benchmarks.report.about import about
from benchmarks.report.document import (
    Block,
    Document,
    Figure,
    Notice,
    Paragraph,
    Section,
    Strong,
)
from benchmarks.report.numbers import counted, listing
from benchmarks.report.progress import Progress, notices
from benchmarks.report.svg import style, to_svg
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.discrete_vae.task import DiscreteVAETask

CONDITIONS = {
    "start": "the same weights for every method of a seed, with each pixel as often on as in the "
    "training images",
    "early stopping": EARLY_STOPPING,
}
"""What every cell has in common and no option sets."""


def make_document(task: DiscreteVAETask, folder: RunFolder) -> Document:
    """Describes a run by its finished cells; see `Task.document`."""
    progress = Progress.of(task, folder)
    results = read_results(DVAEResult, folder, progress.finished)
    standings = stand(results)
    config = folder.read_json("config.json")
    with style():
        curves = to_svg(draw_curves(results))
    table = sortable_table(HEADERS, make_rows(standings), legend(task, results))
    sections = [
        Section("Methods", [*notices(progress), *_glance(standings), table]),
        Section(
            "Learning curves",
            [
                Figure(
                    "learning-curves",
                    curves,
                    "Validation NLL against CPU seconds and mini-batches for each method",
                    f"Importance-weighted bound by {task.options.validation_samples} samples on "
                    f"{counted(len(task.judges.validation), 'validation image')}: means over "
                    "seeds; bands reach from the least to the greatest. A model that stays at the "
                    "thin line has learned nothing but how often each pixel is on.",
                )
            ],
        ),
        Section(
            "Reconstructions",
            [
                Figure(
                    "reconstructions",
                    to_png(draw_reconstructions(task, folder, results)),
                    "Test images and their reconstructions by each method",
                    "Each pixel's probability given one grid of codes, drawn by the method's "
                    "policy for the test image above.",
                )
            ],
        ),
        Section(
            "Samples",
            [
                Figure(
                    "samples",
                    to_png(draw_samples(task, folder, results)),
                    "Test images and samples of each method's model",
                    "Each pixel's probability given grids of codes drawn from the prior.",
                )
            ],
        ),
        about(config, CONDITIONS),
    ]
    return Document("discrete-vae", progress.subtitle(folder, config), sections)


def _glance(standings: list[Standing[DVAEResult]]) -> list[Block]:
    """Says who is best, what cannot be told apart from it, and what has collapsed."""
    best = min(standings, key=lambda one: one.behind)
    result = best.result
    words: list[Any] = [
        Strong(result.method),
        f" has the least test NLL, {result.mean('nll'):.2f} nats an image, "
        f"{result.mean('below_marginal'):.2f} below independent pixels, after "
        f"{counted(result.minibatches, 'update')}.",
    ]
    tied = [one.result.method for one in standings if one.tied]
    if tied:
        words.append(f" These test images do not tell {listing(tied)} apart from it.")
    blocks: list[Block] = [Paragraph(*words)]
    collapsed = [one.result.method for one in standings if one.result.collapsed]
    if collapsed:
        text = (
            f"Of {listing(collapsed)} at least one run has collapsed: its NLL is that of "
            "independent pixels, and its codes say nothing of the image."
        )
        blocks.append(Notice(Paragraph(text)))
    return [*blocks, *single_runs(standings, "images")]
