"""The whole report of a grammar run, for `gfnem report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.grammar.pictures import draw_learning_curves, draw_parses
from benchmarks.grammar.references import reference_scores
from benchmarks.grammar.report import (
    legend,
    make_rows,
    recall_headers,
    recall_legend,
    recall_rows,
)
from benchmarks.grammar.results import F1Result, GrammarResult
from benchmarks.held_out.page import EARLY_STOPPING, single_runs, sortable_table
from benchmarks.held_out.results import Standing, read_results, stand
from benchmarks.report.about import about
from benchmarks.report.document import Block, Document, Figure, Paragraph, Section, Strong
from benchmarks.report.numbers import counted, listing
from benchmarks.report.progress import Progress, notices
from benchmarks.report.svg import style, to_svg
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.grammar.task import GrammarTask

CONDITIONS = {
    "start": "the same weights for every method of a seed and kind of grammar",
    "early stopping": f"{EARLY_STOPPING}; F1, which takes gold trees, chooses nothing",
}
"""What every cell has in common and no option sets."""


def make_document(task: GrammarTask, folder: RunFolder) -> Document:
    """Describes a run by its finished cells; see `Task.document`."""
    progress = Progress.of(task, folder)
    results = read_results(GrammarResult, folder, progress.finished)
    references = reference_scores(task.judges, task.corpus.truth)
    headers, rows = make_rows(task, results, references)
    config = folder.read_json("config.json")
    with style():
        curves, parses = draw_learning_curves(task, results), draw_parses(task, folder, results)
        pictures = to_svg(curves), to_svg(parses)
    sentences = counted(len(task.judges.validation), "validation sentence")
    sections = [
        Section(
            "Methods",
            [
                *notices(progress),
                *_glance(results),
                sortable_table(headers, rows, legend(task, results)),
            ],
        ),
        Section(
            "Learning curves",
            [
                Figure(
                    "learning-curves",
                    pictures[0],
                    "Validation NLL a word, and F1 if there are gold trees, against CPU seconds",
                    f"Of {sentences}: means over seeds; bands reach from the least to the "
                    "greatest.",
                )
            ],
        ),
        Section(
            "Parses",
            [
                Figure(
                    "parses",
                    pictures[1],
                    "Test sentences' gold trees, and their parses before and after learning",
                    "Dashed, orange: constituents that the gold tree does not have. Numbers are "
                    "nonterminals, which have no names.",
                )
            ],
        ),
    ]
    if references:
        recalls = sortable_table(
            recall_headers(references), recall_rows(results, references), recall_legend()
        )
        sections.insert(2, Section("Recall by label", [recalls]))
    return Document(
        "grammar", progress.subtitle(folder, config), [*sections, about(config, CONDITIONS)]
    )


def _glance(results: list[GrammarResult]) -> list[Block]:
    """Says who is best by NLL and by F1, and what cannot be told apart from it."""
    standings = stand(results)
    best = _best(standings)
    words: list[Any] = [
        Strong(best.method),
        f" has the least test NLL, {best.scores.mean():.3f} nats a word, after "
        f"{counted(best.minibatches, 'update')}.{_tied(standings)}",
    ]
    if "f1" in best.details:
        views = [F1Result(one.cells, one.details, one.means, one.curves) for one in results]
        by_f1 = stand(views)
        highest = _best(by_f1)
        words += [
            " ", Strong(highest.method),
            f" has the highest F1, {highest.mean('f1'):.1f}.{_tied(by_f1)}",
        ]  # fmt: skip
    return [Paragraph(*words), *single_runs(standings, "sentences")]


def _best(standings: list[Standing[Any]]) -> Any:
    """Finds the best method's result."""
    return min(standings, key=lambda one: one.behind).result


def _tied(standings: list[Standing[Any]]) -> str:
    """Names what cannot be told apart from the best."""
    tied = [one.result.method for one in standings if one.tied]
    return f" These test sentences do not tell {listing(tied)} apart from it." if tied else ""
