"""The hierarchical-mixture task: what counts as a cost, and what does not."""

import pytest

from benchmarks.hierarchical_mixture.sweep import MethodCell
from benchmarks.run_folder import RunFolder
from benchmarks.runner import run_task, start_run
from tests.benchmarks.runs import NAME, TINY, tiny_task


@pytest.mark.parametrize(
    ("method", "tables"),
    [
        ("exact-em", 2 * 2),
        ("annealed-em", 2 * 2),
        ("mean-field-em", TINY["sweeps"] * (2 + 2)),
    ],
)
def test_tables_that_are_made_to_measure_are_no_cost(method, tables, tmp_path):
    task = tiny_task(methods=(method,))
    folder = start_run(NAME, task, tmp_path / "run")
    run_task(task, folder)
    summary = RunFolder(folder.path / task.cells[0].folder).read_json("summary.json")
    assert "total_variation" in summary["metrics"]
    evaluations = TINY["iterations"] * TINY["points"] * tables
    assert summary["cost"]["likelihood_evaluations"] == evaluations


def test_measuring_again_finds_and_costs_the_same():
    task = tiny_task()
    for method in task.options.methods:
        learner = task.make_learner(MethodCell(method, 0))
        learner.update(task.train_data)
        before = learner.likelihood_evaluations
        assert task.final_metrics(learner) == task.final_metrics(learner)
        assert learner.likelihood_evaluations == before > 0
