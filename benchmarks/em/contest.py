"""What the EM suite compares: methods, by how far below the true parameters they end."""

from benchmarks.em.sweep import EMCell
from benchmarks.report.contest import Contest, Quantity

NATS = "nats a point"

ROUNDING = 1e-5
"""Log-likelihoods of a few nats are summed in single precision."""

CONTEST = Contest(
    cell_type=EMCell,
    choices=("method",),
    metric="gap",
    quantities={
        "gap": Quantity(
            "gap to truth",
            lower_is_better=True,
            logarithmic=False,
            unit=NATS,
            rounding=ROUNDING,
        ),
        **{
            f"{which}log_likelihood": Quantity(
                label,
                lower_is_better=False,
                logarithmic=False,
                digits=5,
                unit=NATS,
                rounding=ROUNDING,
            )
            for which, label in (("", "test log-likelihood"), ("train_", "train log-likelihood"))
        },
        "total_variation": Quantity("total variation", lower_is_better=True, logarithmic=True),
    },
    wins="learns best",
    run="run",
    update="EM iteration",
    evaluation="p(x, z) evaluation",
    seeds_share=True,
)
"""The gap is that of test log-likelihoods, and may be negative: then luck or the training data made
the learned parameters better on the test data than the true ones are."""
