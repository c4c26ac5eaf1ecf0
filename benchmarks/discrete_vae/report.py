"""The table and the pictures that a discrete-VAE run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.discrete_vae.pictures import draw_curves, draw_reconstructions, draw_samples
from benchmarks.discrete_vae.results import DVAEResult
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.results import Standing, read_results, stand
from benchmarks.held_out.table import early_ends, show_behind, show_runs, show_score, write_table
from benchmarks.report.numbers import counted
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.discrete_vae.task import DiscreteVAETask

HEADERS = (
    "method", "test NLL", "above the best", "exact NLL", "ELBO bound", "IWAE-50 bound", "ESS",
    "perplexity", "below pixels", "runs", "updates", "CPU s",
)  # fmt: skip


DIGITS = 2
"""Of NLLs."""


def write(
    task: DiscreteVAETask, folder: RunFolder, failures: Mapping[MethodCell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md`, `learning-curves.png`, `reconstructions.png` and `samples.png`.

    Args:
        task: The task.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The table, and the files to look at.
    """
    finished = [cell for cell in task.cells if cell not in failures]
    results = read_results(DVAEResult, folder, finished)
    rows = make_rows(stand(results)) if results else []
    own_bounds = [
        f"By its own bound {result.method} has {result.mean('own_nll'):.2f}."
        for result in results
        if "own_nll" in result.details
    ]
    table = write_table(folder, HEADERS, rows, [legend(task, results), *own_bounds], failures)
    files = [folder.path / "table.md"]
    if results:
        pictures = {
            "learning-curves.png": draw_curves(results),
            "reconstructions.png": draw_reconstructions(task, folder, results),
            "samples.png": draw_samples(task, folder, results),
        }
        files += [folder.write_figure(name, figure) for name, figure in pictures.items()]
    return table, files


def make_rows(standings: Sequence[Standing[DVAEResult]]) -> list[list[str]]:
    """Compares the methods: the rows of a table below `HEADERS`."""
    rows = []
    for standing in standings:
        one = standing.result
        exact = f"{one.mean('exact_nll'):.2f}" if "exact_nll" in one.details else "-"
        rows.append(
            [
                one.method + _collapse(standing),
                show_score(standing, DIGITS),
                show_behind(standing, DIGITS),
                exact,
                f"{one.mean('negative_elbo'):.2f}",
                f"{one.mean('few_nll'):.2f}",
                f"{one.mean('effective_samples'):.3f}",
                f"{one.means['code_perplexity'].mean():.2f}",
                f"{one.mean('below_marginal'):.2f}",
                show_runs(standing, DIGITS),
                f"{one.minibatches:,}",
                f"{one.means['cpu_seconds'].mean():.1f}",
            ]
        )
    return rows


def legend(task: DiscreteVAETask, results: Sequence[DVAEResult]) -> str:
    """Explains the table of these methods."""
    options, images = task.options, counted(len(task.judges.test), "test image")
    return (
        f"Nats an image, means over {images}; every method's best weights by validation NLL. Test "
        f"NLL: by {counted(options.samples, 'importance sample')} an image from the method's own "
        "policy, with its 95 % bootstrap interval over images. Above the best: the mean difference "
        "to the method with the least NLL, image by image, and its interval; ≈ where a paired "
        "t-test with Holm's correction does not tell them apart. These intervals are about images: "
        "another seed may end elsewhere (runs: how many, and the spread of their means). Exact "
        "NLL: by a sum over all grids of codes, where these are few. ELBO and IWAE-50: the bounds "
        "by 1 and 50 samples, as NLL. ESS: effective importance samples as a share. Perplexity: "
        f"of the codes in use, at most {options.codes}. Below pixels: how far the NLL is below "
        "that of independent pixels; a method is called collapsed where that is less than 1 % of "
        "it. CPU s: of one run, without measurements." + early_ends(task, results)
    )


def _collapse(standing: Standing[DVAEResult]) -> str:
    """Marks a method some of whose runs are no better than independent pixels."""
    collapsed, runs = standing.result.collapsed, len(standing.result.cells)
    if not collapsed:
        return ""
    return " (collapsed)" if collapsed == runs else f" ({collapsed} of {runs} runs collapsed)"
