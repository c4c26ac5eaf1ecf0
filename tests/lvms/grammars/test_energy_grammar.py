"""Grammars with energies of shapes: joints, dreams, contrast, and learning with a true prior."""

from copy import deepcopy

import pytest
import torch

from algorithms.grammar_gibbs import GrammarGibbs
from algorithms.markov_kernel import SymmetricMetropolis
from algorithms.monte_carlo_em import MonteCarloEM
from algorithms.schedule import Linear
from gfn_envs import UserError
from gfn_envs.binary_tree import tree_nodes
from lvms import ContrastivePrior, EnumeratedPosterior, ExactPosterior, HiddenMarkovModel
from lvms.grammars.energy_grammar import CONTRASTS, EnergyGrammar
from lvms.grammars.rules import GrammarRules
from lvms.grammars.table_grammar import TableGrammar
from lvms.grammars.tree_moves import TreeMoves
from lvms.grammars.tree_score import tree_log_prob
from tests.algorithms.statistics import assert_drawn_from, structure_counts


def make(temperature=2.0, spread=1.5, max_words=5, tree="bottom-up", **settings):
    """An energy grammar whose energies matter."""
    grammar = TableGrammar(2, 3, 4, max_words, tree=tree, seed=1)
    generator = torch.Generator().manual_seed(0)
    model = EnergyGrammar(grammar, temperature, size=8, generator=generator, **settings)
    with torch.no_grad():
        model.energy.contribution.weight.normal_(std=spread, generator=generator)
    return model


@pytest.mark.parametrize("tree", ["bottom-up", "top-down"])
def test_shapes_weigh_in_and_energies_learn_from_contrast_alone(tree):
    model = make(tree=tree)
    x, z = model.grammar.sample(30, torch.Generator().manual_seed(0))
    log_joint = model.log_joint(x, z)
    torch.testing.assert_close(log_joint, model.grammar.log_joint(x, z) - model.energy(z) / 2)
    torch.testing.assert_close(model.log_partial(x, z), log_joint)
    state = model.env.initial_state.expand(30, -1)
    action = model.env.forward_mask(state, model.context(x)).long().argmax(1)
    state = model.env.step(state, action, model.context(x))
    unfinished = model.context(x).squeeze(1) > 2
    assert unfinished.any()
    torch.testing.assert_close(
        model.log_partial(x, state)[unfinished], model.grammar.log_partial(x, state)[unfinished]
    )
    log_joint.sum().backward()
    assert all(parameter.grad is None for parameter in model.energy.parameters())
    model.zero_grad(set_to_none=True)
    model.contrastive_loss(z, torch.full((30,), 1 / 30)).backward()
    assert all(parameter.grad is None for parameter in model.grammar.parameters())
    assert isinstance(model, ContrastivePrior)
    assert not isinstance(model, ExactPosterior)


@torch.no_grad()
@pytest.mark.parametrize("tree", ["bottom-up", "top-down"])
def test_dreams_have_the_lengths_of_the_grammar_and_shapes_of_the_energy(tree):
    model = make(spread=4.0, max_words=4, tree=tree)
    generator = torch.Generator().manual_seed(2)
    draws = [model.sample(100, generator) for _ in range(60)]
    x, z = (torch.cat(parts) for parts in zip(*draws, strict=True))
    length = model.context(x).squeeze(1)
    plain = model.context(model.grammar.sample(6000, generator)[0]).squeeze(1)
    for words in (2, 3, 4):
        share, expected = (length == words).float().mean(), (plain == words).float().mean()
        assert abs(share - expected) < 5 * (2 * 0.25 / 6000) ** 0.5
    # All sentences of four words there are, with all their trees: shapes by their true weight.
    words = torch.cartesian_prod(*[torch.arange(4)] * 4)
    trees = model.env.enumerate(torch.tensor([4]))
    log_joint = model.log_joint(words.repeat_interleave(len(trees), 0), trees.repeat(len(words), 1))
    log_prob = log_joint.view(len(words), len(trees)).logsumexp(0).log_softmax(0)
    counts = structure_counts(z[length == 4], trees)
    shape = tree_nodes(trees).left @ torch.tensor([1, 10, 100])
    total = counts.sum()
    plain_prob = model.grammar.log_joint(
        words.repeat_interleave(len(trees), 0), trees.repeat(len(words), 1)
    )
    plain_prob = plain_prob.view(len(words), len(trees)).logsumexp(0).log_softmax(0)
    away = 0.0
    for which in shape.unique():
        share = counts[shape == which].sum() / total
        true, untilted = (p[shape == which].exp().sum() for p in (log_prob, plain_prob))
        away = max(away, (true - untilted).abs().item())
        # Binomial, and the bias of 16 candidates an observation.
        assert abs(share - true) < 0.03 + 5 * (0.25 / total) ** 0.5
    assert away > 0.15


@torch.no_grad()
@pytest.mark.parametrize("kernel", [GrammarGibbs(60), SymmetricMetropolis(TreeMoves(2), 150)])
@pytest.mark.parametrize("energies", [False, True])
def test_kernels_arrive_at_the_posterior(kernel, energies):
    model = make(temperature=1.0) if energies else make().grammar
    x = torch.tensor([[0, 3, 1, 2, -1]])
    exact = EnumeratedPosterior(model)
    structures = exact.structures(x)
    z = structures[:1].repeat(5000, 1)
    moved = kernel.move(model, x.expand(5000, -1), z, torch.Generator().manual_seed(0))
    assert_drawn_from(moved.z, structures, exact.log_posterior_table(x)[0])
    assert 0.1 < moved.acceptance < 1
    gibbs = isinstance(kernel, GrammarGibbs)
    assert moved.evaluations == 5000 * (60 * 2 * 2**2 if gibbs else 151)


def learner(model, **settings):
    settings = {"num_updates": 8, "rounds": 4, "batch_size": 12, **settings}
    generator = torch.Generator().manual_seed(3)
    return MonteCarloEM(model, GrammarGibbs(3), generator=generator, **settings)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_resumed_run_goes_on_with_its_shapes_and_its_temperature(contrast):
    x, _ = make().grammar.sample(30, torch.Generator().manual_seed(0))
    settings = {"chains": 4, "moves": 2, "contrast": contrast}
    whole, first, second = (learner(make(Linear(1.0, 9.0, 16).at, **settings)) for _ in range(3))
    logged = [whole.update(x) for _ in range(4)]
    assert [first.update(x) for _ in range(2)] == logged[:2]
    second.load_state_dict(deepcopy(first.state_dict()))
    assert [second.update(x) for _ in range(2)] == logged[2:]
    for name, value in whole.model.state_dict().items():
        same = second.model.state_dict()[name]
        assert value == same if isinstance(value, int) else torch.equal(value, same), name
    assert whole.model.temperature == second.model.temperature == 5.0


def test_rules_are_never_those_of_before_an_update():
    x, _ = make().grammar.sample(30, torch.Generator().manual_seed(0))
    learned = learner(make(chains=4, moves=2, contrast="model"))
    learned.update(x)
    with torch.no_grad():
        kept, fresh = learned.model.grammar.rules(), learned.model.grammar._tables()
    assert torch.equal(kept.binary, fresh.binary)


@torch.no_grad()
def tree_prior(model, words):
    """log p(z | n) of every tree, words summed out, by enumeration."""
    rules = model.grammar.rules()
    rules = GrammarRules(rules.root, rules.binary, torch.zeros(rules.preterminals, 1))
    trees = model.env.enumerate(torch.tensor([words]))
    x = torch.where(torch.arange(model.grammar.max_words) < words, 0, -1)
    log_prob = tree_log_prob(rules, x.expand(len(trees), -1), trees)
    return trees, (log_prob + model.shape_score(trees)).log_softmax(0)


def test_contrast_with_the_model_has_the_exact_gradient():
    model = make(temperature=2.0, chains=4000, moves=40, contrast="model")
    data = torch.cat([model.env.enumerate(torch.tensor([n]))[5:8] for n in (4, 5)])
    weight = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.2, 0.1])
    expected = weight @ model.energy(data) / 2
    for words, mass in ((4, 0.6), (5, 0.4)):
        trees, log_prob = tree_prior(model, words)
        expected = expected - mass * (log_prob.exp() @ model.energy(trees)) / 2
    gradients = []
    for loss in (
        model.contrastive_loss(data, weight, torch.Generator().manual_seed(1)),
        expected,
    ):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.energy.parameters()]))
    # 4000 chains of each length: 1.6 % of the spread of a gradient.
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


def test_contrast_with_the_model_raises_the_likelihood_to_that_of_the_truth():
    """Energies are learned from sentences alone, beside a grammar that is known."""
    truth = make(temperature=1.0, spread=8.0, max_words=4)
    with torch.no_grad():
        truth.grammar.emission_logits.mul_(3)
        truth.grammar.binary_logits.mul_(3)
    x = torch.cartesian_prod(*[torch.arange(4)] * 4)

    @torch.no_grad()
    def log_prob(model):
        """log p(x | n) of every sentence of four words."""
        return EnumeratedPosterior(model).log_marginal(x).log_softmax(0)

    target = log_prob(truth).exp()
    generator = torch.Generator().manual_seed(4)
    data = x[torch.multinomial(target, 2000, replacement=True, generator=generator)]
    model = EnergyGrammar(
        deepcopy(truth.grammar), size=8, chains=64, moves=5, contrast="model", generator=generator
    )
    for parameter in model.grammar.parameters():
        parameter.requires_grad_(False)
    before = target @ (log_prob(truth) - log_prob(model))
    learner(model, num_updates=140, rounds=1, batch_size=64, model_rate=1e-2).update(data)
    after = target @ (log_prob(truth) - log_prob(model))
    assert before > 0.2
    assert after < 0.3 * before


def test_starting_anew_forgets_energies():
    model = make(max_words=4)
    x, z = model.grammar.sample(20, torch.Generator().manual_seed(0))
    model.start_at_data(x, torch.Generator().manual_seed(1))
    assert (model.energy(z) == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"temperature": Linear(0.0, 1.0, 5).at},
        {"chains": 0},
        {"moves": 0},
    ],
)
def test_wrong_numbers_are_refused(settings):
    with pytest.raises(UserError, match="EnergyGrammar needs"):
        make(**settings)


def test_a_wrong_contrast_is_refused():
    with pytest.raises(UserError, match="shapes"):
        make(contrast="shape")


def test_gibbs_moves_need_a_grammar():
    model = HiddenMarkovModel(3, 2)
    x, z = model.sample(2)
    with pytest.raises(UserError, match="need a Grammar; got a HiddenMarkovModel"):
        GrammarGibbs(1).move(model, x, z)
    with pytest.raises(UserError, match="at least 1 move"):
        GrammarGibbs(0)
