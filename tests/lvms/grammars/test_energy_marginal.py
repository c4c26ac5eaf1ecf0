"""Estimates of log p(x) with energies of shapes, and parses, against enumeration."""

import pytest
import torch

from gfn_envs import UserError
from lvms import EnumeratedPosterior
from lvms.grammars.annealed_trees import annealed_trees
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.energy_marginal import estimate_log_marginal, estimate_log_partition
from lvms.grammars.energy_parses import best_of, mbr_of, span_shares, weighted_trees
from lvms.grammars.mbr_tree import mbr_tree
from lvms.grammars.rules import same_words
from lvms.grammars.table_grammar import TableGrammar, without_words
from lvms.model import WeightedSamples
from tests.algorithms.statistics import assert_drawn_from

WORDS = torch.tensor([[0, 3, 1, 2, 2], [1, 1, 3, 0, -1], [0, 3, 2, 2, -1], [2, 0, -1, -1, -1]])


def make(parent=False, spread=4.0, tree="bottom-up"):
    """An energy grammar whose energies matter."""
    grammar = TableGrammar(2, 3, 4, 5, seed=1, parent=parent, tree=tree)
    generator = torch.Generator().manual_seed(0)
    model = EnergyGrammar(grammar, 1.0, size=8, generator=generator)
    with torch.no_grad():
        model.energy.contribution.weight.normal_(std=spread, generator=generator)
    return model


@torch.no_grad()
def exact_log_marginal(model, x):
    """log p(x) by the definition: how probable the length is times p(x | n), by enumeration."""
    found, every = [], EnumeratedPosterior(model)
    for sentence in x:
        words = int((sentence >= 0).sum())
        others = torch.cartesian_prod(*[torch.arange(4)] * words)
        rows = torch.full((len(others), 5), -1)
        rows[:, :words] = others
        of_length = every.log_marginal(rows).double().logsumexp(0)
        length = EnumeratedPosterior(model.grammar).log_marginal(rows).double().logsumexp(0)
        found.append(every.log_marginal(sentence[None]).double()[0] - of_length + length)
    return torch.stack(found)


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_log_marginals_are_those_of_enumeration(parent, steps):
    model = make(parent)
    exact, generator = exact_log_marginal(model, WORDS), torch.Generator().manual_seed(0)
    estimate = estimate_log_marginal(model, WORDS, 4000, steps, generator)
    away = estimate.log_marginal - exact
    assert (away.abs() < 4.5 * estimate.standard_error + 1e-5).all()
    assert (estimate.standard_error < 0.1).all()
    assert away.sum().abs() < 4.5 * estimate.error_of_sum
    with torch.no_grad():
        plain = model.grammar.log_marginal(WORDS)
    assert (plain - exact).abs().max() > 0.2  # without energies it would fail


def test_log_partitions_are_those_of_enumeration():
    model = make()
    exact = torch.cat([EnumeratedPosterior(model).log_marginal(row[None]) for row in WORDS])
    estimate = estimate_log_partition(model, WORDS, 4000, 1, torch.Generator().manual_seed(0))
    assert ((estimate.value - exact).abs() < 4.5 * estimate.standard_error + 1e-5).all()
    same = estimate_log_marginal(model, WORDS, 4000, 1, torch.Generator().manual_seed(0))
    assert torch.equal(same.log_partition, estimate.value)


def test_the_errors_are_those_of_repeated_estimates():
    # With weights as far apart as elsewhere here, errors of so few trees are underrated.
    model, generator = make(spread=0.5), torch.Generator().manual_seed(0)
    rows = WORDS[:1].repeat(30, 1)
    estimates = [estimate_log_marginal(model, rows, 50, 1, generator) for _ in range(300)]
    sums = torch.stack([one.log_marginal.sum() for one in estimates])
    claimed = torch.stack([one.error_of_sum for one in estimates]).square().mean().sqrt()
    # The spread of 300 numbers is known to 4 %.
    assert claimed.item() == pytest.approx(sums.std().item(), rel=0.16)
    # They share the estimate of their length, so their errors add up.
    alone = torch.stack([one.standard_error.square().sum() for one in estimates]).mean().sqrt()
    assert claimed > 1.3 * alone


def test_annealing_wastes_fewer_trees():
    model = make()
    shares = [
        estimate_log_partition(
            model, WORDS[:1], 2000, steps, torch.Generator().manual_seed(0)
        ).effective_samples
        for steps in (1, 100)
    ]
    assert shares[1] > 2 * shares[0]


@pytest.mark.parametrize("steps", [1, 6])
def test_weighted_trees_are_those_of_the_posterior(steps):
    model, generator = make(), torch.Generator().manual_seed(0)
    trees = weighted_trees(model, WORDS[1:2], 20_000, steps, generator)
    # Drawn anew by their weights they are drawn from the posterior, a tenth of them nearly
    # independent of each other.
    chosen = torch.multinomial(trees.log_w[0].exp(), 2000, replacement=True, generator=generator)
    exact = EnumeratedPosterior(model)
    structures = exact.structures(WORDS[1:2])
    with torch.no_grad():
        log_prob = exact.log_posterior_table(WORDS[1:2])[0]
    assert_drawn_from(trees.z[0, chosen], structures, log_prob)


@torch.no_grad()
def test_parses_are_those_of_enumeration():
    model = make()
    for row in WORDS:
        x, exact = row[None], EnumeratedPosterior(model)
        z = exact.structures(x)
        everything = WeightedSamples(z[None], exact.log_posterior_table(x))
        marginals = span_shares(everything, 2)
        # A tree of n words has n - 1 spans, the whole sentence one of them.
        length = int((row >= 0).sum())
        assert marginals.sum().item() == pytest.approx(length - 1, abs=1e-4)
        assert marginals[0, 0, length].sum().item() == pytest.approx(1, abs=1e-5)
        trees = weighted_trees(model, x, 4000, 1, torch.Generator().manual_seed(0))
        shares = span_shares(trees, 2)
        assert (shares - marginals).abs().max() < 5 * (0.25 / 1000) ** 0.5
        assert torch.equal(mbr_of(trees, x, 2), mbr_tree(marginals, x))
        best = z[exact.log_joint_table(x)[0].argmax()]
        assert torch.equal(best_of(model, trees, x)[0], best)


@pytest.mark.parametrize("parent", [False, True])
@torch.no_grad()
def test_a_grammar_without_words_knows_its_lengths_and_trees(parent):
    grammar = make(parent).grammar
    x = same_words(torch.tensor([2, 4]), 5)
    log_prob = without_words(grammar).log_marginal(x)
    for value, words in zip(log_prob, (2, 4), strict=True):
        rows = torch.full((4**words, 5), -1)
        rows[:, :words] = torch.cartesian_prod(*[torch.arange(4)] * words)
        assert value.item() == pytest.approx(
            grammar.log_marginal(rows).logsumexp(0).item(), abs=1e-5
        )


def test_numbers_below_one_are_refused():
    model = make()
    for samples, steps in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="at least 1 sample and 1 step"):
            annealed_trees(model.grammar, WORDS, model.shape_score, samples, steps)
