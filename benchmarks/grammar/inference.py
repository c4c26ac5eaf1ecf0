"""log p(x) and parses under either kind of model: exact ones, or estimates from sampled trees."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.energy_marginal import MarginalEstimate, estimate_log_marginal
from lvms.grammars.energy_parses import best_of, mbr_of, weighted_trees
from lvms.grammars.grammar import Grammar

AnyGrammar = Grammar | EnergyGrammar
"""What the methods of this task learn."""

AT_ONCE = 64
"""So many sentences are parsed at once, for their charts must fit into memory."""

SEED = 0
"""Of sampled trees: every measurement draws the same random numbers."""


class Inference(ABC):
    """What a model says of sentences, without gradients.

    Attributes:
        is_exact: Whether log p(x) has no sampling error.
    """

    is_exact: bool

    @abstractmethod
    def log_marginal(self, x: Tensor) -> MarginalEstimate:
        """Computes log p(x) of sentences `[B, N]`, or estimates it."""

    @abstractmethod
    def mbr(self, x: Tensor) -> Tensor:
        """Finds the trees with the greatest expected number of right spans, int64 `[B, S]`."""

    @abstractmethod
    def viterbi(self, x: Tensor) -> Tensor:
        """Finds the most probable trees, int64 `[B, S]`."""


class ExactInference(Inference):
    """By the inside algorithm."""

    is_exact = True

    def __init__(self, model: Grammar) -> None:
        """Takes the grammar."""
        self.model = model

    @torch.no_grad()
    def log_marginal(self, x: Tensor) -> MarginalEstimate:
        """Computes log p(x); see `Inference`."""
        each = torch.cat([self.model.log_marginal(some).double() for some in x.split(AT_ONCE)])
        return MarginalEstimate(
            each, each, torch.zeros_like(each), each.new_zeros(()), torch.ones_like(each)
        )

    @torch.no_grad()
    def mbr(self, x: Tensor) -> Tensor:
        """Finds the trees; see `Inference`."""
        return torch.cat([self.model.mbr(some) for some in x.split(AT_ONCE)])

    @torch.no_grad()
    def viterbi(self, x: Tensor) -> Tensor:
        """Finds the trees; see `Inference`."""
        return torch.cat([self.model.viterbi(some)[0] for some in x.split(AT_ONCE)])


class SampledInference(Inference):
    """By exact trees of the grammar, weighed by their shapes."""

    is_exact = False

    def __init__(self, model: EnergyGrammar, samples: int) -> None:
        """Takes the model, and how many trees of each sentence are drawn."""
        self.model = model
        self.samples = samples

    def log_marginal(self, x: Tensor) -> MarginalEstimate:
        """Estimates log p(x); see `Inference`."""
        return estimate_log_marginal(self.model, x, self.samples, generator=_generator())

    def mbr(self, x: Tensor) -> Tensor:
        """Finds the trees by the share of the sampled ones that have a span; see `Inference`."""
        trees = weighted_trees(self.model, x, self.samples, generator=_generator())
        return mbr_of(trees, x, self.model.grammar.nonterminals)

    def viterbi(self, x: Tensor) -> Tensor:
        """Finds the most probable ones among the sampled trees; see `Inference`."""
        trees = weighted_trees(self.model, x, self.samples, generator=_generator())
        return best_of(self.model, trees, x)


def inference_of(model: AnyGrammar, samples: int) -> Inference:
    """Gives the inference that a model allows.

    Args:
        model: The model.
        samples: Trees for each sentence, where they must be sampled.
    """
    if isinstance(model, EnergyGrammar):
        return SampledInference(model, samples)
    return ExactInference(model)


def _generator() -> torch.Generator:
    """Makes a source of the same random numbers as ever."""
    return torch.Generator().manual_seed(SEED)
