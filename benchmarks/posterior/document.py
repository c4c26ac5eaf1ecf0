"""The whole report of a posterior suite, for `gfnem report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.posterior.alone import alone, alone_at_a_glance, alone_tables
from benchmarks.posterior.contest import CONTEST
from benchmarks.posterior.drawings import draw_posteriors
from benchmarks.posterior.heat_map import draw_heat_map
from benchmarks.posterior.training import FAST_SHARE, NUM_X, SAMPLES_PER_X
from benchmarks.report.against import against as compare_with
from benchmarks.report.comparison import Comparison, about_suite, how_to_read
from benchmarks.report.document import Block, Document, Figure, Paragraph, Section
from benchmarks.report.learning_curves import learning_curves
from benchmarks.report.numbers import counted
from benchmarks.report.ranking_tables import metrics_table
from benchmarks.report.reference import Reference
from benchmarks.report.restore import restore
from benchmarks.report.svg import style, to_svg
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.posterior.suite import PosteriorSuite

CONDITIONS = {
    "observations of each task": str(NUM_X),
    "trajectories for each observation of an update": str(SAMPLES_PER_X),
    "policy": "perceptron, two hidden layers of 128; of grammars the chart policy",
    "optimiser": f"Adam; its rate falls to a tenth after {FAST_SHARE:.0%} of the updates",
}
"""What every cell has in common and no option sets."""


def make_document(
    suite: PosteriorSuite, folder: RunFolder, reference: Reference | None
) -> Document:
    """Describes a run, finished or not; see `Task.document`."""
    comparison = Comparison.of(CONTEST, suite, folder)
    parts = alone(comparison.found)
    config, seeds = folder.read_json("config.json"), suite.options.seeds
    glance = [*comparison.glance(seeds), *alone_at_a_glance(parts)]
    sections = [Section("At a glance", glance)]
    if reference is not None:
        sections.append(compare_with(comparison.found, config, reference))
    rankings = [
        *comparison.rankings(
            "Total variation between q(z | x) and the exact posterior, 0 to 1, averaged over the "
            "observations, after the last update. Costs are of one training, without measurements."
        ),
        *alone_tables(parts),
    ]
    sections += [
        Section("Objectives and explorations", _heat_maps(suite, comparison)),
        Section("Rankings", rankings),
        Section(
            "Learning curves",
            comparison.by_task(
                lambda task: [
                    learning_curves(
                        task,
                        folder,
                        comparison.on(task),
                        lambda one: (one.choice[0], one.choice[1]),
                        suite.options.explorations,
                    )
                ]
            ),
        ),
        Section(
            "Posteriors, exact and learned",
            comparison.by_task(lambda task: _drawing(suite, comparison, task)),
        ),
        Section(
            "Every metric",
            comparison.by_task(
                lambda task: [
                    metrics_table(comparison.on(task), "KL, ELBO, IWAE and EUBO in nats.")
                ]
            ),
        ),
        how_to_read(
            CONTEST,
            seeds,
            "A seed changes the policy's first parameters and every random choice of its training; "
            "the model and the observations stay the same.",
            "on the logarithms of errors (total variation, divergences) and on bounds, sample "
            "sizes and coverages as they are.",
        ),
        about_suite(folder, CONDITIONS, suite.left_out),
    ]
    return Document("Posterior suite", comparison.progress.subtitle(folder, config), sections)


def _heat_maps(suite: PosteriorSuite, comparison: Comparison) -> list[Block]:
    """Draws a heat map of each task."""
    text = (
        f"Mean total variation after {counted(suite.options.updates, 'update')}; dark is near the "
        "posterior. The best of each task has a frame, and ≈ marks what cannot be told apart from "
        "it. A dash is what does not fit together or is not there."
    )
    blocks: list[Block] = [Paragraph(text)]
    for task, ranked in comparison.ranked.items():
        tied = {standing.combination.key for standing in ranked if standing.tied}
        with style():
            figure = draw_heat_map(suite, task, comparison.found, tied)
            figure.axes[0].set_title(task, loc="left", fontweight="bold")
            picture = to_svg(figure)
        description = f"Heat map of total variation on {task}, objectives by explorations"
        blocks.append(Figure(f"heat-map-{task}", picture, description))
    return blocks


def _drawing(suite: PosteriorSuite, comparison: Comparison, task: str) -> list[Block]:
    """Draws what the first finished seed of a task's best combination has learned."""
    best = comparison.ranked[task][0].combination
    cell = best.cell(best.seeds[0])
    learner = restore(suite, comparison.folder, cell)
    if learner is None:
        return [Paragraph(f"The checkpoint of {cell.title} is gone, so there is nothing to draw.")]
    picture = draw_posteriors(learner.e_step.model, learner.e_step.policy, learner.x)
    caption = (
        f"The first observations as {best.name}, seed {best.seeds[0]}, learned them: the likeliest "
        "structures as the environment draws them, with their probabilities."
    )
    description = f"Exact and learned posterior probabilities on {task}, side by side"
    return [Figure(f"posteriors-{task}", picture, description, caption)]
