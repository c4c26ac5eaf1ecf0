"""Every labelled binary tree of a few words."""

import torch

from gfn_envs.bottom_up_tree import BottomUpTree


def all_trees(words, labels, max_words=None):
    """Lists the trees of `words` words as states, int64 `[Z, 3 (max_words - 1)]`."""
    return BottomUpTree(max_words or words, labels).enumerate(torch.tensor([words]))
