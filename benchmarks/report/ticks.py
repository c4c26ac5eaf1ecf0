"""Axes with numbers that people read."""

from typing import Any

import numpy as np
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

DECADES = 1.7
"""Over no more decades than this there is room for the numbers between powers of ten."""

ALMOST_LINEAR = 4.0
"""An axis whose end is less than this many times its beginning has ticks like a linear one."""


def plain_ticks(axis: Any) -> None:
    """Labels an axis, logarithmic or not, with plain numbers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Chooses and labels the ticks of a logarithmic axis.

    Args:
        axis: Of a matplotlib plot.
        low: Where it begins.
        high: Where it ends; more than `low`.
    """
    if high < low * ALMOST_LINEAR:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
    else:
        near = high < low * 10**DECADES
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
    plain_ticks(axis)


def plain_symmetric_ticks(axis: Any, ends: tuple[float, float], linear_to: float) -> None:
    """Chooses and labels the ticks of an axis that is linear near zero, logarithmic beyond.

    Args:
        axis: Of a matplotlib plot.
        ends: Where it begins and ends.
        linear_to: Up to where it is linear on both sides of zero, as `round_up` gives it.
    """
    low, high = ends
    ticks = [0.0, linear_to / 2, linear_to]
    far = max(high, -low)
    near = far < linear_to * 10 ** (2 * DECADES)
    while ticks[-1] < far:
        ticks.append(round_up(ticks[-1] * (1.5 if near else 6)))
    shown = [value for tick in ticks for value in {tick, -tick} if low <= value <= high]
    axis.set_major_locator(FixedLocator(sorted(shown)))
    axis.set_minor_locator(NullLocator())
    plain_ticks(axis)


def round_up(value: float) -> float:
    """Rounds a positive number up to the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    # A little slack, for 5e-3 may be a little more than 5 times 1e-3.
    step = next(step for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))
    return float(f"{step * power:.3g}")
