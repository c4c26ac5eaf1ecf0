"""log p(x) of a grammar with energies of shapes, by sampling: there is no exact algorithm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lvms.grammars.annealed_trees import SENTENCES_AT_A_TIME, annealed_trees
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.rules import same_words
from lvms.grammars.table_grammar import without_words
from lvms.log_mean import LogMean


@dataclass(frozen=True)
class MarginalEstimate:
    """What samples say of the log p(x) of B sentences.

    Attributes:
        log_marginal: float64 `[B]`, nats.
        log_partition: float64 `[B]`, log sum_z exp(log_joint(x, z)), nats: what normalises
            p(z | x). It is log p(x) where the log joint is normalised.
        standard_error: float64 `[B]`, of that, by the delta method, nats.
        error_of_sum: The standard error of the sum over all B, a scalar, nats. Sentences of one
            length share an estimate, so their errors do not average out.
        effective_samples: float64 `[B]`, of the trees given x, as a share.
    """

    log_marginal: Tensor
    log_partition: Tensor
    standard_error: Tensor
    error_of_sum: Tensor
    effective_samples: Tensor


@torch.no_grad()
def estimate_log_marginal(
    model: EnergyGrammar,
    x: Tensor,
    samples: int,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> MarginalEstimate:
    """Estimates log p(x), where lengths are distributed as the grammar's own.

    So it compares with log p(x) of a plain grammar:

        log p(x) = log p_G(x) + log E exp(-E(z) / T) given x - log E exp(-E(z) / T) given n

    The first term is exact. Both expectations are over trees of the grammar p_G, p_G(z | x) and
    with the words summed out p_G(z | n), and are means over exact samples: of each length as many
    as of all its sentences, on the average over lengths.

    Args:
        model: The grammar with energies.
        x: int64 `[B, N]`.
        samples: Trees for each sentence.
        steps: Of annealing; see `annealed_trees`. One is importance sampling.
        generator: Source of randomness.

    Raises:
        UserError: If there are to be no samples or steps, or the grammar does not derive a
            sentence.
    """
    given_x = estimate_log_partition(model, x, samples, steps, generator)
    length, which, count = model.context(x).unique(return_inverse=True, return_counts=True)
    _, log_weight = annealed_trees(
        without_words(model.grammar),
        same_words(length, model.grammar.max_words),
        model.shape_score,
        samples * -(-len(x) // len(length)),
        steps,
        generator,
    )
    given_n = LogMean.of(log_weight.double())
    which = which.flatten()
    of_sum = given_x.standard_error.square().sum() + (count * given_n.standard_error).square().sum()
    return MarginalEstimate(
        given_x.value - given_n.value[which],
        given_x.value,
        (given_x.standard_error.square() + given_n.standard_error[which].square()).sqrt(),
        of_sum.sqrt(),
        given_x.effective_samples,
    )


@torch.no_grad()
def estimate_log_partition(
    model: EnergyGrammar,
    x: Tensor,
    samples: int,
    steps: int = 1,
    generator: torch.Generator | None = None,
) -> LogMean:
    """Estimates log sum_z p_G(x, z) exp(-E(z) / T): what normalises the posterior given x.

    It is what `importance_sample` estimates with a policy, log Z(x) of a GFlowNet.

    Args:
        model: The grammar with energies.
        x: int64 `[B, N]`.
        samples: Trees for each sentence.
        steps: Of annealing; see `annealed_trees`. One is importance sampling.
        generator: Source of randomness.

    Returns:
        float64 `[B]` each, nats but for the share.

    Raises:
        UserError: If there are to be no samples or steps, or the grammar does not derive a
            sentence.
    """
    _, log_weight = annealed_trees(model.grammar, x, model.shape_score, samples, steps, generator)
    mean = LogMean.of(log_weight.double())
    log_marginal = torch.cat(
        [model.grammar.log_marginal(some).double() for some in x.split(SENTENCES_AT_A_TIME)]
    )
    return mean._replace(value=mean.value + log_marginal)
