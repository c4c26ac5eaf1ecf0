"""The mean-field posterior of models whose joint can be tabulated."""

import math

import torch
from torch import Tensor


@torch.no_grad()
def ascend_on_table(log_joint: Tensor, sweeps: int) -> list[Tensor]:
    """Fits q(z | x) = prod_v q_v(z_v | x) by coordinate ascent, from uniform factors.

    The exact update is log q_v(z_v) = E_q[log p(x, z) | z_v] + const (Bishop 2006, 10.9), the
    expectation a sum over the table.

    Args:
        log_joint: log p(x, z), `[B, K_1, ..., K_V]`, finite, nats.
        sweeps: How often each factor is updated.

    Returns:
        log q_v, float `[B, K_v]` for each variable v, nats.
    """
    sizes = log_joint.shape[1:]
    log_q = [log_joint.new_full((len(log_joint), size), -math.log(size)) for size in sizes]
    for _ in range(sweeps):
        for v in range(len(sizes)):
            mean = log_joint
            for other in reversed(range(len(sizes))):
                if other != v:
                    along = mean.movedim(other + 1, -1)
                    mean = torch.einsum("b...k,bk->b...", along, log_q[other].exp())
            log_q[v] = mean.log_softmax(-1)
    return log_q
