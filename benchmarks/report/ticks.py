"""Logarithmic axes with numbers that people read."""

from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

DECADES = 1.7
"""Over no more decades than this there is room for the numbers between powers of ten."""


def plain_ticks(axis: Any) -> None:
    """Labels a logarithmic axis with plain numbers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Chooses and labels the ticks of a logarithmic axis.

    Args:
        axis: Of a matplotlib plot.
        low: Where it begins.
        high: Where it ends; more than `low`.
    """
    near = high < low * 10**DECADES
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if near else (1,)))
    plain_ticks(axis)
