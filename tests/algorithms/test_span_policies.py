"""Policies that expand spans: whole trees, single actions and the grammars that they act by."""

import itertools

import pytest
import torch

from algorithms.chart_policy import ChartPolicy
from algorithms.policy_distribution import policy_log_probs
from algorithms.rollout import replay, rollout, score
from algorithms.sentence_encoder import span_number
from algorithms.span_balance import SpanBalance
from algorithms.span_policy import SpanPolicy
from algorithms.trajectory_batch import concatenate
from algorithms.tree_policies import tree_policies
from algorithms.vargrad import VarGrad
from gfn_envs.errors import UserError
from lvms.enumeration import EnumeratedPosterior
from lvms.grammars.context_free import without_parents
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.inside_chart import inside_chart, log_span_weights
from lvms.grammars.rules import GrammarRules
from lvms.grammars.table_grammar import TableGrammar

WORDS = 6


def make_grammar(parent: bool, words: int = WORDS, min_words: int = 2) -> TableGrammar:
    """Makes a grammar of 3 nonterminals, 2 preterminals and 5 words."""
    return TableGrammar(3, 2, 5, words, min_words, tree="top-down", parent=parent, seed=1)


def make_policy(model: TableGrammar | EnergyGrammar, name: str) -> SpanPolicy:
    """Makes a small policy whose heads are no longer zero."""
    torch.manual_seed(0)
    policy = tree_policies.make(name, model, embedding=4, encoder_size=5, hidden=6)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return policy


both = pytest.mark.parametrize("parent", [False, True], ids=["context-free", "parent"])
SPAN_POLICIES = ("chart", "neural", "neural-plain")
every = pytest.mark.parametrize("name", SPAN_POLICIES)


@every
@both
def test_what_is_drawn_is_scored_alike(name: str, parent: bool) -> None:
    model = make_grammar(parent)
    policy = make_policy(model, name)
    generator = torch.Generator().manual_seed(0)
    x, _ = model.sample(7, generator)
    rows = torch.arange(7).repeat_interleave(4)
    batch = rollout(model.env, policy, x, rows=rows, context=model.context(x), generator=generator)
    assert batch.log_pf is not None
    assert model.env.is_complete(batch.z, batch.context).all()
    drawn = batch.log_pf
    torch.testing.assert_close(score(model.env, policy, batch).log_pf, drawn)


@every
@both
def test_actions_one_by_one_agree_with_whole_trees(name: str, parent: bool) -> None:
    model = make_grammar(parent)
    policy = make_policy(model, name)
    x, z = model.sample(30, torch.Generator().manual_seed(0))
    context, rows, memory = model.context(x), torch.arange(30), policy.encode(x)
    actions, lengths = model.env.sample_trajectory_to(z, context)
    batch = replay(model.env, actions, lengths, x, rows, context)
    whole = policy.score_structures(z, memory, rows)
    for step, action in enumerate(actions):
        state = batch.states[step]
        logits = policy.logits(state, memory, rows)[:, :-1]
        legal = model.env.forward_mask(state, context)
        log_prob = logits.masked_fill(~legal, -torch.inf).log_softmax(-1)
        one = log_prob.gather(1, action.clamp_min(0)[:, None]).squeeze(1)
        torch.testing.assert_close(one.where(action >= 0, 0.0), whole[step])


@every
@both
def test_drawn_trees_follow_their_probabilities(name: str, parent: bool) -> None:
    model = make_grammar(parent, 4, 4)
    policy = make_policy(model, name)
    x = torch.tensor([[0, 3, 1, 2]])
    log_q = policy_log_probs(model.env, policy, x, torch.tensor([4]))[0]
    torch.testing.assert_close(log_q.exp().sum(), torch.tensor(1.0))
    num = 40_000
    generator = torch.Generator().manual_seed(0)
    z, _ = policy.draw_structures(policy.encode(x), torch.zeros(num, dtype=torch.int64), generator)
    structures = model.env.enumerate(torch.tensor([4]))
    distinct, count = z.unique(dim=0, return_counts=True)
    where = (structures[None] == distinct[:, None]).all(-1).float().argmax(1)
    share = torch.zeros(len(structures)).index_put((where,), count / num)
    expected = log_q.exp()
    # The mean of |share - p| is sqrt(2 p (1 - p) / (pi num)) each; so far off it hardly ever is.
    bound = 1.2 * (2 * expected * (1 - expected) / (torch.pi * num)).sqrt().sum()
    assert (share - expected).abs().sum() < bound


@every
def test_epsilon_and_temperature_flatten_what_is_drawn(name: str) -> None:
    model = make_grammar(False, 3, 3)
    policy = make_policy(model, name)
    x, rows = torch.tensor([[0, 3, 1]]), torch.zeros(20_000, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    memory = policy.encode(x)
    hot, _ = policy.draw_structures(memory, rows, generator, temperature=1e6)
    uniform, _ = policy.draw_structures(memory, rows, generator, epsilon=1.0)
    for z in (hot, uniform):
        # Three labels for the root, two splits, three labels for the wider part.
        _, count = z.unique(dim=0, return_counts=True)
        assert len(count) == 18
        assert (count / len(z) - 1 / 18).abs().max() < 5 * (1 / 18 / len(z)) ** 0.5
    greedy, _ = policy.draw_structures(memory, rows[:50], generator, temperature=1e-6)
    assert len(greedy.unique(dim=0)) == 1


@every
@both
def test_padding_and_other_sentences_change_nothing(name: str, parent: bool) -> None:
    model = make_grammar(parent)
    policy = make_policy(model, name)
    x, z = model.sample(12, torch.Generator().manual_seed(3))
    assert len(model.context(x).unique()) > 2
    together = policy.score_structures(z, policy.encode(x), torch.arange(12))
    log_z = policy.log_partition(policy.encode(x))
    for row in range(12):
        memory = policy.encode(x[row : row + 1])
        alone = policy.score_structures(z[row : row + 1], memory, torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(alone[:, 0], together[:, row])
        torch.testing.assert_close(policy.log_partition(memory)[0], log_z[row])


@every
@both
def test_losses_reach_the_policy_and_not_the_model(name: str, parent: bool) -> None:
    model = make_grammar(parent)
    policy = make_policy(model, name)
    generator = torch.Generator().manual_seed(0)
    x, _ = model.sample(8, generator)
    rows = torch.arange(8).repeat_interleave(4)
    batch = rollout(
        model.env, policy, x, rows=rows, context=model.context(x), generator=generator,
        with_grad=True,
    )  # fmt: skip
    batch.log_reward = model.log_joint(x[rows], batch.z).detach()
    assert not any(one is other for one in policy.parameters() for other in model.parameters())
    SpanBalance(model.node_scores).loss(model.env, policy, batch).loss.backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())
    policy.zero_grad()
    VarGrad().loss(model.env, policy, batch).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())
    assert all(p.grad is None for p in model.parameters())


@every
@both
def test_batches_of_different_lengths_are_joined(name: str, parent: bool) -> None:
    model = make_grammar(parent)
    policy = make_policy(model, name)
    batches = []
    for words in (3, WORDS):
        x = torch.arange(2 * WORDS).view(2, WORDS) % 5
        x = x.where(torch.arange(WORDS) < words, -1)
        rows = torch.tensor([0, 0, 1])
        batches.append(rollout(model.env, policy, x, rows=rows, context=model.context(x)))
    joined = concatenate(batches)
    flows = [policy.node_flows(b.z, b.memory, b.rows) for b in (*batches, joined) if b.memory]
    torch.testing.assert_close(flows[2], torch.cat(flows[:2]))
    assert joined.memory is not None
    log_pf = policy.score_structures(joined.z, joined.memory, joined.rows)
    torch.testing.assert_close(log_pf, joined.log_pf)


@both
@pytest.mark.parametrize(
    "settings", [{"name": "neural"}, {"name": "chart", "first_guess": "alike"}]
)
def test_where_all_rules_are_alike_nothing_is_left_to_learn(
    settings: dict[str, str], parent: bool
) -> None:
    model = make_grammar(parent)
    with torch.no_grad():
        model.root_logits.zero_()
        model.binary_logits.zero_()
    policy = tree_policies.make(model=model, **settings)
    x, z = model.sample(20, torch.Generator().manual_seed(0))
    memory = policy.encode(x)
    log_q = policy.score_structures(z, memory, torch.arange(20)).sum(0)
    torch.testing.assert_close(log_q, model.posterior_log_prob(x, z), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        policy.log_partition(memory), model.log_marginal(x), atol=1e-4, rtol=1e-5
    )


def test_the_neural_policy_acts_by_the_present_rules_of_a_grammar_with_energies() -> None:
    grammar = make_grammar(False)
    model = EnergyGrammar(grammar)
    policies = make_policy(grammar, "neural"), make_policy(model, "neural")
    plain = make_policy(model, "neural-plain")
    x, z = grammar.sample(20, torch.Generator().manual_seed(0))

    def log_q(policy: SpanPolicy) -> torch.Tensor:
        return policy.score_structures(z, policy.encode(x), torch.arange(20)).sum(0)

    before, without = log_q(policies[0]), log_q(plain)
    torch.testing.assert_close(log_q(policies[1]), before)
    with torch.no_grad():
        grammar.binary_logits.mul_(2)
    assert (log_q(policies[1]) - before).abs().mean() > 0.1
    torch.testing.assert_close(log_q(plain), without)


@every
def test_trees_built_bottom_up_are_refused(name: str) -> None:
    model = TableGrammar(3, 2, 5, WORDS)
    with pytest.raises(UserError, match="top-down"):
        tree_policies.make(name, model)


@both
def test_the_chart_policy_with_inside_weights_is_the_posterior(
    monkeypatch: pytest.MonkeyPatch, parent: bool
) -> None:
    model = make_grammar(parent, 5, 5)
    x, _ = model.sample(3, torch.Generator().manual_seed(0))
    policy = make_policy(model, "chart")
    weights = inside_weights(policy, model, x)
    monkeypatch.setattr(policy, "log_weights", lambda memory, place, parent: weights[place, parent])
    log_q = policy_log_probs(model.env, policy, x, torch.tensor([5]))
    with torch.no_grad():
        log_p = EnumeratedPosterior(model).log_posterior_table(x)
    torch.testing.assert_close(log_q.exp(), log_p.exp(), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(
        policy.log_partition(policy.encode(x)), model.log_marginal(x), atol=1e-4, rtol=1e-5
    )
    rows = torch.arange(3).repeat_interleave(5)
    batch = rollout(model.env, policy, x, rows=rows, context=model.context(x))
    loss = SpanBalance(model.node_scores).loss(model.env, policy, batch).loss
    assert loss < 1e-8


@both
def test_the_inside_algorithm_as_a_first_guess(parent: bool) -> None:
    """Where parents do not count, though there may be a table for each, it is exact at once."""
    plain = make_grammar(False)
    rules = plain.rules()
    binary = rules.binary.expand(4, -1, -1, -1) if parent else rules.binary
    model = TableGrammar.from_rules(
        GrammarRules(rules.root, binary, rules.emission), WORDS, tree="top-down"
    )
    policy = tree_policies.make("chart", model, first_guess="inside")
    x, z = model.sample(20, torch.Generator().manual_seed(0))
    log_q = policy.score_structures(z, policy.encode(x), torch.arange(20)).sum(0)
    torch.testing.assert_close(log_q, plain.posterior_log_prob(x, z), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="first guess"):
        tree_policies.make("chart", model, first_guess="outside")


def test_looking_ahead_applies_the_parents_rules_once() -> None:
    model = make_grammar(True)
    rules, labels = model.rules(), model.nonterminals
    policy = tree_policies.make("chart", model)
    assert isinstance(policy, ChartPolicy)
    assert policy.first_guess == "lookahead"
    x, _ = model.sample(6, torch.Generator().manual_seed(0))
    memory = policy.encode(x)
    chart = log_span_weights(inside_chart(without_parents(rules), x)).exp()
    emission, binary = rules.emission.exp(), rules.binary.exp()

    def part(row: int, left: int, right: int) -> torch.Tensor:
        """The weights of all symbols for a part without its parent."""
        symbols = torch.zeros(binary.shape[-1])
        if right - left == 1:
            symbols[labels:] = emission[:, x[row, left]]
        else:
            symbols[:labels] = chart[row, left, right]
        return symbols

    spans = [
        (row, left, right, parent)
        for row in range(len(x))
        for right in range(2, int((x[row] >= 0).sum()) + 1)
        for left in range(right - 1)
        for parent in range(labels + 1)
    ]
    expected = torch.stack([
        sum(
            torch.einsum("abc,b,c->a", binary[parent], part(row, left, m), part(row, m, right))
            for m in range(left + 1, right)
        )
        for row, left, right, parent in spans
    ]).log()  # fmt: skip
    row, left, right, parent = torch.tensor(spans).T
    place = row * memory[0].shape[1] + span_number(left, right)
    # What was asked for before, and what is asked for twice, is the same.
    for asked in (torch.arange(0, len(spans), 3), torch.arange(len(spans)).repeat(2)):
        found = policy.log_weights(memory, place[asked], parent[asked])
        torch.testing.assert_close(found, expected[asked], atol=1e-4, rtol=1e-4)


def test_looking_ahead_is_nearer_to_the_posterior_than_no_parents_at_all() -> None:
    model = make_grammar(True)
    x, z = model.sample(200, torch.Generator().manual_seed(0))
    log_p = model.posterior_log_prob(x, z)
    rows = torch.arange(200)

    def divergence(first_guess: str) -> float:
        """Estimates KL(p || q) on posterior samples: z is one of each x."""
        policy = tree_policies.make("chart", model, first_guess=first_guess)
        log_q = policy.score_structures(z, policy.encode(x), rows).sum(0)
        return (log_p - log_q).mean().item()

    assert divergence("lookahead") < 0.5 * divergence("inside")


def test_only_rules_given_the_parent_have_something_ahead() -> None:
    with pytest.raises(UserError, match="depend on the parent"):
        tree_policies.make("chart", make_grammar(False), first_guess="lookahead")


@torch.no_grad()
def inside_weights(policy: SpanPolicy, model: TableGrammar, x: torch.Tensor) -> torch.Tensor:
    """Sums over all trees of each span of these sentences, by its place, parent and label."""
    assert isinstance(policy, ChartPolicy)
    spans, parents = x.shape[1] * (x.shape[1] - 1) // 2, model.nonterminals + 1
    weights = torch.zeros(len(x) * spans, parents, model.nonterminals)
    for row, words in enumerate(x.tolist()):
        for right in range(2, len(words) + 1):
            for left in range(right - 1):
                place = row * spans + int(span_number(torch.tensor(left), torch.tensor(right)))
                for parent, label in itertools.product(range(parents), range(model.nonterminals)):
                    weights[place, parent, label] = inside_weight(
                        model.rules(), tuple(words[left:right]), parent, label
                    )
    return weights


def inside_weight(
    rules: GrammarRules, words: tuple[int, ...], parent: int, label: int
) -> torch.Tensor:
    """Sums over all trees of some words, by recursion."""
    table = rules.binary[parent, label] if rules.conditioned_on_parent else rules.binary[label]
    labels = rules.nonterminals

    def part(some: tuple[int, ...]) -> torch.Tensor:
        scores = torch.full((len(table),), -torch.inf)
        if len(some) == 1:
            scores[labels:] = rules.emission[:, some[0]]
        else:
            for child in range(labels):
                scores[child] = inside_weight(rules, some, label, child)
        return scores

    splits = range(1, len(words))
    return torch.stack(
        [part(words[:at])[:, None] + part(words[at:]) + table for at in splits]
    ).flatten().logsumexp(0)  # fmt: skip
