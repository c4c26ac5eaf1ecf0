"""What a discrete-VAE run found, and how the methods compare image by image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.discrete_vae.judgement import PER_IMAGE, is_collapsed
from benchmarks.discrete_vae.sweep import DVAECell
from benchmarks.report.statistics import LEVEL, bootstrap_interval, holm, paired_p_value
from benchmarks.run_folder import RunFolder


@dataclass(frozen=True)
class MethodResult:
    """All finished runs of one method.

    Attributes:
        cells: The runs, at least one.
        per_image: Each quantity of `judgement.judge`, float `[runs, T]`.
        code_perplexity: Of each run.
        sampling_error: Of each run, the share of importance sampling in the error of its mean NLL.
        minibatches: Of each run.
        cpu_seconds: Of each run, without measurements.
        curves: Each measurement of validation images, float `[runs, M]` for each column.
    """

    cells: Sequence[DVAECell]
    per_image: Mapping[str, np.ndarray]
    code_perplexity: np.ndarray
    sampling_error: np.ndarray
    minibatches: int
    cpu_seconds: np.ndarray
    curves: Mapping[str, np.ndarray]

    @property
    def method(self) -> str:
        """Whose runs they are."""
        return self.cells[0].method

    @property
    def nll(self) -> np.ndarray:
        """The NLL of each test image, averaged over runs, float `[T]`, nats."""
        return self.per_image["nll"].mean(0)

    def mean(self, name: str) -> float:
        """Averages a quantity over runs and images."""
        return float(self.per_image[name].mean())

    @property
    def collapsed(self) -> int:
        """How many of the runs are no better than independent pixels."""
        below, marginal = (
            self.per_image[name].mean(1) for name in ("below_marginal", "marginal_nll")
        )
        return sum(map(is_collapsed, below, marginal))


@dataclass(frozen=True)
class Standing:
    """One method beside the best.

    Attributes:
        result: What it found.
        interval: Of its mean NLL, over test images; None of a single image.
        behind: By how much its NLL is above the best method's, nats an image; 0 of the best.
        behind_interval: Of that, from the differences of each image; None of the best.
        tied: Whether its NLL cannot be told apart from the best method's.
    """

    result: MethodResult
    interval: tuple[float, float] | None
    behind: float
    behind_interval: tuple[float, float] | None
    tied: bool


def read_results(folder: RunFolder, cells: Iterable[DVAECell]) -> list[MethodResult]:
    """Reads finished cells, the runs of a method together, in the order of the cells.

    Raises:
        UserError: If a file is damaged.
    """
    groups: dict[str, list[DVAECell]] = {}
    for cell in cells:
        groups.setdefault(cell.method, []).append(cell)
    return [_read_method(folder, group) for group in groups.values()]


def stand(results: Sequence[MethodResult]) -> list[Standing]:
    """Compares methods with the best, paired by image.

    The p-values of t-tests on the images' differences are corrected by Holm's method.

    Args:
        results: The methods, at least one.

    Returns:
        A standing of each, in their order.
    """
    best = min(results, key=lambda one: one.nll.mean())
    p_values = holm(
        [
            None if one is best else paired_p_value(one.nll, best.nll, logarithmic=False)
            for one in results
        ]
    )
    return [
        Standing(
            one,
            bootstrap_interval(one.nll),
            float((one.nll - best.nll).mean()),
            None if one is best else bootstrap_interval(one.nll - best.nll),
            one is not best and p_value is not None and p_value > 1 - LEVEL,
        )
        for one, p_value in zip(results, p_values, strict=True)
    ]


COLUMNS = ("minibatches", "cpu_seconds", "nll", "below_marginal")
"""What learning curves are drawn from."""


def _read_method(folder: RunFolder, cells: Sequence[DVAECell]) -> MethodResult:
    """Reads the finished runs of one method."""
    runs = [_read_run(RunFolder(folder.path / cell.folder)) for cell in cells]
    means, per_image, curves = (
        {name: np.stack([run[part][name] for run in runs]) for name in runs[0][part]}
        for part in range(3)
    )
    return MethodResult(
        cells,
        per_image,
        means["code_perplexity"],
        means["sampling_error"],
        int(curves["minibatches"][0, -1]),
        means["cpu_seconds"],
        curves,
    )


def _read_run(run: RunFolder) -> tuple[dict[str, np.ndarray], ...]:
    """Reads a finished run's numbers: of the whole run, of each image, of each measurement.

    Raises:
        UserError: If a file is damaged.
    """
    summary, per_image = run.read_json("summary.json"), run.read_json(PER_IMAGE)
    lines = run.read_metrics()
    try:
        name = "summary.json"
        metrics = summary["metrics"]
        means = {
            key: np.array(metrics[key]["mean"]) for key in ("code_perplexity", "sampling_error")
        }
        means["cpu_seconds"] = np.array(summary["cost"]["cpu_seconds"])
        name = PER_IMAGE
        images = {key: np.array(values, dtype=float) for key, values in per_image.items()}
        if any(values.shape != (metrics["nll"]["n"],) for values in images.values()):
            raise ValueError("another number of images")
        name = "metrics.jsonl"
        curves = {key: np.array([float(line[key]) for line in lines]) for key in COLUMNS}
        if not lines:
            raise ValueError("no measurements")
    except (KeyError, TypeError, ValueError) as error:
        raise run.damaged(name) from error
    return means, images, curves
