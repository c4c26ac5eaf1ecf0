"""How each discrete VAE method is drawn; methods of the EM suite look as they do there."""

from benchmarks.em.lines import LINES as EM_LINES
from benchmarks.em.lines import Line

LINES = {
    **{name: EM_LINES[name] for name in (
        "gflownet-em", "reweighted-wake-sleep",
    )},
    "gflownet-em-tb": Line("#0072B2", "-", "o"),
    "gflownet-em-global-z": Line("#56B4E9", (0, (5, 1)), "s"),
    "gflownet-em-sampled": Line("#999933", (0, (1, 3)), "X"),
    "gflownet-em-greedy": Line("#44AA99", (0, (7, 1, 2, 1)), "*"),
    "gflownet-em-alternating": Line("#332288", (0, (2, 1)), "P"),
    "gflownet-em-adaptive": Line("#AA4499", (0, (4, 3)), "h"),
    "paper": Line("#666666", (0, (8, 2)), "x"),
    "paper-greedy": Line("#117733", (0, (8, 2, 1, 2, 1, 2)), "+"),
    "reinforce": Line("#009E73", ":", "v"),
    "mean-field": Line("#E69F00", "--", "^"),
    "gflownet-em-warm": Line("#D55E00", (0, (10, 1)), "<"),
    "gflownet-em-no-sleep": Line("#882255", (0, (1, 1)), "1"),
    "gflownet-em-dreams": Line("#EE7733", (0, (12, 2)), "."),
    "reweighted-wake-sleep-dreams": Line("#BBBBBB", (0, (1, 2)), "4"),
    "gflownet-em-reweighted": Line("#6699CC", (0, (3, 2)), "3"),
    "gflownet-em-equal": Line("#DDCC77", (0, (6, 2)), "2"),
    "vimco": Line("#661100", (0, (3, 1, 1, 1)), "p"),
    "gumbel-softmax": Line("#F0E442", (0, (4, 1)), "d"),
    "gumbel-softmax-autoregressive": Line("#CC6677", (0, (9, 3)), "8"),
    "vq-vae": Line("#88CCEE", (0, (2, 2)), "H"),
}  # fmt: skip
"""The lines of the methods of this package."""
