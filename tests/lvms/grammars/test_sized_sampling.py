"""Sentences of given lengths: they are distributed as the grammar's of that length."""

import itertools

import pytest
import torch

from gfn_envs.errors import UserError
from lvms.grammars.sized_sampling import sample_of_lengths
from lvms.grammars.table_grammar import TableGrammar


@pytest.mark.parametrize("parent", [False, True], ids=["context-free", "parent"])
def test_sentences_and_trees_follow_the_joint(parent: bool) -> None:
    model = TableGrammar(2, 2, 2, 4, parent=parent, seed=1)
    words = torch.tensor(list(itertools.product(range(2), repeat=3)))
    sentences = torch.cat([words, torch.full((len(words), 1), -1)], 1)
    trees = model.env.enumerate(torch.tensor([3]))
    x, z = sentences.repeat_interleave(len(trees), 0), trees.repeat(len(sentences), 1)
    num = 40_000
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = model.log_joint(x, z).softmax(0)
        drawn = sample_of_lengths(model.rules(), torch.full((num,), 3), 4, generator)
    pairs, count = torch.cat(drawn, 1).unique(dim=0, return_counts=True)
    found = (pairs[:, None] == torch.cat([x, z], 1)).all(-1)
    assert (found.sum(1) == 1).all()
    share = torch.zeros(len(x)).index_put((found.long().argmax(1),), count / num)
    # The mean of |share - p| is sqrt(2 p (1 - p) / (pi num)) each; so far off it hardly ever is.
    bound = 1.3 * (2 * expected * (1 - expected) / (torch.pi * num)).sqrt().sum()
    assert (share - expected).abs().sum() < bound


def test_lengths_are_those_asked_for() -> None:
    model = TableGrammar(3, 4, 5, 40, tree="top-down", seed=0)
    lengths = torch.tensor([2, 40, 7, 31])
    with torch.no_grad():
        x, z = sample_of_lengths(model.rules(), lengths, 40, torch.Generator().manual_seed(0))
    assert torch.equal((x >= 0).sum(1), lengths)
    assert model.env.is_complete(z, lengths[:, None]).all()
    assert model.log_joint(x, z).isfinite().all()


def test_a_length_that_the_grammar_does_not_make_is_refused() -> None:
    model = TableGrammar(1, 1, 2, 4, seed=0)
    with torch.no_grad():
        model.binary_logits[0, 0] = -1e30  # the left child is always a word,
        model.binary_logits[0, 1, 0] = -1e30  # and so is the right one
    model.mark_updated()
    with torch.no_grad(), pytest.raises(UserError):
        sample_of_lengths(model.rules(), torch.tensor([4]), 4)
