"""What the posterior suite compares: objectives and explorations, by their total variation."""

from benchmarks.posterior.sweep import PosteriorCell
from benchmarks.report.contest import Contest, Quantity

ROUNDING = 1e-3
"""A thousandth of a total variation: summaries keep six digits, and policies that collapsed alike
differ by less."""

CONTEST = Contest(
    cell_type=PosteriorCell,
    choices=("objective", "exploration"),
    metric="total_variation",
    quantities={
        "total_variation": Quantity(
            "total variation", lower_is_better=True, logarithmic=True, rounding=ROUNDING
        ),
        "jensen_shannon": Quantity("Jensen-Shannon", lower_is_better=True, logarithmic=True),
        "forward_kl": Quantity("KL(p‖q)", lower_is_better=True, logarithmic=True),
        "reverse_kl": Quantity("KL(q‖p)", lower_is_better=True, logarithmic=True),
        "elbo": Quantity("ELBO", lower_is_better=False, logarithmic=False, digits=4),
        "iwae": Quantity("IWAE bound", lower_is_better=False, logarithmic=False, digits=4),
        "eubo": Quantity("EUBO", lower_is_better=True, logarithmic=False, digits=4),
        "ess": Quantity("ESS", lower_is_better=False, logarithmic=False, digits=4),
        "top_coverage": Quantity("top 10 hit", lower_is_better=False, logarithmic=False, digits=4),
        "mass_coverage": Quantity("mass hit", lower_is_better=False, logarithmic=False, digits=4),
    },
    wins="comes nearest to the posterior",
    run="training",
    update="update",
    evaluation="likelihood evaluation",
    seeds_share=False,
)
"""Its metrics are in the order in which they are shown."""
