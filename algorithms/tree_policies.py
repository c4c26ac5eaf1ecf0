"""Every policy over parse trees by its standard name, made from the grammar."""

from gfn_envs.catalogue import Catalogue

tree_policies = Catalogue("tree policy")

tree_policies.register("chart", "algorithms.chart_policy:ChartPolicy")
tree_policies.register("neural", "algorithms.neural_tree_policy:NeuralTreePolicy")
tree_policies.register(
    "neural-plain", "algorithms.neural_tree_policy:NeuralTreePolicy", rule_scores=False
)
tree_policies.register("forest", "algorithms.forest_policy:ForestPolicy")

BUILT_BOTTOM_UP = ("forest",)
"""Those that merge trees; all others split spans."""


def tree_order(policy: str) -> str:
    """Says how a registered policy builds trees: `bottom-up` or `top-down`."""
    return "bottom-up" if policy in BUILT_BOTTOM_UP else "top-down"
