"""How each EM method is drawn: colours that colour-blind readers tell apart, dashes and markers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A colour, dashes and a marker as matplotlib takes them."""

    colour: str
    dashes: Any
    marker: str


LINES = {
    "exact-em": Line("#0072B2", "-", "o"),
    "annealed-em": Line("#56B4E9", (0, (5, 1)), "s"),
    "mean-field-em": Line("#E69F00", "--", "^"),
    "monte-carlo-em": Line("#009E73", ":", "v"),
    "gflownet-em": Line("#CC79A7", "-.", "D"),
    "gflownet-em-sleep": Line("#882255", (0, (3, 1, 1, 1, 1, 1)), "d"),
    "wake-sleep": Line("#D55E00", (0, (1, 1)), "<"),
    "reweighted-wake-sleep": Line("#000000", (0, (6, 2, 1, 2)), ">"),
    "marginalisation": Line("#999999", (0, (8, 2)), "x"),
    "monte-carlo-em-1": Line("#66A61E", (0, (3, 3)), "8"),
    "monte-carlo-em-short": Line("#A6761D", (0, (2, 3)), "+"),
    "gibbs-em-2": Line("#1B9E77", (0, (6, 1, 1, 1, 1, 1)), "|"),
    "gibbs-em": Line("#117733", (0, (1, 2)), "p"),
    "gflownet-em-weighted": Line("#F0027F", (0, (9, 1)), "h"),
    "gflownet-em-untempered": Line("#C51B8A", (0, (2, 1, 1, 1)), "$g$"),
    "reinforce-em-untempered": Line("#807DBA", (0, (5, 2, 1, 2)), "$r$"),
    "reweighted-wake-sleep-untempered": Line("#3182BD", (0, (3, 2)), "$w$"),
    "gflownet-em-dreams": Line("#7A0177", (0, (4, 1)), "."),
    "reinforce-em-dreams": Line("#54278F", (0, (1, 1, 3, 1)), "4"),
    "reweighted-wake-sleep-dreams": Line("#08519C", (0, (2, 1, 2, 3)), "_"),
    "reweighted-wake-sleep-tempered": Line("#1F78B4", (0, (5, 3)), "X"),
    "reinforce-em": Line("#6A3D9A", (0, (4, 1, 1, 1)), "1"),
    "reinforce-em-weighted": Line("#B15928", (0, (2, 2)), "2"),
}
"""The lines of the methods of this package; most colours are those of Okabe and Ito."""

OTHERS = (
    Line("#332288", (0, (2, 1)), "P"),
    Line("#44AA99", (0, (7, 1, 2, 1)), "*"),
    Line("#AA4499", (0, (4, 3)), "H"),
    Line("#999933", (0, (1, 3)), "3"),
)
"""The lines of other methods, in turn."""


def lines_of(methods: Sequence[str], known: Mapping[str, Line] = LINES) -> dict[str, Line]:
    """Returns the line of each method: its own if it is known, or the next of `OTHERS`."""
    unknown = [method for method in methods if method not in known]
    others = {method: OTHERS[i % len(OTHERS)] for i, method in enumerate(unknown)}
    return {method: known.get(method) or others[method] for method in methods}
