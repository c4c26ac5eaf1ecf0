"""The context-free grammar that is nearest to one whose rules depend on the parent."""

import torch
from torch import Tensor

from lvms.grammars.rules import GrammarRules

GENERATIONS = 20
"""How many generations of a tree are looked at."""


@torch.no_grad()
def without_parents(rules: GrammarRules) -> GrammarRules:
    """Averages rules over the parents, each as often as it is there in trees of the grammar.

    A context-free grammar is returned as it is. Of all context-free grammars with the same symbols
    this is the one whose trees are the most probable in expectation, but for trees so deep that
    more than `GENERATIONS` count.

    Args:
        rules: In nats.

    Returns:
        Rules that are not conditioned on the parent.
    """
    if not rules.conditioned_on_parent:
        return rules
    labels = rules.nonterminals
    binary = rules.binary.exp()
    # How many children labelled B an A under Q has, `[K + 1, K, K]`.
    born = binary[..., :labels, :].sum(-1) + binary[..., :labels].sum(-2)
    now = torch.zeros_like(binary[..., 0, 0])
    now[labels] = rules.root.exp()
    seen = now.clone()
    for _ in range(GENERATIONS):
        following = torch.zeros_like(now)
        following[:labels] = (now[..., None] * born).sum(0)
        # A grammar whose trees may grow without end has ever more of them.
        now = following / following.sum().clamp_min(1.0)
        seen += now
    share = _shares(seen)
    averaged = (share[..., None, None] * binary).sum(0)
    return GrammarRules(rules.root, averaged.log(), rules.emission)


def _shares(seen: Tensor) -> Tensor:
    """Normalises counts `[K + 1, K]` over parents; labels that never occur get equal shares."""
    total = seen.sum(0)
    return torch.where(total > 0, seen / total.clamp_min(1e-30), 1 / len(seen))
