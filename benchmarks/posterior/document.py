"""The whole report of a posterior suite, for `gfnem report`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.posterior.against import against as compare_with
from benchmarks.posterior.drawings import draw_posteriors
from benchmarks.posterior.glance import at_a_glance
from benchmarks.posterior.heat_map import draw_heat_map
from benchmarks.posterior.learning_curves import learning_curves
from benchmarks.posterior.ranking import Placing, Standing, placings, standings
from benchmarks.posterior.ranking_tables import metrics_table, placings_table, ranking_table
from benchmarks.posterior.report import left_out
from benchmarks.posterior.results import Combination, read
from benchmarks.posterior.sweep import PosteriorCell
from benchmarks.posterior.training import FAST_SHARE, NUM_X, SAMPLES_PER_X
from benchmarks.report.about import about
from benchmarks.report.document import (
    Block,
    Bullets,
    Document,
    Figure,
    Notice,
    Paragraph,
    Section,
    Tabs,
)
from benchmarks.report.progress import Progress, notices
from benchmarks.report.reference import Reference
from benchmarks.report.svg import style, to_svg
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.posterior.suite import PosteriorSuite

CONDITIONS = {
    "observations of each task": str(NUM_X),
    "trajectories for each observation of an update": str(SAMPLES_PER_X),
    "policy": "perceptron, two hidden layers of 128",
    "optimiser": f"Adam; its rate falls to a tenth after {FAST_SHARE:.0%} of the updates",
}
"""What every cell has in common and no option sets."""


@dataclass(frozen=True)
class Findings:
    """What the sections are made of.

    Attributes:
        suite: The suite.
        folder: The run's folder.
        found: Every combination with a finished cell.
        ranked: The standings of each task with a finished cell.
        overall: The placings of each kind of choice.
    """

    suite: PosteriorSuite
    folder: RunFolder
    found: list[Combination]
    ranked: dict[str, list[Standing]]
    overall: dict[str, list[Placing]]

    def of(self, task: str) -> list[Combination]:
        """The combinations of a task."""
        return [one for one in self.found if one.task == task]


def make_document(
    suite: PosteriorSuite, folder: RunFolder, reference: Reference | None
) -> Document:
    """Describes a run, finished or not; see `Task.document`."""
    progress = Progress.of(suite, folder)
    found = read(folder, progress.finished)
    ranked = {
        task: standings([one for one in found if one.task == task])
        for task in suite.options.tasks
        if any(one.task == task for one in found)
    }
    overall = {
        "combination": placings(found, lambda one: one.name, lambda one: (one.task,)),
        "objective": placings(
            found, lambda one: one.objective, lambda one: (one.task, one.exploration)
        ),
        "exploration": placings(
            found, lambda one: one.exploration, lambda one: (one.task, one.objective)
        ),
    }
    findings = Findings(suite, folder, found, ranked, overall)
    config = folder.read_json("config.json")
    sections = [Section("At a glance", _glance(findings, progress))]
    if reference is not None:
        sections.append(compare_with(found, config, reference))
    sections += [
        Section("Objectives and explorations", _heat_maps(findings)),
        Section("Rankings", _rankings(findings)),
        Section("Learning curves", _by_task(findings, _curves)),
        Section("Posteriors, exact and learned", _by_task(findings, _drawing)),
        Section("Every metric", _by_task(findings, _metrics)),
        Section("How to read the statistics", _method(suite.options.seeds)),
        _about(findings),
    ]
    return Document("Posterior suite", progress.subtitle(folder, config), sections)


def _glance(findings: Findings, progress: Progress) -> list[Block]:
    """Says what is missing, and who is best."""
    blocks: list[Block] = notices(progress)
    if findings.suite.options.seeds == 1:
        blocks.append(
            Notice(
                Paragraph(
                    "There is one seed: no intervals, no tests. Differences below may be chance."
                )
            )
        )
    return [*blocks, *at_a_glance(findings.ranked, findings.overall)]


def _heat_maps(findings: Findings) -> list[Block]:
    """Draws a heat map of each task."""
    text = (
        f"Mean total variation after {findings.suite.options.updates:,} updates; dark is near the "
        "posterior. The best of each task has a frame, and ≈ marks what cannot be told apart from "
        "it. A dash is what does not fit together or is not there."
    )
    blocks: list[Block] = [Paragraph(text)]
    for task, ranked in findings.ranked.items():
        tied = {standing.combination.key for standing in ranked if standing.tied}
        with style():
            figure = draw_heat_map(findings.suite, task, findings.found, tied)
            figure.axes[0].set_title(task, loc="left", fontweight="bold")
            picture = to_svg(figure)
        description = f"Heat map of total variation on {task}, objectives by explorations"
        blocks.append(Figure(f"heat-map-{task}", picture, description))
    return blocks


def _rankings(findings: Findings) -> list[Block]:
    """Ranks combinations on each task, and choices over all."""
    blocks: list[Block] = [
        Section(task, [ranking_table(ranked)]) for task, ranked in findings.ranked.items()
    ]
    kinds = (
        ("combination", "Over all tasks", "all combinations on one task"),
        ("objective", "Objectives alone", "all objectives with one exploration on one task"),
        ("exploration", "Explorations alone", "all explorations of one objective on one task"),
    )
    for kind, heading, of in kinds:
        placed = findings.overall[kind]
        if len(placed) > 1 and not (kind == "combination" and len(findings.ranked) == 1):
            blocks.append(Section(heading, [placings_table(kind, placed, of)]))
    return blocks


def _by_task(
    findings: Findings, make: Callable[[Findings, str], Sequence[Block]]
) -> Sequence[Block]:
    """Makes blocks for each task, behind tabs where there are several."""
    panels = {task: make(findings, task) for task in findings.ranked}
    return [Tabs(panels)] if len(panels) > 1 else next(iter(panels.values()))


def _curves(findings: Findings, task: str) -> list[Block]:
    labels = findings.suite.options.explorations
    return [learning_curves(task, findings.folder, findings.of(task), labels)]


def _drawing(findings: Findings, task: str) -> list[Block]:
    """Draws what the first finished seed of a task's best combination has learned."""
    best = findings.ranked[task][0].combination
    cell = PosteriorCell(*best.key, best.seeds[0])
    picture = draw_posteriors(findings.suite, findings.folder, cell)
    if picture is None:
        return [Paragraph(f"The checkpoint of {cell.title} is gone, so there is nothing to draw.")]
    caption = (
        f"The first observations as {cell.objective} with {cell.exploration}, seed {cell.seed}, "
        "learned them: the likeliest structures as the environment draws them, with their "
        "probabilities."
    )
    description = f"Exact and learned posterior probabilities on {task}, side by side"
    return [Figure(f"posteriors-{task}", picture, description, caption)]


def _metrics(findings: Findings, task: str) -> list[Block]:
    return [metrics_table(findings.of(task))]


def _method(seeds: int) -> list[Block]:
    """Explains intervals and tests, and what they cannot tell."""
    return [
        Paragraph(
            "Intervals are percentile bootstrap intervals of the mean over seeds, at 95 %. A seed "
            "changes the policy's first parameters and every random choice of its training; the "
            "model and the observations stay the same."
        ),
        Paragraph(
            "Each combination is held against the best of its task by a t-test paired by seed, on "
            "the logarithms of errors (total variation, divergences) and on bounds, sample sizes "
            "and coverages as they are. p-values are corrected for the number of comparisons by "
            "Holm's method, and what stays above 0.05 is called not told apart. That is no proof "
            "that it is as good. The best is chosen by the same seeds, so it may be best by luck."
        ),
        Paragraph(
            f"This run has {seeds} seed{'s' if seeds > 1 else ''}. Few seeds tell only large "
            "differences apart, and their bootstrap is too narrow: of three seeds it reaches from "
            "the least to the greatest, and covers the true mean in 75 of 100 cases, not in 95."
        ),
    ]


def _about(findings: Findings) -> Section:
    """Says how the run was made, and what was left out."""
    made = about(findings.folder.read_json("config.json"), CONDITIONS)
    if not findings.suite.left_out:
        return made
    lines = Bullets([Paragraph(line) for line in left_out(findings.suite)])
    return Section(
        made.heading, [*made.blocks, Section("Left out, because it does not fit together", [lines])]
    )
