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
from lvms.grammars.rules import same_words
from lvms.grammars.table_grammar import TableGrammar
from lvms.grammars.tree_moves import TreeMoves
from lvms.grammars.tree_score import tree_log_prob
from tests.algorithms.statistics import assert_drawn_from, structure_counts


def make(temperature=2.0, spread=1.5, max_words=5, tree="bottom-up", parent=False, **settings):
    """An energy grammar whose energies matter."""
    grammar = TableGrammar(2, 3, 4, max_words, tree=tree, parent=parent, seed=1)
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


def tree_prior(model, words):
    """Every tree of n words: log p_grammar(z), words summed out, and -E / T, with gradients."""
    trees = model.env.enumerate(torch.tensor([words]))
    x = same_words(torch.tensor([words]), model.grammar.max_words).expand(len(trees), -1)
    log_prob = tree_log_prob(model.grammar.rules().without_words(), x, trees)
    return trees, log_prob, -model.energy(trees) / model.temperature


def exact_log_prob(model, sentence):
    """log p(x) by enumeration, lengths as the grammar's, differentiable in energies too."""
    trees, log_prob, shape_score = tree_prior(model, int((sentence >= 0).sum()))
    given_x = model.grammar.log_joint(sentence.expand(len(trees), -1), trees) + shape_score
    given_n = log_prob + shape_score
    return given_x.logsumexp(0) - given_n.logsumexp(0) + log_prob.logsumexp(0)


def variance_of_gradient(model, part, words):
    """That of one tree's gradient under p(z | n), summed over a part's parameters."""
    _, log_prob, shape_score = tree_prior(model, words)
    total = log_prob + shape_score
    prior, parameters = total.softmax(0).detach(), list(part.parameters())
    rows = []
    for value in total:
        parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in parts if g is not None]))
    gradient = torch.stack(rows)
    return prior @ (gradient - prior @ gradient).square().sum(1)


@pytest.mark.parametrize("parent", [False, True])
def test_contrast_with_the_model_has_the_exact_gradient_of_the_likelihood(parent):
    model = make(temperature=2.0, parent=parent, chains=4000, moves=40, contrast="model")
    x, weight = torch.tensor([[0, 3, 1, 2, -1], [1, 1, 0, 2, 3]]), torch.tensor([0.6, 0.4])
    loss, expected, states, shares = 0.0, 0.0, [], []
    for row, share in zip(x, weight, strict=True):
        exact = EnumeratedPosterior(model)
        log_joint = exact.log_joint_table(row[None])[0]
        states.append(exact.structures(row[None]))
        shares.append(share * log_joint.detach().softmax(0))
        loss = loss - shares[-1] @ log_joint
        expected = expected - share * exact_log_prob(model, row)
    without = loss
    generator = torch.Generator().manual_seed(1)
    loss = loss + model.contrastive_loss(torch.cat(states), torch.cat(shares), generator)
    for part in (model.energy, model.grammar):
        gradients = []
        for value in (loss, expected, without):
            model.zero_grad()
            value.backward(retain_graph=True)
            gradients.append(
                torch.cat(
                    [
                        torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                        for p in part.parameters()
                    ]
                )
            )
        variance = sum(
            share**2 * variance_of_gradient(model, part, words)
            for share, words in zip(weight, (4, 5), strict=True)
        )
        error = (variance / 4000).sqrt()  # of the mean over 4000 chains of each length
        assert (gradients[0] - gradients[1]).norm() < 4 * error
        assert (gradients[2] - gradients[1]).norm() > 8 * error


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
