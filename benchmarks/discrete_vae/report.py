"""The table and the pictures that a discrete-VAE run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from benchmarks.discrete_vae.pictures import draw_curves, draw_reconstructions, draw_samples
from benchmarks.discrete_vae.results import Standing, read_results, stand
from benchmarks.discrete_vae.sweep import DVAECell
from benchmarks.report.numbers import counted
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.discrete_vae.task import DiscreteVAETask

HEADERS = (
    "method", "test NLL", "above the best", "exact NLL", "ELBO bound", "IWAE-50 bound", "ESS",
    "perplexity", "below pixels", "runs", "updates", "CPU s",
)  # fmt: skip


def write(
    task: DiscreteVAETask, folder: RunFolder, failures: Mapping[DVAECell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md`, `learning-curves.png`, `reconstructions.png` and `samples.png`.

    Args:
        task: The task.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The table, and the files to look at.
    """
    results = read_results(folder, [cell for cell in task.cells if cell not in failures])
    lines = []
    if results:
        rows = make_rows(stand(results))
        lines = [tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True), "",
                 legend(task)]  # fmt: skip
        lines += [
            f"By its own bound {result.method} has {result.mean('own_nll'):.2f}."
            for result in results
            if "own_nll" in result.per_image
        ]
    if failures:
        lines += ["", "Failed:", ""]
        lines += [f"- {cell.title}: {reason}" for cell, reason in failures.items()]
    table = "\n".join(lines)
    folder.write_text("table.md", table + "\n")
    files = [folder.path / "table.md"]
    if results:
        pictures = {
            "learning-curves.png": draw_curves(results),
            "reconstructions.png": draw_reconstructions(task, folder, results),
            "samples.png": draw_samples(task, folder, results),
        }
        files += [folder.write_figure(name, figure) for name, figure in pictures.items()]
    return table, files


def make_rows(standings: Sequence[Standing]) -> list[list[str]]:
    """Compares the methods: the rows of a table below `HEADERS`."""
    rows = []
    for standing in standings:
        one = standing.result
        best = standing.behind_interval is None and standing.behind == 0
        mark = "**" if best else ""
        exact = f"{one.mean('exact_nll'):.2f}" if "exact_nll" in one.per_image else "-"
        rows.append(
            [
                one.method + _collapse(standing),
                f"{mark}{one.mean('nll'):.2f}{mark}{_between(standing.interval)}",
                "best" if best else _behind(standing),
                exact,
                f"{one.mean('negative_elbo'):.2f}",
                f"{one.mean('few_nll'):.2f}",
                f"{one.mean('effective_samples'):.3f}",
                f"{one.code_perplexity.mean():.2f}",
                f"{one.mean('below_marginal'):.2f}",
                _runs(standing),
                f"{one.minibatches:,}",
                f"{one.cpu_seconds.mean():.1f}",
            ]
        )
    return rows


def legend(task: DiscreteVAETask) -> str:
    """Explains the table."""
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
        "it. CPU s: of one run, without measurements."
    )


def _collapse(standing: Standing) -> str:
    """Marks a method some of whose runs are no better than independent pixels."""
    collapsed, runs = standing.result.collapsed, len(standing.result.cells)
    if not collapsed:
        return ""
    return " (collapsed)" if collapsed == runs else f" ({collapsed} of {runs} runs collapsed)"


def _behind(standing: Standing) -> str:
    """Shows how far a method is behind the best, and whether that may be chance."""
    mark = "≈ " if standing.tied else ""
    return f"{mark}{standing.behind:+.2f}{_between(standing.behind_interval)}"


def _between(interval: tuple[float, float] | None) -> str:
    """Shows an interval in brackets, nothing where there is none."""
    return "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"


def _runs(standing: Standing) -> str:
    """Shows how many runs there are, and how far their mean NLLs spread."""
    means = standing.result.per_image["nll"].mean(1)
    return "1" if len(means) == 1 else f"{len(means)}, ± {np.std(means, ddof=1):.2f}"
