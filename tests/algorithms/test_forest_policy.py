"""The policy that reads the roots of a forest: what it scores, shares and learns."""

import copy

import pytest
import torch

from algorithms.backward_policy import LearnedBackward
from algorithms.forest_policy import ForestPolicy
from algorithms.forward_looking import ForwardLookingSubTrajectoryBalance
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.policy_distribution import policy_log_probs
from algorithms.rollout import replay, rollout, score
from algorithms.softmax import log_softmax
from algorithms.trajectory_batch import TrajectoryBatch
from algorithms.tree_policies import tree_policies
from gfn_envs.errors import UserError
from lvms.enumeration import EnumeratedPosterior
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.table_grammar import TableGrammar

WORDS = 6


def make_grammar(words: int = WORDS, min_words: int = 2, tree: str = "bottom-up") -> TableGrammar:
    """Makes a grammar of 3 nonterminals, 2 preterminals and 5 words."""
    return TableGrammar(3, 2, 5, words, min_words, tree=tree, seed=1)


def make_policy(model: TableGrammar | EnergyGrammar) -> ForestPolicy:
    """Makes a small policy whose heads are no longer zero."""
    torch.manual_seed(0)
    policy = tree_policies.make("forest", model, dim=8, layers=2, heads=2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return policy


def make_objective(model: TableGrammar) -> ForwardLookingSubTrajectoryBalance:
    """Makes the paper's objective."""
    return ForwardLookingSubTrajectoryBalance(model.log_partial, LearnedBackward(), lambda_=1.0)


def trajectories(model: TableGrammar, num: int, seed: int = 0) -> TrajectoryBatch:
    """Draws sentences of several lengths with a random order to one tree each."""
    generator = torch.Generator().manual_seed(seed)
    x, z = model.sample(num, generator)
    context, rows = model.context(x), torch.arange(num)
    assert len(context.unique()) > 2
    actions, lengths = model.env.sample_trajectory_to(z, context, generator)
    return replay(model.env, actions, lengths, x, rows, context)


def test_other_sentences_change_nothing() -> None:
    model = make_grammar()
    policy, batch = make_policy(model), trajectories(model, 12)
    state = batch.states[2]  # some are complete
    memory = policy.encode(batch.x)
    together = [
        read(state, memory, batch.rows)
        for read in (policy.logits, policy.backward_logits, policy.state_flow)
    ]
    log_z = policy.log_partition(memory)
    for row in range(12):
        memory, one = policy.encode(batch.x[row : row + 1]), torch.zeros(1, dtype=torch.int64)
        alone = [
            read(state[row : row + 1], memory, one)
            for read in (policy.logits, policy.backward_logits, policy.state_flow)
        ]
        for part, whole in zip(alone, together, strict=True):
            torch.testing.assert_close(part[0], whole[row])
        torch.testing.assert_close(policy.log_partition(memory)[0], log_z[row])


def test_what_is_drawn_is_scored_alike() -> None:
    model = make_grammar()
    policy = make_policy(model)
    generator = torch.Generator().manual_seed(0)
    x, _ = model.sample(7, generator)
    rows = torch.arange(7).repeat_interleave(4)
    batch = rollout(model.env, policy, x, rows=rows, context=model.context(x), generator=generator)
    assert model.env.is_complete(batch.z, batch.context).all()
    drawn = batch.log_pf
    assert drawn is not None
    torch.testing.assert_close(score(model.env, policy, batch).log_pf, drawn)


def test_forward_and_backward_are_distributions_over_what_is_legal() -> None:
    model = make_grammar()
    policy, batch = make_policy(model), trajectories(model, 12)
    memory = policy.encode(batch.x)
    for step in range(1, int(batch.lengths.min())):
        state = batch.states[step]
        forward = policy.logits(state, memory, batch.rows)[:, :-1]
        backward = policy.backward_logits(state, memory, batch.rows)
        for logits, mask in (
            (forward, model.env.forward_mask(state, batch.context)),
            (backward, model.env.backward_mask(state, batch.context)),
        ):
            assert logits.shape == mask.shape
            probability = log_softmax(logits.masked_fill(~mask, -torch.inf)).exp()
            torch.testing.assert_close(probability.sum(-1), torch.ones(12))
            # Nothing legal is left unscored: a score that was not written would be exactly 0.
            assert (logits[mask] != 0).all()


def test_the_order_of_merges_does_not_matter() -> None:
    model = make_grammar()
    policy = make_policy(model)
    x, context = torch.tensor([[0, 3, 1, 2, 4, 0]]), torch.tensor([[6]])
    rows, labels = torch.zeros(1, dtype=torch.int64), model.nonterminals
    memory = policy.encode(x)
    # The first two words under 1, the fourth and fifth under 2, then the third with these under 0.
    orders = ([1, 3 * labels + 2, 2 * labels], [3 * labels + 2, 2 * labels, 1])
    ends = [
        replay(
            model.env, torch.tensor(order)[:, None], torch.tensor([3]), x, rows, context
        ).z
        for order in orders
    ]  # fmt: skip
    first, second = (policy.logits(end, memory, rows) for end in ends)
    assert torch.equal(first, second)
    below = policy.logits(
        replay(
            model.env, torch.tensor([[1], [3 * labels + 1], [2 * labels]]), torch.tensor([3]),
            x, rows, context,
        ).z,
        memory,
        rows,
    )  # fmt: skip
    assert not torch.allclose(first, below)  # a label within a tree is seen


def test_one_reading_serves_flows_and_backward_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_grammar()
    policy = make_policy(model)
    batch = trajectories(model, 12)
    batch.log_reward = model.log_joint(batch.x, batch.z).detach()
    score(model.env, policy, batch)
    alone = copy.deepcopy(policy)  # it has kept nothing
    calls = []
    read = ForestPolicy._read

    def counted(self: ForestPolicy, *arguments: object) -> object:
        calls.append(self)
        return read(self, *arguments)

    monkeypatch.setattr(ForestPolicy, "_read", counted)
    shared = make_objective(model).loss(model.env, policy, batch).loss
    assert not calls
    again = make_objective(model).loss(model.env, alone, batch).loss
    assert len(calls) == 2
    torch.testing.assert_close(shared, again)
    # Of another order of states each gets its own.
    states, rows = batch.states[:3].flatten(0, 1), batch.rows.repeat(3)
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))
    flow = policy.state_flow(states[order], batch.memory, rows[order])
    assert len(calls) == 2
    torch.testing.assert_close(flow, alone.state_flow(states, batch.memory, rows)[order])
    # What was kept is neither of other sentences nor without a gradient.
    with torch.no_grad():
        policy.state_flow(states, batch.memory, rows)
    policy.state_flow(states, policy.encode(batch.x), rows)
    assert len(calls) == 5


def test_many_trajectories_are_read_once_with_gradient_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_grammar()
    policy, x = make_policy(model), trajectories(model, 12).x
    rows, with_grad = torch.arange(12).repeat_interleave(20), []
    read = ForestPolicy._read

    def noted(self: ForestPolicy, *arguments: object) -> object:
        with_grad.append(torch.is_grad_enabled())
        return read(self, *arguments)

    monkeypatch.setattr(ForestPolicy, "_read", noted)
    batch = rollout(model.env, policy, x, rows=rows, context=model.context(x), with_grad=True)
    batch.log_reward = model.log_joint(x[rows], batch.z).detach()
    make_objective(model).loss(model.env, policy, batch)
    assert sum(with_grad) == 1


def test_the_loss_reaches_the_policy_and_not_the_model() -> None:
    model = make_grammar()
    policy = make_policy(model)
    generator = torch.Generator().manual_seed(0)
    x, _ = model.sample(8, generator)
    rows = torch.arange(8).repeat_interleave(4)
    batch = rollout(
        model.env, policy, x, rows=rows, context=model.context(x), generator=generator,
        with_grad=True,
    )  # fmt: skip
    batch.log_reward = model.log_joint(x[rows], batch.z).detach()
    make_objective(model).loss(model.env, policy, batch).loss.backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in model.parameters())
    assert not any(one is other for one in policy.parameters() for other in model.parameters())


def test_it_starts_uniform_with_flows_of_one() -> None:
    model = make_grammar()
    policy, batch = ForestPolicy(model, dim=8, layers=1, heads=1), trajectories(model, 5)
    memory = policy.encode(batch.x)
    assert not policy.logits(batch.states[1], memory, batch.rows).any()
    assert not policy.backward_logits(batch.states[1], memory, batch.rows).any()
    assert not policy.log_partition(memory).any()


def test_sentences_of_two_words_have_nothing_to_learn_but_a_label() -> None:
    model = make_grammar(2)
    policy = make_policy(model)
    x = torch.tensor([[0, 1], [4, 2]])
    batch = rollout(model.env, policy, x, context=model.context(x), with_grad=True)
    batch.log_reward = model.log_joint(x, batch.z).detach()
    assert make_objective(model).loss(model.env, policy, batch).loss.isfinite()


def test_energies_may_stand_beside_the_grammar() -> None:
    model = EnergyGrammar(make_grammar())
    policy = make_policy(model)
    x, _ = model.sample(3, torch.Generator().manual_seed(0))
    batch = rollout(model.env, policy, x, context=model.context(x))
    assert model.log_joint(x, batch.z).isfinite().all()


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="bottom-up"):
        tree_policies.make("forest", make_grammar(tree="top-down"))
    for sizes in ({"dim": 10, "heads": 4}, {"layers": 0}, {"dim": 0}, {"heads": 0}):
        with pytest.raises(UserError, match="multiple of heads"):
            ForestPolicy(make_grammar(), **sizes)


def test_it_learns_the_posterior() -> None:
    model = TableGrammar(2, 2, 4, 3, 3, seed=1)
    torch.manual_seed(0)
    policy = ForestPolicy(model, dim=16, layers=1, heads=2)
    x = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 2, 3]])
    with torch.no_grad():
        posterior = EnumeratedPosterior(model).log_posterior_table(x).exp()

    def distance() -> float:
        log_q = policy_log_probs(model.env, policy, x, torch.tensor([3]))
        return (log_q.exp() - posterior).abs().sum(-1).max().item() / 2

    before = distance()
    e_step = GFlowNetEStep(
        model, policy, make_objective(model), samples_per_x=8, learning_rate=3e-3,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    rows = torch.arange(3).repeat_interleave(8)
    for _ in range(400):
        e_step.train(x, torch.arange(3), rows)
    assert before > 0.2
    assert distance() < 0.03
    log_z = policy.log_partition(policy.encode(x))
    torch.testing.assert_close(log_z, model.log_marginal(x), atol=0.05, rtol=0)
