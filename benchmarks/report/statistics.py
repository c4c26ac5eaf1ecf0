"""What a few seeds can tell: intervals, differences, and corrections for many comparisons."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
"""Of every interval; a difference is significant at 1 - LEVEL."""

RESAMPLES = 10_000

SMALLEST = 1e-12
"""Errors are compared by their logarithms, and rounding may leave one at zero or just below it."""


def bootstrap_interval(
    values: ArrayLike, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Computes a percentile bootstrap interval of the mean.

    Efron, Tibshirani: "An introduction to the bootstrap", 1993, chapter 13. Of three values it
    reaches from the least to the greatest, which covers the true mean in three of four cases only.

    Args:
        values: float `[N]`.
        level: How often it should cover the mean.
        seed: Of the resampling, which draws nothing from any other source.

    Returns:
        Its ends, or None of fewer than two values.
    """
    return _percentiles(np.asarray(values, dtype=float), lambda means: means, level, seed)


def bootstrap_geometric_interval(
    values: ArrayLike, level: float = LEVEL, seed: int = 0
) -> tuple[float, float] | None:
    """Computes a percentile bootstrap interval of a geometric mean of means over seeds.

    Args:
        values: float `[N, G]`: N seeds, resampled together, of G comparisons.
        level: How often it should cover.
        seed: As in `bootstrap_interval`.

    Returns:
        Its ends, or None of fewer than two seeds.
    """
    return _percentiles(
        np.asarray(values, dtype=float),
        lambda means: np.exp(_transform(means, logarithmic=True).mean(1)),
        level,
        seed,
    )


def _percentiles(
    sample: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], level: float, seed: int
) -> tuple[float, float] | None:
    """Resamples the first dimension and takes the percentiles of a statistic of the means."""
    if len(sample) < 2:
        return None
    rows = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(sample[rows].mean(1)), [tail, 1 - tail])
    return float(low), float(high)


def prediction_interval(
    values: ArrayLike, level: float, logarithmic: bool
) -> tuple[float, float] | None:
    """Computes where one more value from the same normal distribution lies.

    mean +- t(n - 1) s sqrt(1 + 1 / n).

    Args:
        values: float `[N]`.
        level: How often it should cover the next value.
        logarithmic: Whether the logarithms are the normal ones.

    Returns:
        Its ends, or None of fewer than two values.
    """
    sample = _transform(values, logarithmic)
    if len(sample) < 2:
        return None
    spread = sample.std(ddof=1) * (1 + 1 / len(sample)) ** 0.5
    reach = stats.t.ppf((1 + level) / 2, len(sample) - 1) * spread
    low, high = sample.mean() - reach, sample.mean() + reach
    return (float(np.exp(low)), float(np.exp(high))) if logarithmic else (float(low), float(high))


def paired_p_value(
    a: ArrayLike, b: ArrayLike, logarithmic: bool, rounding: float = 0.0
) -> float | None:
    """Tests by a paired t-test whether two methods differ.

    Args:
        a: One method's values, float `[N]`.
        b: The other's, in the same order of seeds, `[N]`.
        logarithmic: Whether to compare logarithms, as one does for errors that span decades.
        rounding: Differences no larger than this count as none.

    Returns:
        The two-sided p-value, or None of fewer than two pairs.
    """
    differences = _transform(a, logarithmic) - _transform(b, logarithmic)
    differences[np.abs(differences) <= rounding] = 0.0
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:  # no spread, no t statistic
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def unpaired_p_value(
    a: ArrayLike, b: ArrayLike, logarithmic: bool, rounding: float = 0.0
) -> float | None:
    """Tests whether two runs of the same method differ, by Welch's t-test.

    Where one run has a single value, the other's spread serves for both (Student's t-test): the
    single value is then held against the other's prediction interval.

    Args:
        a: One run's values, float `[N]`.
        b: The other's, `[M]`.
        logarithmic: Whether to compare logarithms.
        rounding: A difference of the means no larger than this counts as none.

    Returns:
        The two-sided p-value, or None if neither has two values.
    """
    one, other = _transform(a, logarithmic), _transform(b, logarithmic)
    if min(len(one), len(other)) < 1 or len(one) + len(other) < 3:
        return None
    if abs(one.mean() - other.mean()) <= rounding:
        return 1.0
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return 0.0
    pooled = min(len(one), len(other)) < 2
    return float(stats.ttest_ind(one, other, equal_var=pooled).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Corrects p-values for their number, so that one in 20 whole families errs at all.

    Holm: "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 1979.

    Args:
        p_values: One for each comparison, None for those that could not be made.

    Returns:
        The adjusted p-values in the same order, to be held against 1 - LEVEL.
    """
    made = [i for i, value in enumerate(p_values) if value is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for step, i in enumerate(sorted(made, key=lambda i: p_values[i] or 0.0)):
        least = max(least, min(1.0, (len(made) - step) * (p_values[i] or 0.0)))
        adjusted[i] = least
    return adjusted


def geometric_mean(values: ArrayLike) -> float:
    """Computes the geometric mean of errors, float `[N]`."""
    return float(np.exp(_transform(values, logarithmic=True).mean()))


def _transform(values: ArrayLike, logarithmic: bool) -> np.ndarray:
    """Takes values to the scale on which they are compared."""
    sample = np.asarray(values, dtype=float)
    return np.log(np.maximum(sample, SMALLEST)) if logarithmic else sample
