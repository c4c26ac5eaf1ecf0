"""Gibbs moves on trees against log joints and every tree."""

import pytest
import torch

from gfn_envs.binary_tree import tree_nodes
from lvms import EnumeratedPosterior
from lvms.grammars.rules import PAD, GrammarRules
from lvms.grammars.table_grammar import TableGrammar
from lvms.grammars.tree_gibbs import TreeGibbs
from lvms.grammars.tree_moves import draw_edge, num_nodes, parent_of, turn_edge
from tests.algorithms.statistics import assert_drawn_from

CHAINS = 10_000


def grammar(parent, nonterminals=2, max_words=4):
    return TableGrammar(nonterminals, 3, 5, max_words, parent=parent, seed=3)


def sentences(model, lengths):
    x = torch.randint(
        model.vocabulary,
        (len(lengths), model.max_words),
        generator=torch.Generator().manual_seed(0),
    )
    return torch.where(torch.arange(model.max_words) < torch.tensor(lengths)[:, None], x, PAD)


def random_trees(model, x, generator):
    trees = [model.env.enumerate(context) for context in model.context(x)]
    picks = [torch.randint(len(z), (), generator=generator) for z in trees]
    return torch.stack([z[pick] for z, pick in zip(trees, picks, strict=True)])


@torch.no_grad()
@pytest.mark.parametrize("parent", [False, True])
def test_scores_are_log_joints_up_to_a_constant(parent):
    model = grammar(parent, nonterminals=3, max_words=6)
    generator = torch.Generator().manual_seed(1)
    x = sentences(model, [2, 3, 4, 5, 6] * 20)
    gibbs = TreeGibbs(model.rules(), x)
    z = random_trees(model, x, generator)
    lower = draw_edge(z, generator)
    upper = parent_of(z, lower)
    row, ways = torch.arange(len(z)), []
    for trees, low, high in ((z, lower, upper), (turn_edge(z, lower, upper), upper, lower)):
        score = gibbs.score(trees, low, high)
        expected = torch.full_like(score, -torch.inf)
        for above in range(3):
            for below in range(3):
                candidate = trees.clone()
                label = tree_nodes(candidate).label
                label[row, high], label[row, low] = above, below
                expected[:, above, below] = model.log_joint(x, candidate)
        # Two words have one label, not two.
        expected[num_nodes(z) == 1] += torch.where(torch.eye(3) == 1, 0.0, -torch.inf)
        ways.append((score, expected))
    score, expected = (torch.stack(parts, 1).flatten(1) for parts in zip(*ways, strict=True))
    torch.testing.assert_close(
        score.log_softmax(-1), expected.log_softmax(-1), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("words", [2, 3, 4])
def test_moves_leave_the_posterior_invariant_and_arrive_there(parent, words):
    model = grammar(parent)
    x = sentences(model, [words])
    exact = EnumeratedPosterior(model)
    structures, log_posterior = exact.structures(x), exact.log_posterior_table(x)[0]
    generator = torch.Generator().manual_seed(words)
    gibbs = TreeGibbs(model.rules(), x.expand(CHAINS, -1))
    z = exact.sample_posterior(x, CHAINS, generator)[0]
    moved = gibbs.move(z, generator)
    assert (moved != z).any()
    assert_drawn_from(moved, structures, log_posterior)
    z = structures[:1].repeat(CHAINS, 1)
    for _ in range(25):
        z = gibbs.move(z, generator)
    assert_drawn_from(z, structures, log_posterior)


@torch.no_grad()
def test_shapes_may_have_a_score_of_their_own():
    model = grammar(parent=False)
    x = sentences(model, [4])
    structures = model.env.enumerate(model.context(x)[0])

    def score(z):
        return tree_nodes(z).right[:, 0].float()

    generator = torch.Generator().manual_seed(0)
    gibbs = TreeGibbs(model.rules(), x.expand(CHAINS, -1))
    z = structures[:1].repeat(CHAINS, 1)
    for _ in range(25):
        z = gibbs.move(z, generator, score)
    log_joint = model.log_joint(x.expand(len(structures), -1), structures) + score(structures)
    assert_drawn_from(z, structures, log_joint.log_softmax(0))


def test_chains_leave_impossible_trees():
    """S -> 0, 0 -> 1 1 over three words or more is impossible; only 0 -> P 0 and 0 -> P P are."""
    binary = torch.full((2, 3, 3), -torch.inf)
    binary[0, 2, 0] = binary[0, 2, 2] = torch.tensor(0.5).log()
    binary[1, 2, 2] = 0.0
    root = torch.tensor([0.0, -torch.inf])
    rules = GrammarRules(root, binary, torch.zeros(1, 1))
    env = grammar(parent=False).env
    z = env.enumerate(torch.tensor([4]))
    gibbs = TreeGibbs(rules, torch.zeros(len(z), 4, dtype=torch.int64))
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        z = gibbs.move(z, generator)
    right_branching = torch.tensor([0, 0, 0, 0, 1, 2, 4, 4, 4])
    assert (z == right_branching).all()
