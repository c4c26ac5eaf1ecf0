"""The pictures of a grammar run: learning curves, and parses before and after learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.em.lines import lines_of
from benchmarks.grammar.corpus import Corpus, spans_of
from benchmarks.grammar.inference import ExactInference, Inference
from benchmarks.grammar.judgement import parse, truth_nll
from benchmarks.grammar.lines import LINES
from benchmarks.grammar.references import trivial_scores
from benchmarks.grammar.results import GrammarResult
from benchmarks.grammar.tree_picture import draw_tree
from benchmarks.held_out.curves import DPI, plot_curves
from benchmarks.report.restore import restore
from benchmarks.report.svg import INK, PAGE_WIDTH
from benchmarks.run_folder import RunFolder
from lvms.data.parsed_sentence import Spans
from lvms.data.sentences import Sentences
from lvms.data.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from benchmarks.grammar.task import GrammarTask

PARSED_WORDS = (6, 7, 8)
"""About so many words each of the test sentences has that are parsed."""

ROW_HEIGHT = 1.9
"""Inches."""

GONE = "its checkpoint is gone"


def draw_learning_curves(task: GrammarTask, results: Sequence[GrammarResult]) -> Figure:
    """Draws the validation NLL a word and, where there are gold trees, F1 against CPU seconds.

    Thin lines are where the truth is, if it is known, and right-branching trees.
    """
    validation, truth = task.judges.validation, task.corpus.truth
    figure = Figure(figsize=(PAGE_WIDTH, 4.6), dpi=DPI, layout="constrained")
    lines = lines_of([one.method for one in results], LINES)
    has_f1 = validation.spans is not None
    by_nll, *by_f1 = figure.subplots(1, 1 + has_f1, squeeze=False)[0]
    plot_curves(by_nll, results, lines, "cpu_seconds", "nll")
    if truth is not None:
        total = truth_nll(truth, validation.words).sum()
        level = (total / validation.lengths.sum()).item()
        by_nll.axhline(level, color=INK, linewidth=0.8, label="the truth")
    by_nll.set(xlabel="CPU seconds", ylabel="validation NLL (nats a word)")
    for axes in by_f1:
        plot_curves(axes, results, lines, "cpu_seconds", "f1")
        level = trivial_scores(validation)["right-branching"].sentence_f1
        axes.axhline(level, color=INK, linewidth=0.8, linestyle="--", label="right-branching")
        axes.set(xlabel="CPU seconds", ylabel="validation F1 of a sentence (percent)")
    handles: dict[str, Any] = {}
    for axes in (by_nll, *by_f1):
        found, names = axes.get_legend_handles_labels()
        handles |= dict(zip(names, found, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    return figure


def draw_parses(task: GrammarTask, folder: RunFolder, results: Sequence[GrammarResult]) -> Figure:
    """Draws a few test sentences' gold trees, and below them what grammars make of them.

    First as grammars are at their start, then as each method leaves its best weights.
    """
    sentences = choose(task.corpus, task.judges.test)
    x, gold = sentences.words, sentences.spans
    rows: dict[str, Sequence[Spans] | None] = {} if gold is None else {"gold trees": gold}
    learned: dict[str, Sequence[Spans] | None] = {}
    for one in results:
        start = task.make_learner(one.cells[0])
        # Energies of shapes are zero there.
        name = f"{type(start.grammar).__name__}\nat its start"
        if name not in rows:
            rows[name] = _parse(task, ExactInference(start.grammar), x)
        learner = restore(task, folder, one.cells[0])
        learned[one.method] = None if learner is None else _parse(task, learner.inference(), x)
    texts = [[task.corpus.words[i] for i in row if i >= 0] for row in x.tolist()]
    return _draw_rows({**rows, **learned}, texts, gold)


def choose(corpus: Corpus, sentences: Sentences) -> Sentences:
    """Takes a few sentences that are easily looked at: of some words, all of them known."""
    penalty = torch.zeros_like(sentences.lengths)
    if UNKNOWN in corpus.words:
        unknown = sentences.words == corpus.words.index(UNKNOWN)
        penalty = sentences.words.shape[1] * unknown.sum(-1)
    chosen: list[int] = []
    for num_words in PARSED_WORDS[: len(sentences)]:
        order = ((sentences.lengths - num_words).abs() + penalty).argsort(stable=True).tolist()
        chosen.append(next(row for row in order if row not in chosen))
    return sentences.select(torch.tensor(chosen))


def _parse(task: GrammarTask, inference: Inference, x: Tensor) -> list[Spans]:
    """Parses sentences."""
    z = parse(inference, x, task.judges.parser)
    return spans_of(z, [str(label) for label in range(task.options.nonterminals)])


def _draw_rows(
    rows: Mapping[str, Sequence[Spans] | None],
    texts: Sequence[Sequence[str]],
    gold: Sequence[Spans] | None,
) -> Figure:
    """Draws a row of trees, one for each text, beside each name."""
    size = (PAGE_WIDTH, ROW_HEIGHT * len(rows))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    widths = [0.75, *(len(text) / 2.2 for text in texts)]
    grid = figure.subplots(len(rows), 1 + len(texts), squeeze=False, width_ratios=widths)
    for (title, *places), (name, trees) in zip(grid, rows.items(), strict=True):
        title.text(1.0, 0.5, name, ha="right", va="center", color=INK, fontsize=8.5)
        title.axis("off")
        for i, (axes, text) in enumerate(zip(places, texts, strict=True)):
            if trees is None:
                axes.text(0.5, 0.5, GONE, ha="center", color=INK)
                axes.axis("off")
                continue
            draw_tree(axes, text, trees[i], None if gold is None else gold[i])
    return figure
