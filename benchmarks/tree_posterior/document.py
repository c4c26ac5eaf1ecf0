"""The whole report of a tree posterior suite, for `gfnem report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.report.against import against as compare_with
from benchmarks.report.comparison import Comparison, about_suite, how_to_read
from benchmarks.report.document import Document, Section
from benchmarks.report.learning_curves import learning_curves
from benchmarks.report.ranking_tables import metrics_table
from benchmarks.report.reference import Reference
from benchmarks.run_folder import RunFolder
from benchmarks.tree_posterior.contest import CONTEST
from benchmarks.tree_posterior.problem import (
    HELD_OUT,
    MAX_WORDS,
    MIN_WORDS,
    NONTERMINALS,
    PRETERMINALS,
    TRAINING,
    VOCABULARY,
)
from benchmarks.tree_posterior.training import EPSILON, TREES

if TYPE_CHECKING:
    from benchmarks.tree_posterior.suite import TreePosteriorSuite

CONDITIONS = {
    "grammars": f"{NONTERMINALS} nonterminals, {PRETERMINALS} preterminals, {VOCABULARY} words",
    "sentences": f"{TRAINING} to train on and {HELD_OUT} to measure on, of {MIN_WORDS} to "
    f"{MAX_WORDS} words, as many of each length",
    "trees": f"{TREES} for each sentence of an update, or as many dreams",
    "share of actions drawn uniformly": f"{EPSILON}",
}
"""What every cell has in common and no option sets."""


def make_document(
    suite: TreePosteriorSuite, folder: RunFolder, reference: Reference | None
) -> Document:
    """Describes a run, finished or not; see `Task.document`."""
    comparison = Comparison.of(CONTEST, suite, folder)
    config, seeds = folder.read_json("config.json"), suite.options.seeds
    objectives = list(dict.fromkeys(objective for _, _, objective in suite.options.combinations))
    sections = [Section("At a glance", comparison.glance(seeds))]
    if reference is not None:
        sections.append(compare_with(comparison.found, config, reference))
    sections += [
        Section(
            "Rankings",
            comparison.rankings(
                "KL(q‖p) of the policy q from the exact posterior p, nats a held-out sentence, "
                "after the last update. Costs are of one training, without measurements."
            ),
        ),
        Section(
            "Learning curves",
            comparison.by_task(
                lambda task: [
                    learning_curves(
                        task,
                        folder,
                        comparison.on(task),
                        lambda one: (one.choice[0], one.choice[1]),
                        objectives,
                    )
                ]
            ),
        ),
        Section(
            "Every metric",
            comparison.by_task(lambda task: [metrics_table(comparison.on(task), "KL in nats.")]),
        ),
        how_to_read(
            CONTEST,
            seeds,
            "A seed changes the policy's first parameters and every random choice of its training; "
            "the grammar and the sentences stay the same.",
            "on the metrics as they are.",
        ),
        about_suite(folder, CONDITIONS, suite.left_out),
    ]
    return Document("Tree posterior suite", comparison.progress.subtitle(folder, config), sections)
