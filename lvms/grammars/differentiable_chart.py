"""log p(x) with a gradient: the inside algorithm forwards, expected rule counts backwards."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LogMarginal(torch.autograd.Function):
    """log p(x) of any chart; its gradient for log-probabilities are expected counts."""

    @staticmethod
    def forward(
        ctx: Any, fill: Callable, count: Callable, root: Tensor, binary: Tensor, scores: Tensor,
        lengths: Tensor,
    ) -> Tensor:  # fmt: skip
        """Fills the chart.

        Args:
            ctx: For `backward`.
            fill: From the tables and lengths to the chart, a named tuple of tensors with `rules`,
                another one, first and `log_marginal` `[B]` among them.
            count: From the chart and the weight of each sentence `[B]` to the expected counts of
                root, binary and scores.
            root: `[K]`, nats.
            binary: Nats.
            scores: `[n, B, P]`, of words under preterminals, nats.
            lengths: int64 `[B]`.
        """
        chart = fill(root, binary, scores, lengths)
        ctx.count, ctx.chart_type, ctx.rules_type = count, type(chart), type(chart.rules)
        ctx.save_for_backward(*chart.rules, *chart[1:])
        return chart.log_marginal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        """Counts rules by the outside algorithm, each sentence weighted by `weight` `[B]`."""
        saved = ctx.saved_tensors
        parts = len(ctx.rules_type._fields)
        chart = ctx.chart_type(ctx.rules_type(*saved[:parts]), *saved[parts:])
        return None, None, *ctx.count(chart, weight), None
