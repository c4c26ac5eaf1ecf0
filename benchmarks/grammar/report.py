"""The tables and the pictures that a grammar run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from benchmarks.grammar.learner import RECALL, perplexity
from benchmarks.grammar.pictures import draw_learning_curves, draw_parses
from benchmarks.grammar.references import TRUTH, reference_scores
from benchmarks.grammar.results import F1Result, GrammarResult
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.results import Standing, read_results, stand
from benchmarks.held_out.table import (
    between,
    early_ends,
    show_behind,
    show_runs,
    show_score,
    write_table,
)
from benchmarks.report.numbers import counted
from benchmarks.report.statistics import bootstrap_interval
from benchmarks.run_folder import RunFolder
from lvms.grammars.parse_scores import LabelRecall, ParseScores

if TYPE_CHECKING:
    from benchmarks.grammar.task import GrammarTask

HEADERS = (
    "method", "NLL a word", "sampling error", "above the best", "above the truth", "perplexity",
    "NLL a sentence", "F1", "below the best F1", "corpus F1", "posterior KL", "runs", "updates",
    "CPU s",
)  # fmt: skip

NLL_DIGITS, F1_DIGITS = 3, 1

LABELS = 8
"""Of so many gold labels, the most frequent, the recall is shown."""

NONE = "-"


def write(
    task: GrammarTask, folder: RunFolder, failures: Mapping[MethodCell, str]
) -> tuple[str, list[Path]]:
    """Writes `table.md`, `learning-curves.png` and `parses.png`.

    Args:
        task: The task.
        folder: Its run's folder, every cell finished or among the failures.
        failures: Why each of the cells that failed did so.

    Returns:
        The tables, and the files to look at.
    """
    finished = [cell for cell in task.cells if cell not in failures]
    results = read_results(GrammarResult, folder, finished)
    if not results:
        return write_table(folder, HEADERS, [], [], failures), [folder.path / "table.md"]
    references = reference_scores(task.judges, task.corpus.truth)
    headers, rows = make_rows(task, results, references)
    notes = [legend(task, results)]
    if references:
        recalls = tabulate(
            recall_rows(results, references), recall_headers(references), tablefmt="github",
            disable_numparse=True,
        )  # fmt: skip
        notes += ["", recalls, "", recall_legend()]
    table = write_table(folder, headers, rows, notes, failures)
    pictures = {
        "learning-curves.png": draw_learning_curves(task, results),
        "parses.png": draw_parses(task, folder, results),
    }
    files = [folder.write_figure(name, figure) for name, figure in pictures.items()]
    return table, [folder.path / "table.md", *files]


def make_rows(
    task: GrammarTask, results: Sequence[GrammarResult], references: Mapping[str, ParseScores]
) -> tuple[list[str], list[list[str]]]:
    """Compares the methods, and their parses with trees that nobody learned.

    Args:
        task: The task.
        results: The methods, at least one.
        references: The scores of the other trees by their name.

    Returns:
        Those of `HEADERS` that there is anything to show below, and the rows of the table.
    """
    by_f1: list[Standing[F1Result]] | list[None] = [None] * len(results)
    if references:
        views = [F1Result(one.cells, one.details, one.means, one.curves) for one in results]
        by_f1 = stand(views)
    rows = [_row(*both) for both in zip(stand(results), by_f1, strict=True)]
    rows += [_reference_row(task, name, scores) for name, scores in references.items()]
    shown = [i for i in range(len(HEADERS)) if any(row[i] != NONE for row in rows)]
    return [HEADERS[i] for i in shown], [[row[i] for i in shown] for row in rows]


def _row(by_nll: Standing[GrammarResult], by_f1: Standing[F1Result] | None) -> list[str]:
    """Shows one method."""
    one = by_nll.result
    parses = [NONE] * 3
    if by_f1 is not None:
        parses = [_f1(by_f1), show_behind(by_f1, F1_DIGITS), f"{_mean(one, 'corpus_f1'):.1f}"]
    return [
        one.method,
        show_score(by_nll, NLL_DIGITS),
        _sampling_error(one),
        show_behind(by_nll, NLL_DIGITS),
        _above_truth(one) if "above_truth" in one.details else NONE,
        f"{_mean(one, 'perplexity'):,.1f}",
        f"{one.mean('nll'):.2f}",
        *parses,
        f"{one.mean('kl'):.2f}" if "kl" in one.details else NONE,
        show_runs(by_nll, NLL_DIGITS),
        f"{one.minibatches:,}",
        f"{_mean(one, 'cpu_seconds'):.1f}",
    ]


def _reference_row(task: GrammarTask, name: str, scores: ParseScores) -> list[str]:
    """Shows trees that nobody learned, and of the truth its NLL."""
    row = dict.fromkeys(HEADERS, NONE)
    row |= {
        "method": name,
        "F1": f"{scores.sentence_f1:.1f}",
        "corpus F1": f"{scores.corpus_f1:.1f}",
    }
    nll = task.judges.truth_nll
    if name == TRUTH and nll is not None:
        a_word = (nll.sum() / task.judges.test.lengths.sum()).item()
        row["NLL a word"] = f"{a_word:.{NLL_DIGITS}f}"
        row["perplexity"] = f"{perplexity(a_word):,.1f}"
        row["NLL a sentence"] = f"{nll.mean().item():.2f}"
    return list(row.values())


def _f1(standing: Standing[F1Result]) -> str:
    """Shows a method's mean F1 and its spread over runs; stars mark the best."""
    runs = standing.result.details["f1"].mean(1)
    mark = "**" if standing.is_best else ""
    spread = f" ± {np.std(runs, ddof=1):.{F1_DIGITS}f}" if len(runs) > 1 else ""
    return f"{mark}{runs.mean():.{F1_DIGITS}f}{mark}{spread}"


def _sampling_error(one: GrammarResult) -> str:
    """Shows the standard error of a run's NLL a word, and the ESS, where this is an estimate."""
    if "sampling_error" not in one.means:
        return NONE
    share = 100 * one.mean("effective_samples")
    return f"{_mean(one, 'sampling_error'):.1g}, ESS {share:.0f} %"


def _above_truth(one: GrammarResult) -> str:
    """Shows how far a method's NLL a word is above the truth's."""
    above = one.by_word("above_truth").mean(0)
    interval = between(bootstrap_interval(above), NLL_DIGITS)
    return f"{above.mean():+.{NLL_DIGITS}f}{interval}"


def _mean(one: GrammarResult, name: str) -> float:
    """Averages a number of whole runs."""
    return float(one.means[name].mean())


def legend(task: GrammarTask, results: Sequence[GrammarResult]) -> str:
    """Explains the table of these methods."""
    judges, options = task.judges, task.options
    words = (
        f"Means over {counted(len(judges.test), 'test sentence')} of {options.min_words} to "
        f"{options.max_words} words; every method's best weights by validation NLL. NLL a word: "
        "nats, the sum over sentences by that over their words, with its 95 % bootstrap interval; "
        "exact unless there is a sampling error, the standard error of an estimate from "
        f"{counted(options.samples, 'tree')} a sentence (ESS: the share of them that counts), of "
        "which intervals know but a part. Above the best: the difference to the method with the "
        "least, paired by sentence, and its interval; ≈ where a paired t-test with Holm's "
        "correction does not tell them apart. "
    )
    if judges.truth_nll is not None:
        words += (
            "Above the truth: likewise, to the grammar that the sentences were drawn from, given "
            "that they have no other lengths. "
        )
    if judges.test.spans is not None:
        parser = {"mbr": "most expected right spans (MBR)", "viterbi": "greatest probability"}
        words += (
            f"F1: of sentences' spans, percent, by the trees with the {parser[options.parser]}, "
            "without words and whole sentences; ± its spread over seeds. Below the best F1: "
            "points, compared as the NLL is. Corpus F1: of all sentences' spans together. "
        )
    if any("kl" in one.details for one in results):
        words += (
            "Posterior KL: the divergence of what a policy draws, given a sentence, from the "
            "posterior of its grammar, nats; of policies with several ways to build a tree an "
            "upper bound. "
        )
    return words + (
        "Intervals are about sentences: another seed may end elsewhere (runs: how many, and the "
        "spread of their NLL a word). CPU s: of one run, without measurements."
        + early_ends(task, results)
    )


# -- recall by label -------------------------------------------------------------------------------


def recall_headers(references: Mapping[str, ParseScores]) -> list[str]:
    """Names the most frequent gold labels, and how many constituents each has."""
    return ["recall of", *(f"{name} ({one.total:,})" for name, one in _labels(references).items())]


def recall_rows(
    results: Sequence[GrammarResult], references: Mapping[str, ParseScores]
) -> list[list[str]]:
    """Shows which share of each label's constituents the methods' and the other trees have."""
    labels = _labels(references)
    rows = [
        [one.method, *(f"{_mean(one, RECALL + label):.1f}" for label in labels)] for one in results
    ]
    return rows + [
        [name, *(f"{scores.labels[label].recall:.1f}" for label in labels)]
        for name, scores in references.items()
    ]


def recall_legend() -> str:
    """Explains the table of recalls."""
    return (
        "Which share of the gold constituents with each label, the most frequent first, is in the "
        "trees that F1 is of, percent, means over seeds; in brackets how many there are in the "
        "test sentences, whole sentences and words left out."
    )


def _labels(references: Mapping[str, ParseScores]) -> dict[str, LabelRecall]:
    """Finds the most frequent gold labels, which are the same whatever trees are scored."""
    labels = next(iter(references.values())).labels
    return dict(list(labels.items())[:LABELS])
