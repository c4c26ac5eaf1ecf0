"""Labelled binary trees in plain Python: a word is its position, a node (label, left, right)."""

from hypothesis import strategies as st

UNSET, OPEN = -1, -2


def every_tree(num_words, labels, start=0):
    """Lists every tree over the words start .. start + num_words - 1."""
    if num_words == 1:
        return [start]
    return [
        (label, left, right)
        for split in range(1, num_words)
        for left in every_tree(split, labels, start)
        for right in every_tree(num_words - split, labels, start + split)
        for label in range(labels)
    ]


@st.composite
def trees(draw, max_words=8, labels=3, min_words=2):
    """A random tree and its number of words."""

    def grow(start, end):
        if end - start == 1:
            return start
        split = draw(st.integers(start + 1, end - 1))
        return draw(st.integers(0, labels - 1)), grow(start, split), grow(split, end)

    num_words = draw(st.integers(min_words, max_words))
    return grow(0, num_words), num_words


def span(tree):
    """The fenceposts before and behind a tree."""
    if isinstance(tree, int):
        return tree, tree + 1
    return span(tree[1])[0], span(tree[2])[1]


def gap(tree):
    """The gap that a node splits at."""
    return span(tree[1])[1] - 1


def nodes(tree):
    """Lists the nodes, from the left and from the root down."""
    if isinstance(tree, int):
        return []
    return [tree, *nodes(tree[1]), *nodes(tree[2])]


def as_state(tree, max_words):
    """The numbers of its state."""
    rows = [[UNSET] * (max_words - 1) for _ in range(3)]
    for node in nodes(tree):
        for row, value in zip(rows, (node[0], *span(node)), strict=True):
            row[gap(node)] = value
    return [value for row in rows for value in row]
