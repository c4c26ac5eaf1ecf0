"""Learn discrete VAEs of images by GFlowNet-EM and what it competes with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from algorithms.amortised_learner import AmortisedLearner
from benchmarks.discrete_vae import report, sweep
from benchmarks.discrete_vae.judgement import PER_IMAGE
from benchmarks.discrete_vae.learner import DVAELearner, Judges
from benchmarks.discrete_vae.methods import dvae_methods
from benchmarks.discrete_vae.problem import Problem
from benchmarks.discrete_vae.sweep import Options
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.task import HeldOutTask
from benchmarks.provenance import derive_seed
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError
from lvms.data.images import load_images
from lvms.discrete_vae import DiscreteVAE

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference

WARN_AFTER = 1 / 3
"""A learner that is still collapsed after such a share of its rounds is warned of."""


class DiscreteVAETask(HeldOutTask):
    """Discrete VAEs from the same starts by every method, at equal CPU time or equal updates."""

    options_type = Options
    presets = sweep.presets
    details = PER_IMAGE
    known_methods = dvae_methods
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
        self.settle_updates()

    def data(self, cell: MethodCell) -> Tensor:
        """Returns the training images, the same for every cell; see `Task.data`."""
        return self.images.train

    @property
    def judging_data(self) -> Sequence[Tensor]:
        """The images that learners are judged by; see `Task.judging_data`."""
        return self.judges.validation, self.judges.test

    def make_learner(self, cell: MethodCell) -> DVAELearner:
        """Makes the method's learner from the start that all methods share."""
        num_updates = self.num_minibatches(cell.method)
        own = self.make_own_learner(cell, num_updates, self.options.rounds)
        return DVAELearner(own, self.judges)

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

    def report(
        self, folder: RunFolder, failures: Mapping[MethodCell, str]
    ) -> tuple[str, list[Path]]:
        """Writes the table and the pictures; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.discrete_vae.document import make_document

        if against is not None:
            raise UserError("Runs of discrete-vae are not compared; leave out --against.")
        return make_document(self, folder)

    def make_own_learner(self, cell: MethodCell, num_updates: int, rounds: int) -> AmortisedLearner:
        """Makes the method's own learner; see `HeldOutTask.make_own_learner`."""
        options, train = self.options, self.images.train
        model = DiscreteVAE(
            tuple(train.shape[1:]), options.grid, options.codes, options.code_dim,
            options.channels, options.prior, options.order,
        )  # fmt: skip
        start = derive_seed(cell.seed, "start")
        model.start_at_data(train, torch.Generator().manual_seed(start))
        seed = derive_seed(cell.seed, cell.method)
        problem = Problem(
            x=train, num_updates=num_updates, rounds=rounds, batch_size=options.batch_size,
            generator=torch.Generator().manual_seed(seed), model=model,
            channels=options.channels, hidden=options.hidden,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):  # networks draw their weights from the global one
            torch.manual_seed(seed)
            return dvae_methods.make(cell.method, problem)
