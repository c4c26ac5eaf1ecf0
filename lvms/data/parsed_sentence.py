"""A sentence with the tree that a treebank gives it."""

from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int, str]
"""A constituent: the fencepost before its first word, the one behind its last, and its label.

Fencepost i stands before word i. The label is empty where the treebank gives none.
"""

Spans = Sequence[Span]
"""The constituents of one sentence that have two words or more, the whole sentence among them."""


class ParsedSentence(NamedTuple):
    """A sentence as text.

    Attributes:
        words: In their order.
        spans: The gold constituents, or None where there is no gold tree.
    """

    words: tuple[str, ...]
    spans: Spans | None
