"""Grammars as tasks of posterior sampling: sentences of one length, and what makes each hard."""

import pytest
import torch

from gfn_envs import UserError
from lvms import EnumeratedPosterior
from lvms.grammars import Grammar
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.models import models, observations

TINY = ("pcfg-tiny", "ncfg-tiny", "energy-tiny")


def total_variation(log_p, log_q):
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def posterior(model, x):
    return EnumeratedPosterior(model).log_posterior_table(x).detach()


@pytest.mark.parametrize(("name", "words"), [*((name, 5) for name in TINY), ("pcfg-small", 6)])
def test_all_observations_have_the_same_trees(name, words):
    model = models.make(name)
    x = observations(model, 50)
    assert x.shape == (50, words)
    assert (model.context(x) == words).all()
    catalan = {5: 14, 6: 42}[words]
    assert EnumeratedPosterior(model).structures(x).shape == (
        catalan * 3 ** (words - 1),
        3 * (words - 1),
    )


@pytest.mark.parametrize("name", TINY)
def test_both_orders_have_the_same_posterior(name):
    fixed, any_order = (models.make(name, 2, order) for order in ("fixed", "any"))
    x, z = fixed.sample(20, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fixed.log_joint(x, z), any_order.log_joint(x, z))


@pytest.mark.parametrize("seed", range(40))
def test_every_seed_has_sentences_of_that_length(seed):
    for name in ("pcfg-tiny", "pcfg-small", "ncfg-tiny"):
        model: Grammar = models.make(name, seed)
        assert len(observations(model, 8)) == 8


@pytest.mark.parametrize("seed", [0, 1])
def test_the_parent_matters_and_so_does_the_shape(seed):
    grammar = models.make("ncfg-tiny", seed)
    assert grammar.rules().conditioned_on_parent
    energies: EnergyGrammar = models.make("energy-tiny", seed)
    x = observations(energies, 32)
    away = total_variation(posterior(energies, x), posterior(energies.grammar, x))
    assert away.mean() > 0.2


def test_an_unknown_order_gets_a_clear_line():
    with pytest.raises(UserError, match=r"no order 'bottom-up'"):
        models.make("pcfg-tiny", 0, "bottom-up")
