"""Intervals, tests and corrections: by hand, by brute force, and how often they are right."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.report.statistics import (
    bootstrap_interval,
    geometric_mean,
    holm,
    paired_p_value,
    prediction_interval,
    unpaired_p_value,
)


def test_a_bootstrap_of_three_reaches_from_the_least_to_the_greatest():
    # one resample in 27 is the least value three times, which is more than 2.5 %
    assert bootstrap_interval([4.0, 1.0, 2.0]) == (1.0, 4.0)


def test_a_bootstrap_agrees_with_every_resample():
    values = [0.3, 1.1, 1.7, 2.0, 5.2]
    every = [np.mean(sample) for sample in itertools.product(values, repeat=5)]
    low, high = np.quantile(every, [0.05, 0.95])
    # 10,000 resamples place the 5 % point between the true 4.3 % and 5.7 % points, 3 sigma
    bounds = np.quantile(every, [0.043, 0.057, 0.943, 0.957])
    found = bootstrap_interval(values, level=0.9)
    assert bounds[0] <= found[0] <= bounds[1]
    assert bounds[2] <= found[1] <= bounds[3]
    assert found == pytest.approx((low, high), rel=0.05)
    assert found == bootstrap_interval(values, level=0.9)  # it draws from no other source


@pytest.mark.parametrize(("size", "covered"), [(3, 0.75), (25, 0.935)])
def test_how_often_a_bootstrap_covers_the_mean(size, covered):
    generator = np.random.default_rng(0)
    trials = 600
    hits = 0
    for _ in range(trials):
        low, high = bootstrap_interval(generator.normal(size=size))
        hits += low <= 0 <= high
    # three standard errors of a share over 600 trials
    assert hits / trials == pytest.approx(
        covered, abs=3 * (covered * (1 - covered) / trials) ** 0.5
    )


def test_one_value_has_no_interval():
    assert bootstrap_interval([1.0]) is None
    assert prediction_interval([1.0], 0.95, logarithmic=False) is None
    assert paired_p_value([1.0], [2.0], logarithmic=False) is None
    assert unpaired_p_value([1.0], [2.0], logarithmic=False) is None
    assert unpaired_p_value([], [1.0, 2.0, 3.0], logarithmic=False) is None


def test_a_paired_test_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) with 2 degrees of freedom, whose
    # distribution function is 1/2 + t / (2 sqrt(2 + t^2))
    t = 2 * math.sqrt(3)
    expected = 1 - t / math.sqrt(2 + t**2)
    assert paired_p_value([2, 4, 6], [1, 2, 3], logarithmic=False) == pytest.approx(expected)
    assert paired_p_value(np.exp([2, 4, 6]), np.exp([1, 2, 3]), logarithmic=True) == pytest.approx(
        expected
    )


def test_differences_of_rounding_are_none():
    values = np.array([1.0, 2.0, 3.0])
    moved = values + np.array([1e-6, 1.1e-6, 0.9e-6])
    assert paired_p_value(moved, values, logarithmic=False) < 0.01
    assert paired_p_value(moved, values, logarithmic=False, rounding=1e-5) == 1.0
    collapsed, stored = [0.9034187, 0.9034188, 0.9034187], [0.903419, 0.903419, 0.903419]
    assert unpaired_p_value(collapsed, stored, logarithmic=True) < 0.05
    assert unpaired_p_value(collapsed, stored, logarithmic=True, rounding=1e-3) == 1.0


@pytest.mark.parametrize("test", [paired_p_value, unpaired_p_value])
def test_values_without_spread(test):
    assert test([1, 1], [1, 1], logarithmic=False) == 1.0
    assert test([2, 2], [1, 1], logarithmic=False) == 0.0
    assert test([0, 0], [0, 0], logarithmic=True) == 1.0


@pytest.mark.parametrize("test", [paired_p_value, unpaired_p_value])
def test_a_test_errs_as_often_as_it_says(test):
    generator = np.random.default_rng(1)
    trials = 2000
    draws = np.exp(generator.normal(size=(trials, 2, 4)))
    errors = np.mean([test(a, b, logarithmic=True) < 0.05 for a, b in draws])
    # Welch's is a little careful at four values; neither errs oftener than 5 %, 3 sigma
    assert 0.02 < errors < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_welch_agrees_with_scipy():
    a, b = [1.0, 2.0, 4.0], [3.0, 7.0, 8.0, 9.0]
    expected = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert unpaired_p_value(a, b, logarithmic=False) == pytest.approx(expected)


def test_a_single_value_is_held_against_the_prediction_interval():
    old = [0.8, 1.0, 1.3]
    low, high = prediction_interval(old, 0.95, logarithmic=True)
    assert low < 0.8
    assert high > 1.3
    for bound, outwards in ((low, 0.999), (high, 1.001)):
        assert unpaired_p_value([bound * outwards], old, logarithmic=True) < 0.05
        assert unpaired_p_value([bound / outwards], old, logarithmic=True) > 0.05


def test_a_prediction_interval_covers_the_next_value():
    generator = np.random.default_rng(2)
    trials = 2000
    hits = 0
    for draw in generator.normal(size=(trials, 4)):
        low, high = prediction_interval(draw[:3], 0.9, logarithmic=False)
        hits += low <= draw[3] <= high
    assert hits / trials == pytest.approx(0.9, abs=3 * (0.09 / trials) ** 0.5)


def test_holm_by_hand():
    # in order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.9, None]) == [pytest.approx(0.02), None, pytest.approx(0.9), None]
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_whole_families_right():
    generator = np.random.default_rng(3)
    trials = 2000
    wrong = np.mean([min(holm(list(generator.uniform(size=10)))) < 0.05 for _ in range(trials)])
    assert wrong == pytest.approx(0.05, abs=3 * (0.0475 / trials) ** 0.5)


def test_geometric_mean():
    assert geometric_mean([1.0, 4.0, 16.0]) == pytest.approx(4.0)
