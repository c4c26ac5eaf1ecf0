"""Every labelled binary tree of a few words, made by recursion over splits."""

from itertools import product

import torch


def shapes(left, right):
    """Lists the shapes over a span: each is a dict from gap to span."""
    if right - left == 1:
        return [{}]
    return [
        {split - 1: (left, right), **before, **behind}
        for split in range(left + 1, right)
        for before, behind in product(shapes(left, split), shapes(split, right))
    ]


def all_trees(words, labels, max_words=None):
    """Lists the trees of `words` words as states, int64 `[Z, 3 (max_words - 1)]`."""
    gaps = (max_words or words) - 1
    states = []
    for shape in shapes(0, words):
        for drawn in product(range(labels), repeat=words - 1):
            state = torch.full((3, gaps), -1)
            for gap, (left, right) in shape.items():
                state[:, gap] = torch.tensor([drawn[gap], left, right])
            states.append(state.flatten())
    return torch.stack(states)
