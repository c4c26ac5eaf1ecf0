"""The whole report of a hierarchical-mixture run, for `gfnem report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.hierarchical_mixture.report import (
    HEADERS,
    draw_assignments,
    draw_curves,
    legend,
    make_rows,
    read_runs,
    to_png,
)
from benchmarks.report.about import about
from benchmarks.report.document import Block, Document, Entry, Figure, Section, Table
from benchmarks.report.progress import Progress, notices
from benchmarks.report.svg import style, to_svg
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError

if TYPE_CHECKING:
    from benchmarks.hierarchical_mixture.task import HierarchicalMixture


def make_document(task: HierarchicalMixture, folder: RunFolder) -> Document:
    """Describes a run by the initialisations that every method has finished."""
    progress = Progress.of(task, folder)
    finished = set(progress.finished)
    starts = [
        start
        for start in range(task.options.initialisations)
        if all(cell in finished for cell in task.cells if cell.initialisation == start)
    ]
    if not starts:
        raise UserError(
            f"No initialisation in {folder.path} is finished by every method yet; let the run go "
            "on, with --resume if it was stopped."
        )
    runs = read_runs(task, folder, starts)
    rows = [[_entry(text) for text in row] for row in make_rows(task, runs)]
    blocks: list[Block] = notices(progress)
    blocks.append(Table(HEADERS, rows, legend(task, len(starts))))
    with style():
        curves = to_svg(draw_curves(task, runs))
    # Thousands of points: as SVG they would be many megabytes.
    assignments = to_png(draw_assignments(task, folder, runs, starts))
    config = folder.read_json("config.json")
    sections = [
        Section("Methods", blocks),
        Section(
            "Learning curves",
            [
                Figure(
                    "learning-curves",
                    curves,
                    "Test log-likelihood against EM iterations and CPU seconds",
                    "Test log-likelihood: medians over initialisations, with their range.",
                )
            ],
        ),
        Section(
            "Learned means and assignments",
            [
                Figure(
                    "means-and-assignments",
                    assignments,
                    "Data, learned means and posterior assignments of each method",
                    "Crosses are the super-components' means and circles their components'; "
                    "colour and shade say to which a point is assigned. The second row is the "
                    "initialisation on which the methods differ most.",
                )
            ],
        ),
        about(config),
    ]
    return Document("hierarchical-mixture", progress.subtitle(folder, config), sections)


def _entry(text: str) -> Entry:
    """Sorts by the number that a text begins with, if it does."""
    try:
        return Entry(text, float(text.split()[0]))
    except ValueError:
        return Entry(text)
