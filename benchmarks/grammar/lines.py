"""How each grammar method is drawn."""

from benchmarks.em.lines import LINES as EM_LINES
from benchmarks.em.lines import Line

LINES = {
    "marginalisation": EM_LINES["marginalisation"],
    "exact-sampling": EM_LINES["exact-em"],
    "monte-carlo": EM_LINES["monte-carlo-em"],
    "gibbs": EM_LINES["gibbs-em"],
    "energy-monte-carlo": Line("#005F73", (0, (4, 2, 1, 2)), "3"),
    "energy-gibbs": Line("#9B2226", (0, (7, 2)), "4"),
    "energy-likelihood-gibbs": Line("#B7950B", (0, (1, 3, 4, 3)), "."),
    "energy-gflownet-em": Line("#1B9E77", (0, (8, 1, 1, 1)), "_"),
    "ncfg-marginalisation": Line("#D55E00", (0, (10, 1)), "<"),
    "ncfg-exact-sampling": Line("#332288", (0, (2, 1)), ">"),
    "ncfg-monte-carlo": Line("#E69F00", "--", "^"),
    "ncfg-gibbs": Line("#882255", (0, (3, 1, 1, 1, 1, 1)), "d"),
    "gflownet-em": EM_LINES["gflownet-em"],
    "gflownet-em-sleep": Line("#DDCC77", (0, (6, 2)), "1"),
    "gflownet-em-vargrad": Line("#44AA99", (0, (7, 1, 2, 1)), "*"),
    "gflownet-em-explored": Line("#661100", (0, (3, 1, 1, 1)), "h"),
    "gflownet-em-improved": Line("#999933", (0, (1, 3)), "X"),
    "gflownet-em-adaptive": Line("#AA4499", (0, (4, 3)), "H"),
    "gflownet-em-neural": Line("#CC6677", (0, (9, 3)), "8"),
    "gflownet-em-paper": Line("#666666", (0, (6, 2, 1, 2)), "+"),
    "ncfg-gflownet-em": Line("#F0027F", (0, (9, 1)), "2"),
    "table-marginalisation": Line("#56B4E9", (0, (5, 1)), "s"),
    "ncfg-table-marginalisation": Line("#A6761D", (0, (2, 3)), "P"),
}
"""The lines of the methods of this package."""
