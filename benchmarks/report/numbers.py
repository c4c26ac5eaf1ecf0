"""Numbers as people read them."""

import math


def significant(value: float, digits: int = 3) -> str:
    """Shows a number with so many significant digits, without exponents where it can be read."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    if abs(rounded) < 1e-5 or places < -6:
        return f"{value:.{digits - 1}e}"
    return f"{rounded:,.{max(places, 0)}f}"


def counted(number: int, noun: str) -> str:
    """Shows how many there are of something, a noun whose plural ends in s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def p_value(value: float) -> str:
    """Shows a p-value."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def times(ratio: float) -> str:
    """Shows how many times as large something is."""
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def duration(seconds: float) -> str:
    """Shows a time in the unit that suits it."""
    if seconds < 120:
        return f"{significant(seconds, 2)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listing(names: list[str]) -> str:
    """Joins names as a sentence does."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
