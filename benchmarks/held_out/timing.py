"""How many updates a method can make in a given time, measured once."""

import time
from collections.abc import Callable

from torch import Tensor

from algorithms.learner import Learner

WARM_UP = 8
"""The updates of a first run, in which torch allocates and chooses its kernels."""

SECONDS = 1.5
"""About how long the run that counts takes."""

FEWEST, MOST = 16, 400
"""So many updates it has."""


def updates_within(cpu_seconds: float, make: Callable[[int], Learner], x: Tensor) -> int:
    """Measures a method in miniature: a whole run of few updates.

    A whole one, since updates may differ: turns of policy and model, phases, dreams.

    Args:
        cpu_seconds: The time that there is.
        make: Makes the method's learner for so many updates, in one round.
        x: The training data, `[N, ...]`.

    Returns:
        How many updates take that time, at least 1.
    """
    warm_up = _seconds(make(WARM_UP), x) / WARM_UP
    count = max(FEWEST, min(MOST, int(SECONDS / warm_up)))
    return max(1, int(cpu_seconds * count / _seconds(make(count), x)))


def _seconds(learner: Learner, x: Tensor) -> float:
    """Carries out a learner's one round and returns the CPU-seconds that it took."""
    start = time.process_time()
    learner.update(x)
    return time.process_time() - start
