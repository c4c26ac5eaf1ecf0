"""How the suite's metrics are read: which way is better, and on which scale they are compared."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A metric as a report shows it.

    Attributes:
        label: What people are shown.
        lower_is_better: Whether it is an error or a cost.
        logarithmic: Whether it is compared by ratios; otherwise by differences.
    """

    label: str
    lower_is_better: bool
    logarithmic: bool


QUANTITIES = {
    "total_variation": Quantity("total variation", lower_is_better=True, logarithmic=True),
    "jensen_shannon": Quantity("Jensen-Shannon", lower_is_better=True, logarithmic=True),
    "forward_kl": Quantity("KL(p‖q)", lower_is_better=True, logarithmic=True),
    "reverse_kl": Quantity("KL(q‖p)", lower_is_better=True, logarithmic=True),
    "elbo": Quantity("ELBO", lower_is_better=False, logarithmic=False),
    "iwae": Quantity("IWAE bound", lower_is_better=False, logarithmic=False),
    "eubo": Quantity("EUBO", lower_is_better=True, logarithmic=False),
    "ess": Quantity("ESS", lower_is_better=False, logarithmic=False),
    "top_coverage": Quantity("top 10 hit", lower_is_better=False, logarithmic=False),
    "mass_coverage": Quantity("mass hit", lower_is_better=False, logarithmic=False),
}
"""Those that the suite measures, in the order in which they are shown."""
