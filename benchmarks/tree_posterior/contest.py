"""What the tree posterior suite compares: policies and objectives, by KL(q || p)."""

from benchmarks.report.contest import Contest, Quantity
from benchmarks.tree_posterior.sweep import TreePosteriorCell

CONTEST = Contest(
    cell_type=TreePosteriorCell,
    choices=("policy", "objective"),
    metric="elbo_gap",
    quantities={
        "elbo_gap": Quantity("KL(q‖p)", lower_is_better=True, logarithmic=False, unit="nats"),
        "eubo_gap": Quantity("KL(p‖q)", lower_is_better=True, logarithmic=False, unit="nats"),
        "ess": Quantity("ESS", lower_is_better=False, logarithmic=False),
    },
    wins="comes nearest to the posterior",
    run="training",
    update="round",
    evaluation="likelihood evaluation",
    seeds_share=False,
)
"""Its metrics are in the order in which they are shown."""
