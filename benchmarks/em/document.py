"""The whole report of an EM suite, for `gfnem report`."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from algorithms.em import EM
from algorithms.gflownet_e_step import GFlowNetEStep
from benchmarks.em.contest import CONTEST
from benchmarks.em.equal_time import EXPLANATION, EqualTime
from benchmarks.em.learner import POSTERIORS
from benchmarks.em.problem import M_LEARNING_RATE, M_STEPS
from benchmarks.posterior.drawings import draw_posteriors
from benchmarks.report.against import against as compare_with
from benchmarks.report.comparison import Comparison, about_suite, how_to_read
from benchmarks.report.document import (
    Block,
    Document,
    Entry,
    Figure,
    Paragraph,
    Section,
    Table,
)
from benchmarks.report.learning_curves import learning_curves
from benchmarks.report.ranking_tables import metrics_table
from benchmarks.report.reference import Reference
from benchmarks.report.restore import restore
from benchmarks.run_folder import RunFolder

if TYPE_CHECKING:
    from benchmarks.em.suite import EMSuite

CONDITIONS = {
    "M-step": "closed-form where the model knows it, as mixtures and hidden Markov models do; "
    f"{M_STEPS} steps of Adam at the rate {M_LEARNING_RATE} otherwise",
    "start": "random, made from the training observations",
    "test observations of the total variation": f"the first {POSTERIORS}",
}
"""What every cell has in common and no option sets."""

REFERENCE, DRAWN = "exact-em", "gflownet-em"
"""The method that learning curves are beside, and the one whose posteriors are drawn."""

BESIDE = ("log_likelihood", "train_log_likelihood", "total_variation")
"""What rankings show beside the gap."""


def make_document(suite: EMSuite, folder: RunFolder, reference: Reference | None) -> Document:
    """Describes a run, finished or not; see `Task.document`."""
    comparison = Comparison.of(CONTEST, suite, folder)
    config, seeds = folder.read_json("config.json"), suite.options.seeds
    sections = [Section("At a glance", comparison.glance(seeds))]
    if reference is not None:
        sections.append(compare_with(comparison.found, config, reference))
    sections += [
        Section(
            "Rankings",
            comparison.rankings(
                "Gap to truth: how much higher the log-likelihood of the same test observations is "
                "at the true parameters, in nats a point; it may be negative. Above the best: by "
                "how much the gap is larger on the same seeds. Below means are their 95 % "
                "intervals. Log-likelihoods are exact. Total variation: between the E-step's "
                "distribution and the exact posterior at the learned parameters, 0 to 1; Markov "
                "chains and marginalisation have no such distribution. Costs are of one run, "
                "without measurements.",
                BESIDE,
            ),
        ),
        Section(
            "At equal CPU time",
            comparison.by_task(lambda task: [_equal_time(comparison, task)]),
        ),
        Section(
            "Learning curves",
            comparison.by_task(lambda task: _curves(comparison, task)),
        ),
        Section(
            "Posteriors, exact and learned",
            comparison.by_task(lambda task: _drawing(suite, comparison, task)),
        ),
        Section(
            "Every metric",
            comparison.by_task(
                lambda task: [
                    metrics_table(comparison.on(task), "Gap and log-likelihoods in nats a point.")
                ]
            ),
        ),
        how_to_read(
            CONTEST,
            seeds,
            "A seed draws the training and test observations, the start and every random choice of "
            "a method. All methods share the observations and the start of a seed, so intervals "
            "of two methods may overlap although one is better on every seed.",
            "on differences of log-likelihoods and on logarithms of total variation. Pairing takes "
            "out what a seed's observations and start change for all methods alike, and so tells "
            "smaller differences apart; where methods end in different optima from the same start "
            "it gains nothing.",
        ),
        about_suite(folder, CONDITIONS, suite.left_out),
    ]
    return Document("EM suite", comparison.progress.subtitle(folder, config), sections)


def _curves(comparison: Comparison, task: str) -> list[Block]:
    """Draws a panel for each method, with exact EM or else the best method in every one."""
    found = comparison.on(task)
    best = comparison.ranked[task][0].combination
    reference = next((one for one in found if one.name == REFERENCE), best)
    method = "the panel's method"
    return [
        learning_curves(
            task,
            comparison.folder,
            found,
            lambda one: (one.name, one.name if one is reference else method),
            [method, reference.name],
            reference,
        )
    ]


def _equal_time(comparison: Comparison, task: str) -> Table:
    """Compares a task's methods at equal CPU time."""
    equal = EqualTime.of(comparison.folder, comparison.on(task))
    rows = [
        [
            Entry(name),
            *(
                Entry(str(gap), None if isnan(gap.mean) else gap.mean, mark="best" * gap.best)
                for gap in equal.of_method(name)
            ),
        ]
        for name in equal.gaps
    ]
    return Table(["method", *equal.headers], rows, EXPLANATION)


def _drawing(suite: EMSuite, comparison: Comparison, task: str) -> list[Block]:
    """Draws what the first finished seed of GFlowNet-EM has learned on a task."""
    one = next((one for one in comparison.on(task) if one.name == DRAWN), None)
    if one is None:
        return [Paragraph(f"No run of {DRAWN} is finished, so there is nothing to draw.")]
    cell = one.cell(one.seeds[0])
    learner = restore(suite, comparison.folder, cell)
    if learner is None:
        return [Paragraph(f"The checkpoint of {cell.title} is gone, so there is nothing to draw.")]
    if not learner.has_tables:
        return [Paragraph(f"{task} has too many structures to draw their probabilities.")]
    em = learner.learner
    assert isinstance(em, EM)
    assert isinstance(em.e_step, GFlowNetEStep)
    picture = draw_posteriors(em.model, em.e_step.policy, learner.test)
    caption = (
        f"The first test observations at the parameters that {one.name}, seed {one.seeds[0]}, has "
        "learned: the likeliest structures as the environment draws them, with their "
        "probabilities, exact and as the E-step's policy has them."
    )
    description = f"Exact and learned posterior probabilities on {task}, side by side"
    return [Figure(f"posteriors-{task}", picture, description, caption)]
