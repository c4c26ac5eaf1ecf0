"""The log of a mean weight, and how well samples tell it."""

from typing import NamedTuple

import torch
from torch import Tensor


class LogMean(NamedTuple):
    """What M weights of each row say of their mean.

    Attributes:
        value: float `[B]`, the log of the mean, nats: too low by half the square of its standard
            error, about.
        standard_error: float `[B]`, of that, by the delta method, nats; 0 for a single weight.
            It knows nothing of weights that no sample has hit.
        effective_samples: float `[B]`, (sum w)^2 / sum w^2 as a share of M.
    """

    value: Tensor
    standard_error: Tensor
    effective_samples: Tensor

    @classmethod
    def of(cls, log_weight: Tensor) -> "LogMean":
        """Summarises log weights `[B, M]`, nats."""
        num = log_weight.shape[-1]
        value = log_mean(log_weight)
        relative = (log_weight - value[:, None]).exp()  # of mean 1
        variance = relative.var(-1) if num > 1 else torch.zeros_like(value)
        return cls(value, (variance / num).sqrt(), 1 / relative.square().mean(-1))


def log_mean(log_weight: Tensor) -> Tensor:
    """Computes the log of the mean of `exp(log_weight)` over the last dimension."""
    return log_weight.logsumexp(-1) - torch.tensor(float(log_weight.shape[-1])).log()
