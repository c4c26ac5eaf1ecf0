"""Sentences with their trees drawn from a grammar, from the root down, all at once."""

import torch
from torch import Tensor

from gfn_envs.binary_tree import UNSET, TreeNodes, tree_state
from gfn_envs.errors import UserError
from lvms.grammars.rules import PAD, GrammarRules

FUTILE_DRAWS = 100_000
"""Drawing stops after so many trees of which fewer than one in a thousand was short enough."""

MAX_SYMBOLS = 2**24
"""So many symbols at most are held while trees are drawn at once: N words in N rounds each."""


class RandomRows:
    """Draws from many categorical distributions by inverse CDF.

    The cumulative sums of all rows lie in one sorted table, row r between r and r + 1, so that a
    draw costs a binary search and no copy of its row.

    Attributes:
        size: C, the number of categories.
    """

    def __init__(self, probability: Tensor) -> None:
        """Sums the probabilities.

        Args:
            probability: float `[R, C]`.
        """
        self.size = probability.shape[-1]
        # In single precision thousands of sums would lose small probabilities.
        total = probability.double().cumsum(-1)
        start = torch.arange(len(total), dtype=total.dtype, device=total.device)[:, None]
        self._table = (total / total[:, -1:] + start).flatten()

    def draw(self, row: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws one category from each of the rows, int64 `[n]` to int64 `[n]`."""
        u = torch.rand(row.shape, generator=generator, dtype=self._table.dtype, device=row.device)
        found = torch.searchsorted(self._table, row + u, right=True)
        return (found - row * self.size).clamp_max(self.size - 1)


@torch.no_grad()
def sample_trees(
    rules: GrammarRules,
    batch_size: int,
    min_words: int,
    max_words: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws sentences and trees; those of another length are drawn again.

    Args:
        rules: The grammar.
        batch_size: B.
        min_words: The least length that is kept, at least 2.
        max_words: N, the largest.
        generator: Source of randomness, on the device of the rules.

    Returns:
        x, int64 `[B, N]`, `PAD` behind the end, and trees, int64 `[B, 3 (N - 1)]`.

    Raises:
        UserError: If hardly any tree is of such a length.
    """
    sampler = _TreeSampler(rules, min_words, max_words)
    at_once = max(1, MAX_SYMBOLS // max_words**2)
    kept = [sampler.draw(0, generator)]
    num_kept = num_drawn = 0
    while num_kept < batch_size:
        if num_drawn >= FUTILE_DRAWS and num_kept * 1000 < num_drawn:
            raise UserError(
                f"Of {num_drawn:,} trees drawn from the grammar {num_kept:,} had {min_words} to "
                f"{max_words} words; raise max_words, or give rules of one word more weight."
            )
        # As many as are likely to be enough.
        rate = (num_kept + 1) / (num_drawn + 2)
        wanted = min(int((batch_size - num_kept) / rate * 1.1) + 16, at_once)
        kept.append(sampler.draw(wanted, generator))
        num_drawn, num_kept = num_drawn + wanted, num_kept + len(kept[-1][0])
    x, z = (torch.cat(parts)[:batch_size] for parts in zip(*kept, strict=True))
    return x, z


class _TreeSampler:
    """Draws trees from one grammar.

    A tree grows in rounds. In each every nonterminal of the row of symbols that it has come to is
    replaced by its two children, in place, and every preterminal stays. As no symbol ever
    vanishes, a row of more than N symbols is given up at once.
    """

    def __init__(self, rules: GrammarRules, min_words: int, max_words: int) -> None:
        self.min_words, self.max_words = min_words, max_words
        self.num_labels, self.conditioned = rules.nonterminals, rules.conditioned_on_parent
        self.num_symbols = rules.nonterminals + rules.preterminals
        binary = rules.binary.flatten(0, -2).exp()
        self.root = RandomRows(rules.root[None].exp())
        # Two draws of M symbols need no cumulative sums over all M^2 pairs.
        self.left = RandomRows(binary.sum(-1).view(-1, self.num_symbols))
        self.right_given_left = binary
        self.emission = RandomRows(rules.emission.exp())

    def draw(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draws trees and returns those of a length to keep: x `[b, N]` and z `[b, S]`."""
        device = self.root._table.device
        symbol = torch.full((size, self.max_words), PAD, device=device)
        parent = torch.full_like(symbol, self.num_labels)
        symbol[:, 0] = self.root.draw(torch.zeros_like(symbol[:, 0]), generator)
        rounds = []
        while (grows := self._is_label(symbol)).any():
            grown, grown_parent, first_child = self._grow(symbol, parent, grows, generator)
            rounds.append((symbol, first_child))
            symbol, parent = grown, grown_parent
        length = (symbol >= 0).sum(-1)
        keep = (length >= self.min_words).nonzero().squeeze(-1)
        symbol = symbol[keep]
        nodes = self._nodes([(s[keep], child[keep]) for s, child in rounds], length[keep])
        x = torch.full_like(symbol, PAD)
        is_word = symbol >= 0
        x[is_word] = self.emission.draw(symbol[is_word] - self.num_labels, generator)
        return x, tree_state(nodes)

    def _grow(
        self, symbol: Tensor, parent: Tensor, grows: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Replaces nonterminals by their children; rows that get too long become empty.

        Returns:
            The new symbols and their parents' labels, int64 `[b, N]` each, and where the first
            (or only) symbol that stands for each old one is, int64 `[b, N]`.
        """
        width = (symbol >= 0).long() + grows
        end = width.cumsum(-1)
        alive = end[:, -1:] <= self.max_words
        grows = grows & alive
        first_child = (end - width).clamp_max(self.max_words - 1)
        label = symbol[grows]
        side = parent[grows] * self.num_labels + label if self.conditioned else label
        first = self.left.draw(side, generator)
        second = self.right_given_left[side * self.num_symbols + first]
        second = torch.multinomial(second, 1, generator=generator).squeeze(-1)
        # The child on the left, or the symbol itself where it stays.
        left, left_parent, right = symbol.clone(), parent.clone(), symbol.clone()
        left[grows], right[grows] = first, second
        left_parent[grows] = label
        # One place more takes what is not there.
        grown = symbol.new_full((len(symbol), self.max_words + 1), PAD)
        grown_parent = torch.full_like(grown, self.num_labels)
        there = (symbol >= 0) & alive
        for place, child in ((first_child, left), (first_child + 1, right)):
            place = place.where(there, self.max_words)
            grown.scatter_(1, place, child)
            grown_parent.scatter_(1, place, left_parent)
            there = grows
        return grown[:, :-1], grown_parent[:, :-1], first_child

    def _nodes(self, rounds: list[tuple[Tensor, Tensor]], length: Tensor) -> TreeNodes:
        """Reads the spans of all nonterminals off the rounds, the last one first.

        After the last round the symbol at place i is word i. Before it, a symbol's span begins
        where its first child's does and ends where the next symbol's begins.
        """
        num_rows, side = len(length), self.max_words + 1
        ends = torch.arange(side, device=length.device).minimum(length[:, None])
        # One gap more takes what is not there.
        label, left, right = length.new_full((3, num_rows, side), UNSET).unbind()
        for symbol, first_child in reversed(rounds):
            begins = ends.gather(1, first_child)
            second = ends.gather(1, first_child + 1)
            begins = torch.where(symbol >= 0, begins, length[:, None])
            ends = torch.cat([begins, length[:, None]], 1)
            gap = (second - 1).where(self._is_label(symbol), self.max_words)
            label.scatter_(1, gap, symbol)
            left.scatter_(1, gap, begins)
            right.scatter_(1, gap, ends[:, 1:])
        gaps = self.max_words - 1
        return TreeNodes(label[:, :gaps], left[:, :gaps], right[:, :gaps])

    def _is_label(self, symbol: Tensor) -> Tensor:
        """Says which symbols are nonterminals."""
        return (symbol >= 0) & (symbol < self.num_labels)
