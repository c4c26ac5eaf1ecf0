"""The built-in grammars: as ambiguous, as long and as far from context-free as they say."""

import pytest
import torch

from gfn_envs import UserError
from lvms import EnumeratedPosterior, ExactPosterior
from lvms.grammars import PAD, GrammarRules, built_in_grammars, make_grammar, parent_inside
from lvms.grammars.inside import log_marginal

AMBIGUOUS = ["arithmetic", "attachment"]
PARENT = ["roles", "relay"]


def draw(built_in, count, seed=0):
    return built_in.grammar.sample(count, torch.Generator().manual_seed(seed))


def test_two_are_context_free_and_two_are_not():
    assert list(built_in_grammars) == AMBIGUOUS + PARENT
    for name in built_in_grammars:
        rules = make_grammar(name).grammar.rules()
        assert rules.conditioned_on_parent == (name in PARENT)


@pytest.mark.parametrize("name", built_in_grammars)
def test_sentences_are_short_and_made_of_what_has_a_name(name):
    built_in = make_grammar(name, max_words=30)
    model = built_in.grammar
    sizes = model.nonterminals, model.preterminals, model.vocabulary
    assert sizes == tuple(map(len, (built_in.labels, built_in.preterminals, built_in.words)))
    x, z = draw(built_in, 2000)
    model.check(x)
    length = (x != PAD).sum(-1).double()
    assert 5 < length.mean() < 8
    assert (length > 10).double().mean() < 0.2
    # Next to nothing was drawn of what is not written down: it costs 16 nats and more.
    assert (model.log_joint(x, z) / length < -8).sum() < 5
    assert model.env.is_complete(z, model.context(x)).all()


def test_sentences_can_be_read():
    built_in = make_grammar("roles")
    x, _ = draw(built_in, 200)
    sentences = [[built_in.words[i] for i in row.tolist() if i != PAD] for row in x]
    firsts = {"the", "this", "that", "each", "every", "some", "any", "no"}
    assert {sentence[0] for sentence in sentences} <= firsts
    shortest = {tuple(sentence) for sentence in sentences if len(sentence) == 3}
    assert ("this", "queen", "sings") in shortest


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_grammars_leave_many_trees_open(name):
    built_in = make_grammar(name)
    x, z = draw(built_in, 1000)
    best, _ = built_in.grammar.viterbi(x)
    wrong = (best != z).any(-1).double().mean()
    assert 0.1 < wrong < 0.3


def maximise(counts, dims):
    """The log-probabilities of relative frequencies; none is zero."""
    flat = counts.flatten(-dims) + 1e-3
    return (flat / flat.sum(-1, keepdim=True)).log().view_as(counts)


def context_free_nll(rules, x, held_out, steps):
    """What EM makes of a context-free grammar: held-out nats a word."""
    for _ in range(steps):
        tables = [table.detach().requires_grad_() for table in vars(rules).values()]
        log_marginal(GrammarRules(*tables), x).sum().backward()
        counts = [table.grad for table in tables]
        rules = GrammarRules(*(maximise(c, d) for c, d in zip(counts, (1, 2, 1), strict=True)))
    with torch.no_grad():
        return -(log_marginal(rules, held_out).sum() / (held_out != PAD).sum()).item()


@pytest.mark.parametrize("name", PARENT)
def test_no_context_free_grammar_of_the_same_symbols_comes_near(name):
    model = make_grammar(name).grammar
    (x, _), (held_out, _) = (model.sample(n, torch.Generator().manual_seed(n)) for n in (800, 801))
    truth = -(model.log_marginal(held_out).sum() / (held_out != PAD).sum()).item()
    # What a treebank gives: how often each label expands to what, whatever its parent.
    tables = [table.detach().requires_grad_() for table in vars(model.rules()).values()]
    parent_inside.log_marginal(GrammarRules(*tables), x).sum().backward()
    root, binary, emission = (table.grad for table in tables)
    treebank = GrammarRules(maximise(root, 1), maximise(binary.sum(0), 2), maximise(emission, 1))
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(table.shape, generator=generator) for table in vars(treebank).values()]
    random = GrammarRules(*(maximise(c, d) for c, d in zip(noise, (1, 2, 1), strict=True)))
    found = [context_free_nll(start, x, held_out, 25) for start in (treebank, random)]
    assert min(found) > truth + 0.25


@pytest.mark.parametrize("tree", ["bottom-up", "top-down"])
@pytest.mark.parametrize("name", ["attachment", "relay"])
def test_exact_posteriors_agree_with_enumeration(name, tree):
    model = make_grammar(name, max_words=5, tree=tree).grammar.double()
    assert isinstance(model, ExactPosterior)
    enumerated = EnumeratedPosterior(model)
    x, z = model.sample(40, torch.Generator().manual_seed(0))
    for length in (3, 4):
        which = model.context(x)[:, 0] == length
        some = x[which]
        torch.testing.assert_close(model.log_marginal(some), enumerated.log_marginal(some))
        got = model.posterior_log_prob(some, z[which])
        torch.testing.assert_close(got, enumerated.posterior_log_prob(some, z[which]))
        table, trees = enumerated.log_posterior_table(some), enumerated.structures(some)
        best, log_joint = model.viterbi(some)
        torch.testing.assert_close(log_joint - model.log_marginal(some), table.max(-1).values)
        torch.testing.assert_close(model.log_joint(some, best), log_joint)
        draws = model.sample_posterior(some, 200, torch.Generator().manual_seed(1))
        assert draws.shape == (len(some), 200, model.env.state_shape[0])
        sampled = model.posterior_log_prob(
            some.repeat_interleave(200, 0), draws.flatten(0, 1)
        ).view(-1, 200)
        entropy = -(table.exp() * table).sum(-1)
        error = sampled.std(-1) / 200**0.5
        assert ((-sampled.mean(-1) - entropy).abs() < 5 * error + 1e-3).all()
        spans = model.span_marginals(some)
        torch.testing.assert_close(spans.sum((1, 2, 3)), torch.full_like(entropy, length - 1))
        assert model.env.is_complete(model.mbr(some), model.context(some)).all()
        assert len(trees) == model.env.num_structures(torch.tensor([length]))


def test_an_unknown_grammar_gets_a_clear_line():
    with pytest.raises(UserError, match="no grammar 'atachment'"):
        make_grammar("atachment")
    with pytest.raises(UserError, match="max_words"):
        make_grammar("relay", max_words=1)
