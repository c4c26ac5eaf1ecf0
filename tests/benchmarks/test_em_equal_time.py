"""Gaps at equal CPU time, from measurements written by hand."""

import json

import numpy as np
import pytest

from benchmarks.em.contest import CONTEST
from benchmarks.em.equal_time import EqualTime
from benchmarks.report.results import Combination
from benchmarks.run_folder import RunFolder


def combination(path, method, *seeds):
    """A method's runs, each of (CPU seconds, gap) pairs, as the runner writes them."""
    for seed, lines in enumerate(seeds):
        cell = path / f"cells/task/{method}/{seed:02d}"
        cell.mkdir(parents=True)
        records = [
            {"update": i, "cpu_seconds": seconds, "gap": gap}
            for i, (seconds, gap) in enumerate(lines)
        ]
        (cell / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    zeros = (0.0,) * len(seeds)
    return Combination(CONTEST, "task", (method,), tuple(range(len(seeds))), {"gap": zeros}, 3,
                       zeros, zeros)  # fmt: skip


@pytest.fixture
def equal(tmp_path):
    runs = [
        combination(tmp_path, "quick", [(1, 4.0), (4, 1.0)], [(1, 6.0), (5, 2.0)]),
        combination(tmp_path, "slow", [(3, 2.0), (9, 0.2)], [(2, 2.0), (10, 0.4)]),
    ]
    return EqualTime.of(RunFolder(tmp_path), runs)


def test_gaps_are_interpolated_until_the_quickest_run_is_done(equal):
    assert equal.seconds == (1.0, 2.0, 4.0)
    np.testing.assert_allclose(equal.gaps["quick"], [[4.0, 6.0], [3.0, 5.0], [1.0, 3.0]])
    slow = [[np.nan, np.nan], [np.nan, 2.0], [2.0 - 1.8 / 6, 2.0 - 1.6 / 4]]
    np.testing.assert_allclose(equal.gaps["slow"], slow)


def test_what_was_not_measured_by_then_is_a_dash_and_never_the_best(equal):
    quick, slow = equal.of_method("quick"), equal.of_method("slow")
    assert [str(gap) for gap in quick] == ["5.0000 ± 1.0000", "4.0000 ± 1.0000", "2.0000 ± 1.0000"]
    assert [str(gap) for gap in slow] == ["-", "-", "1.6500 ± 0.0500"]
    assert [gap.best for gap in quick] == [True, True, False]
    assert [gap.best for gap in slow] == [False, False, True]
    assert equal.headers == ["after 1 CPU s", "after 2 CPU s", "after 4 CPU s"]


def test_one_seed_has_no_error(tmp_path):
    runs = [combination(tmp_path, "a", [(1, 2.0), (2, 1.0)])]
    assert [str(gap) for gap in EqualTime.of(RunFolder(tmp_path), runs).of_method("a")][-1] == (
        "1.0000"
    )
