"""A method's learner beside the images that it is judged by, and its best weights so far."""

from dataclasses import dataclass
from multiprocessing import parent_process

import torch
from torch import Tensor, nn
from tqdm import tqdm

from algorithms.amortised_learner import AmortisedLearner, HasOwnBound
from algorithms.image_policy import ImagePolicy
from algorithms.importance_sampling import importance_sample
from benchmarks.discrete_vae.judgement import code_perplexity, is_collapsed, judge
from benchmarks.held_out.learner import HeldOutLearner
from benchmarks.posterior.metrics import summarise
from lvms.discrete_vae import DiscreteVAE


@dataclass(frozen=True)
class Judges:
    """What learners are judged by, the same for every method.

    Attributes:
        validation: Images that choose when a learner was best, `[V, C, H, W]`.
        validation_samples: Importance samples for each of them.
        test: Images that it is judged by in the end, `[T, C, H, W]`.
        test_samples: Importance samples for each of them.
        seed: Of all samples.
    """

    validation: Tensor
    validation_samples: int
    test: Tensor
    test_samples: int
    seed: int

    def generator(self) -> torch.Generator:
        """Makes a source of randomness, the same for every measurement."""
        return torch.Generator().manual_seed(self.seed)


class DVAELearner(HeldOutLearner):
    """Measures model and policy on images; see `HeldOutLearner`.

    Attributes:
        learner: The method's own learner.
        judges: What it is judged by.
    """

    learner: AmortisedLearner

    def __init__(self, learner: AmortisedLearner, judges: Judges) -> None:
        """Takes the learner and its judges."""
        super().__init__(learner)
        self.judges = judges

    @property
    def model(self) -> DiscreteVAE:
        """The model as it is now."""
        assert isinstance(self.learner.model, DiscreteVAE)
        return self.learner.model

    @property
    def policy(self) -> ImagePolicy:
        """The policy as it is now."""
        assert isinstance(self.learner.policy, ImagePolicy)
        return self.learner.policy

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Model and policy; see `HeldOutLearner.parts`."""
        return {"model": self.model, "policy": self.policy}

    def validate(self) -> dict[str, float]:
        """Measures model and policy on validation images; the best weights so far are kept.

        As long as a policy knows nothing, its learner's own bound stands for the others; see
        `HasOwnBound`.

        Returns:
            Means: `nll`, by the importance-weighted bound, and `below_marginal`, how far it is
            below the NLL of independent pixels, `negative_elbo`, all in nats an image;
            `effective_samples`, a share; and `minibatches`, how many there have been.
        """
        judges, model, policy = self.judges, self.model, self.policy
        x = judges.validation
        if isinstance(self.learner, HasOwnBound) and not self.learner.policy_is_learned():
            nll = negative_elbo = -self.learner.own_bound(x).mean().item()
            effective = 0.0
        else:
            estimate = importance_sample(
                model, policy, x, judges.validation_samples, judges.generator()
            )
            nll, negative_elbo = -estimate.few.mean().item(), -estimate.elbo.mean().item()
            effective = estimate.effective_samples.mean().item()
            self.keep_if_best(nll)
        return {
            "nll": nll,
            "below_marginal": self.marginal_nll() - nll,
            "negative_elbo": negative_elbo,
            "effective_samples": effective,
            "minibatches": self.learner.updates,
        }

    def marginal_nll(self) -> float:
        """Computes the validation images' mean NLL if pixels were independent, nats an image."""
        return self.model.pixel_marginal_nll(self.judges.validation).mean().item()

    def is_collapsed(self, metrics: dict[str, float]) -> bool:
        """Says whether measurements are no better than independent pixels."""
        return is_collapsed(metrics["below_marginal"], self.marginal_nll())

    def best(self) -> tuple[DiscreteVAE, ImagePolicy]:
        """Copies model and policy as they were when they were best, or are if never measured."""
        model, policy = self.copy_of_best().values()
        assert isinstance(model, DiscreteVAE)
        assert isinstance(policy, ImagePolicy)
        return model, policy

    def measure_best(self) -> dict[str, Tensor]:
        """Measures the best weights on each test image; see `judgement.judge`.

        Of learners with a bound of their own there is `own_nll` too; see `HasOwnBound`.
        """
        judges = self.judges
        with judging_bar(len(judges.test)) as bar:
            found = judge(
                *self.best(), judges.test, judges.test_samples, judges.generator(), bar.update
            )
        if isinstance(self.learner, HasOwnBound):
            found["own_nll"] = -self.learner.own_bound(judges.test)
        return found

    def summary(self) -> dict[str, dict[str, float]]:
        """Averages what `judge` finds.

        Returns:
            Each metric's `mean` over test images, `standard_error` and `n`. `sampling_error` is the
            share of importance sampling in the standard error of the mean NLL, and
            `code_perplexity` a number of all images together.
        """
        judged = self.judge()
        found = {name: summarise(values) for name, values in judged.items()}
        num = len(self.judges.test)
        together = {
            "sampling_error": judged["nll_error"].square().sum().sqrt().item() / num,
            "code_perplexity": code_perplexity(
                *self.best(), self.judges.test, self.judges.generator()
            ),
        }
        for name, value in together.items():
            found[name] = {"mean": value, "standard_error": float("nan"), "n": num}
        return found


def judging_bar(images: int) -> tqdm:
    """Makes a bar below that of the run, whose updates stand still while images are judged.

    There is none without a terminal, nor in a worker process: several would write over each other.
    """
    return tqdm(
        total=images, desc="judging test images", unit="image", leave=False, dynamic_ncols=True,
        disable=True if parent_process() else None,
    )  # fmt: skip
