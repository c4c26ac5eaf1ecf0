"""The hierarchical-mixture task: what counts as a cost, and its pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.hierarchical_mixture import report
from benchmarks.hierarchical_mixture.report import DPI, draw_assignments, read_runs, to_png
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


def test_the_picture_of_a_default_run_is_small_and_looks_as_it_was_drawn(tmp_path, monkeypatch):
    drawn = []

    def with_all_colours_first(figure):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # each drawing would move things a little
        drawn.append(io.BytesIO())
        figure.savefig(drawn[0], format="png", dpi=DPI)
        return to_png(figure)

    monkeypatch.setattr(report, "to_png", with_all_colours_first)
    task = tiny_task(points=4000, iterations=1, initialisations=2, branching=(4, 4))
    folder = start_run(NAME, task, tmp_path / "run")
    run_task(task, folder)
    content = (folder.path / "means-and-assignments.png").read_bytes()
    assert len(content) < 300_000
    small, full = (
        np.asarray(Image.open(file).convert("RGB")).astype(int)
        for file in (io.BytesIO(content), drawn[0])
    )
    assert small.shape == full.shape
    assert full.shape[1] > 2000
    away = np.abs(small - full).max(-1)
    assert away.max() < 32  # of 255
    assert away.mean() < 3
    assert (small[full.min(-1) == 255] == 255).all()  # white is white


def test_a_checkpoint_that_is_gone_leaves_its_panel_empty(tmp_path):
    task = tiny_task(methods=("exact-em", "gflownet-em"))
    folder = start_run(NAME, task, tmp_path / "run")
    run_task(task, folder)
    (folder.path / "cells/gflownet-em/00/checkpoint.pt").unlink()
    figure = draw_assignments(task, folder, read_runs(task, folder, [0]), [0])
    texts = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert texts == [[], [], ["its checkpoint is gone"]]
