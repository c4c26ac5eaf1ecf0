"""The parts that reports of all suites have: who is best, rankings, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.about import about, left_out
from benchmarks.report.contest import Contest
from benchmarks.report.document import Block, Bullets, Notice, Paragraph, Section, Tabs
from benchmarks.report.glance import at_a_glance
from benchmarks.report.numbers import counted
from benchmarks.report.progress import Progress, notices
from benchmarks.report.ranking import Placing, Standing, placings, standings
from benchmarks.report.ranking_tables import placings_table, ranking_table
from benchmarks.report.results import Combination, read
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task


@dataclass(frozen=True)
class Comparison:
    """What a suite's run has found so far.

    Attributes:
        contest: What is compared.
        folder: The run's folder.
        progress: How far the run is.
        found: Every combination with a finished cell.
        ranked: The standings of each task with a finished cell.
        overall: The placings of all combinations over the tasks.
    """

    contest: Contest
    folder: RunFolder
    progress: Progress
    found: list[Combination]
    ranked: dict[str, list[Standing]]
    overall: list[Placing]

    @classmethod
    def of(cls, contest: Contest, suite: Task, folder: RunFolder) -> Comparison:
        """Reads a run, finished or not.

        Raises:
            UserError: If no cell is finished, or a file is damaged.
        """
        progress = Progress.of(suite, folder)
        found = read(contest, folder, progress.finished)
        ranked = {
            task: standings([one for one in found if one.task == task])
            for task in suite.options.tasks
            if any(one.task == task for one in found)
        }
        overall = placings(found, lambda one: one.name, lambda one: (one.task,))
        return cls(contest, folder, progress, found, ranked, overall)

    def on(self, task: str) -> list[Combination]:
        """Returns the combinations of a task, in the order of the cells."""
        return [one for one in self.found if one.task == task]

    def by_task(self, make: Callable[[str], Sequence[Block]]) -> Sequence[Block]:
        """Makes blocks for each task, behind tabs where there are several."""
        panels = {task: make(task) for task in self.ranked}
        return [Tabs(panels)] if len(panels) > 1 else next(iter(panels.values()))

    def glance(self, seeds: int) -> list[Block]:
        """Says what is missing, and who is best.

        Args:
            seeds: How many the run has.
        """
        blocks: list[Block] = notices(self.progress)
        if seeds == 1:
            text = "There is one seed: no intervals, no tests. Differences below may be chance."
            blocks.append(Notice(Paragraph(text)))
        return [*blocks, *at_a_glance(self.ranked, self.overall)]

    def rankings(self, caption: str, beside: Sequence[str] = ()) -> list[Block]:
        """Ranks combinations on each task, and over all; see `ranking_table`."""
        blocks: list[Block] = [
            Section(task, [ranking_table(ranked, caption, beside)])
            for task, ranked in self.ranked.items()
        ]
        if len(self.ranked) > 1 and len(self.overall) > 1:
            kind = "combination" if len(self.contest.choices) > 1 else self.contest.choices[0]
            table = placings_table(
                kind, self.overall, f"all {kind}s on one task", self.contest.quantity
            )
            blocks.append(Section("Over all tasks", [table]))
        return blocks


def how_to_read(contest: Contest, seeds: int, seed_changes: str, tested: str) -> Section:
    """Explains intervals and tests, and what they cannot tell.

    Args:
        contest: What is compared.
        seeds: How many seeds the run has.
        seed_changes: What another seed changes, in a sentence or more.
        tested: On what the tests are, to go on from "paired by seed".
    """
    one = "combination" if len(contest.choices) > 1 else contest.choices[0]
    paragraphs = (
        "Intervals are percentile bootstrap intervals of the mean over seeds, at 95 %. "
        f"{seed_changes}",
        f"Each {one} is held against the best of its task by a t-test paired by seed, {tested} "
        "p-values are corrected for the number of comparisons by Holm's method, and what stays "
        "above 0.05 is called not told apart. That is no proof that it is as good. The best is "
        "chosen by the same seeds, so it may be best by luck.",
        f"This run has {counted(seeds, 'seed')}. Few seeds tell only large differences apart, and "
        "their bootstrap is too narrow: of three seeds it reaches from the least to the greatest, "
        "and covers the true mean in 75 of 100 cases, not in 95.",
    )
    return Section("How to read the statistics", [Paragraph(text) for text in paragraphs])


def about_suite(
    folder: RunFolder, conditions: Mapping[str, str], reasons: Mapping[tuple[str, ...], str]
) -> Section:
    """Says how a suite's run was made, and what was left out.

    Args:
        folder: The run's folder.
        conditions: What every cell has in common and no option sets.
        reasons: Why something was left out, by what it is.
    """
    made = about(folder.read_json("config.json"), conditions)
    if not reasons:
        return made
    lines = Bullets([Paragraph(line) for line in left_out(reasons)])
    return Section(
        made.heading, [*made.blocks, Section("Left out, because it does not fit together", [lines])]
    )
