"""Sentences of given lengths with their trees, drawn from a grammar."""

import torch
from torch import Tensor

from lvms.grammars import inside, parent_inside
from lvms.grammars.inverse_cdf import draw
from lvms.grammars.preterminals import sample_preterminals
from lvms.grammars.rules import GrammarRules, same_words


@torch.no_grad()
def sample_of_lengths(
    rules: GrammarRules, lengths: Tensor, max_words: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draws a sentence and its tree from p(x, z | n) for each n, however rare so many words are.

    Trees are exact samples where every word is the same, for then only their lengths count; words
    follow given the trees.

    Args:
        rules: Conditioned on the parent or not.
        lengths: n, int64 `[B]`, each 2 to `max_words`.
        max_words: N.
        generator: Source of randomness.

    Returns:
        x, int64 `[B, N]`, `PAD` behind the end, and trees, int64 `[B, 3 (N - 1)]`.

    Raises:
        UserError: If the grammar has no sentence of such a length.
    """
    any_word, x = rules.without_words(), same_words(lengths, max_words)
    sample = parent_inside.sample if rules.conditioned_on_parent else inside.sample
    z = sample(any_word, x, 1, generator).squeeze(1)
    preterminal = sample_preterminals(any_word, x, z, generator)
    is_word = preterminal >= 0
    x[is_word] = draw(rules.emission.exp()[preterminal[is_word]], generator)
    return x, z
