"""Softmax and its logarithm, fast for few actions too."""

from torch import Tensor

NARROW, MANY = 16, 128


def log_softmax(logits: Tensor) -> Tensor:
    """Normalises each row.

    On the CPU, torch vectorises over the last dimension only from 16 columns on; below, going
    down the columns of the transpose takes a third to a half of the time.

    Args:
        logits: float `[N, A]`.

    Returns:
        float `[N, A]`, nats.
    """
    if _narrow(logits):
        return logits.t().log_softmax(0).t()
    return logits.log_softmax(-1)


def softmax(logits: Tensor) -> Tensor:
    """Turns logits `[N, A]` into probabilities, as fast as `log_softmax`."""
    return logits.t().softmax(0).t() if _narrow(logits) else logits.softmax(-1)


def _narrow(logits: Tensor) -> bool:
    """Says whether going down the columns is faster."""
    return len(logits) >= MANY and logits.shape[-1] < NARROW and logits.device.type == "cpu"
