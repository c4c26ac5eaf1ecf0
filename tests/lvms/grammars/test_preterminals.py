"""Preterminals given the tree, against all ways to assign them."""

import itertools

import pytest
import torch

from lvms.grammars.preterminals import likeliest_preterminals, sample_preterminals
from lvms.grammars.rules import PAD, GrammarRules
from tests.algorithms.statistics import assert_drawn_from
from tests.lvms.grammars.brute_force import all_trees, random_rules, random_sentences, spans_of


def log_joint_of_tags(rules, sentence, tree):
    """log p(x, z, preterminals) for every assignment, node by node as the definition says."""
    words = sentence[sentence >= 0].tolist()
    label = {(i, j): a for i, j, a in spans_of(tree)}
    middle = {(i, j): g + 1 for g, (i, j) in enumerate(tree.view(3, -1)[1:].T.tolist()) if i >= 0}
    tags = list(itertools.product(range(rules.preterminals), repeat=len(words)))
    root = rules.root[label[0, len(words)]].item()
    scores = []
    for assignment in tags:
        symbol = label | {(i, i + 1): rules.nonterminals + tag for i, tag in enumerate(assignment)}

        def score(i, j, parent, symbol=symbol, assignment=assignment):
            if j - i == 1:
                return rules.emission[assignment[i], words[i]].item()
            k = middle[i, j]
            table = rules.binary[parent] if rules.conditioned_on_parent else rules.binary
            own = symbol[i, j]
            rule = table[own, symbol[i, k], symbol[k, j]].item()
            return rule + score(i, k, own) + score(k, j, own)

        scores.append(root + score(0, len(words), rules.nonterminals))
    return torch.tensor(tags), torch.tensor(scores)


def cases(parent, seed):
    """Sentences with a few of their trees each, as aligned rows."""
    rules = random_rules(2, 2, seed=seed, parent=parent)
    sentences = random_sentences([5, 2, 4, 3], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, z = [], []
    for sentence in sentences:
        trees, _ = all_trees(rules, sentence)
        chosen = torch.randperm(len(trees), generator=generator)[:3]
        z.append(trees[chosen])
        x.append(sentence.expand(len(chosen), -1))
    return rules, torch.cat(x), torch.cat(z)


@pytest.mark.parametrize("parent", [False, True])
def test_preterminals_are_drawn_from_their_posterior(parent):
    rules, x, z = cases(parent, seed=11)
    k = 3000
    drawn = sample_preterminals(
        rules, x.repeat_interleave(k, 0), z.repeat_interleave(k, 0),
        torch.Generator().manual_seed(11),
    )  # fmt: skip
    for rows, sentence, tree in zip(drawn.view(len(x), k, -1), x, z, strict=True):
        tags, log_joint = log_joint_of_tags(rules, sentence, tree)
        n = tags.shape[1]
        assert (rows[:, n:] == PAD).all()
        assert_drawn_from(rows[:, :n], tags, log_joint.log_softmax(0))


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_no_preterminals_are_likelier(parent, seed):
    rules, x, z = cases(parent, seed)
    found = likeliest_preterminals(rules, x, z)
    for row, sentence, tree in zip(found, x, z, strict=True):
        tags, log_joint = log_joint_of_tags(rules, sentence, tree)
        assert row[: tags.shape[1]].tolist() == tags[log_joint.argmax()].tolist()


def test_all_assignments_together_are_the_joint_with_the_tree():
    """Holds this file's definition to that of `all_trees`."""
    rules = random_rules(2, 3, seed=12)
    sentence = random_sentences([4], seed=12)[0]
    trees, log_joint = all_trees(rules, sentence)
    _, of_tags = log_joint_of_tags(rules, sentence, trees[5])
    torch.testing.assert_close(of_tags.logsumexp(0), log_joint[5].to(of_tags.dtype))


def test_impossible_preterminals_are_never_drawn():
    rules, x, z = cases(parent=False, seed=13)
    emission = rules.emission.clone()
    emission[0, :] = -1e30
    rules = GrammarRules(rules.root, rules.binary, emission)
    tags = sample_preterminals(rules, x, z, torch.Generator().manual_seed(0))
    assert (tags[x >= 0] == 1).all()
