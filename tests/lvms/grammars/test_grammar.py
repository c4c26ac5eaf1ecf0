"""Joints, partial joints and dreams of grammars against brute force, and how learning starts."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import UserError
from gfn_envs.binary_tree import tree_nodes
from lvms import LatentVariableModel, PartialJoint, StartAtData
from lvms.grammars.ancestral_sampling import sample_trees
from lvms.grammars.neural_grammar import NeuralNCFG, NeuralPCFG
from lvms.grammars.rules import PAD, GrammarRules
from lvms.grammars.table_grammar import TableGrammar
from lvms.grammars.tree_score import tree_log_prob
from tests.algorithms.statistics import assert_drawn_from
from tests.lvms.grammars.brute_force import all_trees, grammars

few = settings(max_examples=20, deadline=None)


def table_grammar(**kwargs):
    sizes = {"nonterminals": 2, "preterminals": 3, "vocabulary": 4, "max_words": 4}
    return TableGrammar(**{**sizes, **kwargs})


def neural(kind, **kwargs):
    sizes = {"vocabulary": 6, "max_words": 5, "nonterminals": 3, "preterminals": 4, "dim": 8}
    return kind(**{**sizes, **kwargs})


def complete_trees(model, num_words):
    return model.env.enumerate(torch.tensor([num_words]))


def words_of(row):
    return [word for word in row.tolist() if word >= 0]


# -- joints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [False, True])
@few
@given(st.data())
def test_joints_are_products_of_rules_with_preterminals_summed_out(parent, data):
    rules, x = data.draw(grammars(impossible=0.2, parent=parent))
    for sentence in x:
        z, expected = all_trees(rules, sentence)
        got = tree_log_prob(rules, sentence.expand(len(z), -1), z)
        torch.testing.assert_close(got, expected)


def test_joints_of_sentences_of_mixed_lengths_do_not_mix():
    model = table_grammar(parent=True, seed=2)
    x, z = model.sample(60, torch.Generator().manual_seed(0))
    together = model.log_joint(x, z)
    alone = torch.cat([model.log_joint(*pair) for pair in zip(x[:, None], z[:, None], strict=True)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("parent", [False, True])
def test_joints_have_gradients_in_all_tables(parent):
    model = table_grammar(parent=parent, seed=3).double()
    z = torch.cat([complete_trees(model, n)[::7] for n in (2, 3, 4)])
    generator = torch.Generator().manual_seed(0)
    length = (tree_nodes(z).label >= 0).sum(-1, keepdim=True) + 1
    x = torch.randint(model.vocabulary, (len(z), 4), generator=generator)
    x = x.where(torch.arange(4) < length, PAD)
    tables = [table.detach().requires_grad_() for table in vars(model.rules()).values()]
    assert torch.autograd.gradcheck(lambda *t: tree_log_prob(GrammarRules(*t), x, z), tables)
    model.log_joint(x, z).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


# -- partial joints -------------------------------------------------------------------------------


def rule_probability(rules, words, parent, label, first, second):
    """The probability of an expansion into labels or words, in plain Python.

    A child is ("word", position) or ("label", its label); the parent of the root is None.
    """
    labels = rules.nonterminals
    binary = rules.binary
    if rules.conditioned_on_parent:
        binary = binary[labels if parent is None else parent]

    def symbols(child):
        kind, value = child
        if kind == "label":
            return [(value, 1.0)]
        weight = rules.emission[:, words[value]].exp().tolist()
        return [(labels + p, weight[p]) for p in range(rules.preterminals)]

    return sum(
        math.exp(binary[label, b, c]) * weight * other
        for (b, weight), (c, other) in itertools.product(symbols(first), symbols(second))
    )


def hand_log_partial(rules, words, state):
    """The factors of a partial tree that are known, from the spans in plain Python."""
    n, total, labels, nodes = len(words), 0.0, {}, []
    label, left, right = (part[0].tolist() for part in tree_nodes(state[None]))
    for gap in range(len(label)):
        if label[gap] != -1:
            is_node = label[gap] >= 0
            labels[left[gap], right[gap]] = label[gap] if is_node else -2 - label[gap]
            if is_node:
                nodes.append((left[gap], gap + 1, right[gap]))
    parents = {(0, n): None}
    for start, split, end in nodes:
        parents[start, split] = parents[split, end] = labels[start, end]
    if (0, n) in labels:
        total += rules.root[labels[0, n]].item()
    for start, split, end in nodes:
        children = []
        for span in ((start, split), (split, end)):
            if span[1] - span[0] == 1:
                children.append(("word", span[0]))
            elif span in labels:
                children.append(("label", labels[span]))
        parent_known = (start, end) in parents or not rules.conditioned_on_parent
        if len(children) == 2 and parent_known:
            rule = parents.get((start, end)), labels[start, end], *children
            total += math.log(rule_probability(rules, words, *rule))
    return total


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("tree", ["bottom-up", "top-down"])
def test_partial_joints_count_what_is_known(tree, parent):
    model = table_grammar(tree=tree, parent=parent, seed=1).double()
    assert isinstance(model, PartialJoint)
    with torch.no_grad():
        rules = model.rules()
    for num_words, every in ((2, 1), (3, 1), (4, 9)):
        x = torch.tensor([[1, 3, 0, 2]]).where(torch.arange(4) < num_words, PAD)
        state = model.env.enumerate_states(torch.tensor([num_words]))[::every]
        got = model.log_partial(x.expand(len(state), -1), state)
        expected = [hand_log_partial(rules, words_of(x[0]), row) for row in state]
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))
        assert got[0] == 0  # nothing is known of the initial state
        complete = model.env.is_complete(state, torch.full((len(state), 1), num_words))
        x = x.expand(int(complete.sum()), -1)
        torch.testing.assert_close(got[complete], model.log_joint(x, state[complete]))


@pytest.mark.parametrize("parent", [False, True])
def test_a_batch_of_nothing_but_initial_states_has_no_rules(parent):
    model = table_grammar(parent=parent, seed=1)
    x, _ = model.sample(5, torch.Generator().manual_seed(0))
    assert not model.log_partial(x, model.env.initial_states(5)).any()


# -- dreams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [False, True])
def test_dreams_follow_the_joint(parent):
    model = TableGrammar(2, 2, 2, max_words=4, min_words=2, parent=parent, seed=5)
    outcomes, log_prob = [], []
    for n in (2, 3, 4):
        sentences = list(itertools.product(range(2), repeat=n))
        x = torch.tensor([[*words, *[PAD] * (4 - n)] for words in sentences])
        z = complete_trees(model, n)
        pairs = x.repeat_interleave(len(z), 0), z.repeat(len(x), 1)
        outcomes.append(torch.cat(pairs, -1))
        log_prob.append(model.log_joint(*pairs).detach())
    log_prob = torch.cat(log_prob)
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    model.check(x)
    # Of all sentences the grammar makes, those of 2 to 4 words were kept.
    assert_drawn_from(torch.cat([x, z], -1), torch.cat(outcomes), log_prob.log_softmax(-1))


def test_dreams_of_one_length_and_the_same_seed_are_alike():
    model = table_grammar(max_words=5, min_words=5, parent=True)
    x, z = model.sample(50, torch.Generator().manual_seed(1))
    assert (x >= 0).all()
    assert model.env.is_complete(z, model.context(x)).all()
    again = model.sample(50, torch.Generator().manual_seed(1))
    assert torch.equal(x, again[0])
    assert torch.equal(z, again[1])


def test_dreams_can_fill_a_long_sentence():
    # Every nonterminal has one word and one nonterminal below it, or two words.
    binary = torch.full((1, 2, 2), -60.0)
    binary[0, 1, 0], binary[0, 1, 1] = math.log(0.9), math.log(0.1)
    rules = GrammarRules(torch.zeros(1), binary, torch.zeros(1, 1))
    x, z = sample_trees(rules, 2000, 2, 40, torch.Generator().manual_seed(0))
    length = (x >= 0).sum(-1)
    assert length.max() > 35
    label, left, right = tree_nodes(z)
    assert (left.where(label >= 0, 0) == torch.arange(39).where(label >= 0, 0)).all()
    assert (right.where(label >= 0, length[:, None]) == length[:, None]).all()
    # Geometric, cut off at 40 words.
    kept = 1 - 0.9**39
    share = 0.1 / kept
    deviation = (share * (1 - share) / 2000) ** 0.5
    assert (length == 2).double().mean().item() == pytest.approx(share, abs=4 * deviation)


def test_a_grammar_without_short_sentences_is_a_user_error():
    binary = torch.full((1, 2, 2), -40.0)
    binary[0, 0, 0] = 0.0
    rules = GrammarRules(torch.zeros(1), binary, torch.zeros(1, 1))
    with pytest.raises(UserError, match=r"0 had 2 to 6 words; raise max_words"):
        sample_trees(rules, 3, 2, 6, torch.Generator().manual_seed(0))


# -- parameters -----------------------------------------------------------------------------------

KINDS = {
    "table": table_grammar,
    "table-parent": lambda **kwargs: table_grammar(parent=True, **kwargs),
    "pcfg": lambda **kwargs: neural(NeuralPCFG, **kwargs),
    "ncfg": lambda **kwargs: neural(NeuralNCFG, **kwargs),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rules_are_normalised_and_depend_on_every_parameter(kind):
    model = KINDS[kind]()
    rules = model.rules()
    assert rules.conditioned_on_parent == (kind in ("table-parent", "ncfg"))
    sizes = rules.nonterminals, rules.preterminals, rules.vocabulary
    assert sizes == (model.nonterminals, model.preterminals, model.vocabulary)
    for log_prob in (rules.root, rules.binary.flatten(-2), rules.emission):
        total = log_prob.logsumexp(-1)
        torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)
    generator = torch.Generator().manual_seed(0)
    tables = vars(rules).values()
    score = sum((t * torch.randn(t.shape, generator=generator)).sum() for t in tables)
    gradients = torch.autograd.grad(score, list(model.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_expansions_of_the_neural_ncfg_differ_with_the_parent():
    binary = neural(NeuralNCFG).rules().binary
    assert binary.shape == (4, 3, 7, 7)
    for a, b in itertools.combinations(binary, 2):
        assert (a - b).abs().max() > 0.05


def test_the_papers_sizes_are_the_default():
    model = NeuralPCFG(vocabulary=50, max_words=20)
    assert (model.nonterminals, model.preterminals, model.dim) == (29, 60, 256)
    # Rules start almost alike, but not quite.
    spread = model.rules().binary.std()
    assert 0.1 < spread < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_learning_starts_at_what_the_generator_says(kind):
    first, second = KINDS[kind](seed=1), KINDS[kind](seed=2)
    assert isinstance(first, StartAtData)
    assert isinstance(first, LatentVariableModel)
    x, _ = first.sample(5, torch.Generator().manual_seed(0))
    before = copy.deepcopy(first.state_dict())
    for model in (first, second):
        model.start_at_data(x, torch.Generator().manual_seed(7))
        assert model.version == 1
    for name, value in first.named_parameters():
        assert torch.equal(value, second.get_parameter(name))
        assert name.endswith("bias") or not torch.equal(value, before[name])


@pytest.mark.parametrize("kind", KINDS)
def test_rules_kept_for_an_e_step_follow_the_parameters(kind):
    model = KINDS[kind]()
    with torch.no_grad():
        kept = model.rules()
        assert model.rules() is kept
    assert not kept.binary.requires_grad
    assert model.rules().binary.requires_grad
    # Unlike others, a fused optimiser leaves the version counters of tensors as they are.
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    x, z = model.sample(20, torch.Generator().manual_seed(0))
    model.log_joint(x, z).sum().backward()
    saved = copy.deepcopy(model.state_dict())
    optimiser.step()
    with torch.no_grad():
        moved = model.rules()
    torch.testing.assert_close(moved.binary, model.rules().binary)
    assert (moved.binary - kept.binary).abs().max() > 1e-3
    with torch.no_grad():
        moved = model.rules()
        optimiser.step()
        model.mark_updated()
        assert (moved.binary - model.rules().binary).abs().max() > 1e-3
        model.load_state_dict(saved)
        assert torch.equal(model.rules().binary, kept.binary)
        assert torch.equal(copy.deepcopy(model).rules().binary, kept.binary)


# -- what a user may get wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[1, 4, 0, -1]]), "Word ids must be 0 to 3"),
        (torch.tensor([[1, -1, -1, -1]]), "at least two words"),
        (torch.tensor([[1, -1, 2, -1]]), "not inside it"),
        (torch.tensor([[1, 2, 1, 2, 1]]), r"int64 \[B, 4\]"),
        (torch.tensor([[1, 2, 1, 2]], dtype=torch.int32), r"int64 \[B, 4\]"),
        (torch.tensor([[1.0, 2.0, 1.0, 2.0]]), "must be word ids"),
        (torch.tensor([1, 2, 1, 2]), "must be word ids"),
        (torch.tensor([[1, 2, -1, -1]]), "at least 3 words; got one of 2"),
    ],
)
def test_wrong_sentences_are_user_errors(x, message):
    model = table_grammar(min_words=3)
    with pytest.raises(UserError, match=message):
        model.check(x)
    with pytest.raises(UserError, match=message):
        model.start_at_data(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nonterminals": 0}, "at least one nonterminal"),
        ({"vocabulary": 0}, "at least one nonterminal"),
        ({"max_words": 1}, "max_words"),
        ({"min_words": 9}, "min_words"),
        ({"tree": "bottom-down"}, "no tree environment 'bottom-down'. Did you mean"),
    ],
)
def test_wrong_sizes_are_user_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        table_grammar(**arguments)


def test_an_embedding_needs_a_size():
    with pytest.raises(UserError, match="dim, the size of an embedding"):
        neural(NeuralPCFG, dim=0)
