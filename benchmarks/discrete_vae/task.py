"""Learn discrete VAEs of images by GFlowNet-EM and what it competes with."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from algorithms.amortised_learner import AmortisedLearner
from benchmarks.discrete_vae import report, sweep
from benchmarks.discrete_vae.judgement import PER_IMAGE
from benchmarks.discrete_vae.learner import DVAELearner, Judges
from benchmarks.discrete_vae.methods import dvae_methods
from benchmarks.discrete_vae.problem import Problem
from benchmarks.discrete_vae.sweep import DVAECell, Options
from benchmarks.discrete_vae.timing import updates_within
from benchmarks.provenance import derive_seed
from benchmarks.run_folder import RunFolder
from benchmarks.task import Task
from gfn_envs.errors import UserError
from lvms.data.images import load_images
from lvms.discrete_vae import DiscreteVAE

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference

WARN_AFTER = 1 / 3
"""A learner that is still collapsed after such a share of its rounds is warned of."""


class DiscreteVAETask(Task):
    """Discrete VAEs from the same starts by every method, at equal CPU time or equal updates."""

    options_type = Options
    presets = sweep.presets
    failures_are_reported = True
    shown_metrics = ("loss", "nll", "below_marginal")
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options, loads the images and fixes the number of updates; see `Task`."""
        options.check()
        self.options = options
        self.images = load_images(options.data)
        self.evaluate_every = options.every
        self.judges = Judges(
            self.images.validation[: options.validation_images],
            options.validation_samples,
            self.images.test[: options.test_images or None],
            options.samples,
            derive_seed(0, "judges"),
        )
        for method in options.methods:  # what does not fit together is refused before the run
            cell = DVAECell(method, options.first_seed)
            self._make_learner(cell, options.rounds, options.rounds)
        if not options.updates:
            # Measured once: the numbers are part of the run's settings from here on.
            self.options = replace(options, updates=self._measure_updates())

    @property
    def cells(self) -> Sequence[DVAECell]:
        """All methods with the first seed, then with the next; see `Task.cells`."""
        first = self.options.first_seed
        seeds = range(first, first + self.options.seeds)
        return [DVAECell(method, seed) for seed in seeds for method in self.options.methods]

    @property
    def num_updates(self) -> int:
        """The number of rounds; see `Task.num_updates`."""
        return self.options.rounds

    def num_minibatches(self, method: str) -> int:
        """Returns how many mini-batches a method has in all."""
        updates = self.options.updates
        return updates[0] if len(updates) == 1 else updates[self.options.methods.index(method)]

    def data(self, cell: DVAECell) -> Tensor:
        """Returns the training images, the same for every cell; see `Task.data`."""
        return self.images.train

    @property
    def judging_data(self) -> Sequence[Tensor]:
        """The images that learners are judged by; see `Task.judging_data`."""
        return self.judges.validation, self.judges.test

    def make_learner(self, cell: DVAECell) -> DVAELearner:
        """Makes the method's learner from the start that all methods share."""
        num_updates = self.num_minibatches(cell.method)
        return DVAELearner(self._make_learner(cell, num_updates, self.options.rounds), self.judges)

    def evaluate(self, learner: DVAELearner) -> dict[str, float]:
        """Measures it on validation images; see `Task.evaluate`."""
        return learner.validate()

    def warning(self, learner: DVAELearner, update: int, metrics: dict[str, float]) -> str | None:
        """Warns once, a while after the start, of a model that has learned nothing of z."""
        late = WARN_AFTER * self.num_updates
        if not update - self.evaluate_every < late <= update or not learner.is_collapsed(metrics):
            return None
        return (
            f"after {update} of {self.num_updates} rounds its NLL of {metrics['nll']:.2f} is only "
            f"{metrics['below_marginal']:.2f} below that of independent pixels: its codes say "
            "nothing of the image yet."
        )

    def final_metrics(self, learner: DVAELearner) -> dict[str, dict[str, float]]:
        """Judges its best weights on the test images; see `Task.final_metrics`."""
        return learner.summary()

    def save_details(self, learner: DVAELearner, folder: RunFolder) -> None:
        """Saves what was measured on each test image, so that methods compare image by image."""
        lists = {name: values.tolist() for name, values in learner.judge().items()}
        folder.write_text(PER_IMAGE, json.dumps(lists) + "\n")

    def report(self, folder: RunFolder, failures: Mapping[DVAECell, str]) -> tuple[str, list[Path]]:
        """Writes the table and the pictures; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.discrete_vae.document import make_document

        if against is not None:
            raise UserError("Runs of discrete-vae are not compared; leave out --against.")
        return make_document(self, folder)

    def _make_learner(self, cell: DVAECell, num_updates: int, rounds: int) -> AmortisedLearner:
        """Makes the method's own learner for so many mini-batches."""
        options, train = self.options, self.images.train
        model = DiscreteVAE(
            tuple(train.shape[1:]), options.grid, options.codes, options.code_dim,
            options.channels, options.prior, options.order,
        )  # fmt: skip
        start = derive_seed(cell.seed, "start")
        model.start_at_data(train, torch.Generator().manual_seed(start))
        seed = derive_seed(cell.seed, cell.method)
        problem = Problem(
            model, train, num_updates, rounds, options.batch_size, options.channels,
            options.hidden, torch.Generator().manual_seed(seed),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):  # networks draw their weights from the global one
            torch.manual_seed(seed)
            return dvae_methods.make(cell.method, problem)

    def _measure_updates(self) -> tuple[int, ...]:
        """Measures how many mini-batches each method can make in the time that it has."""
        options, budget = self.options, 60 * self.options.cpu_minutes
        counts = []
        for method in tqdm(options.methods, "measuring updates", unit="method", leave=False):
            cell = DVAECell(method, options.first_seed)
            make = functools.partial(self._make_learner, cell, rounds=1)
            counts.append(max(options.rounds, updates_within(budget, make, self.images.train)))
        return tuple(counts)
