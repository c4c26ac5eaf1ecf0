"""The two constructions of labelled binary trees, against plain Python."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs import BottomUpTree, LatentEnv, StateGraph, TopDownTree, UserError
from gfn_envs.testing import check_latent_env
from gfn_envs.tree_drawing import draw_tree, write_tree
from tests.envs import action_sequences
from tests.gfn_envs.trees import OPEN, UNSET, as_state, every_tree, gap, nodes, trees

few = settings(max_examples=25, deadline=None)
both = pytest.mark.parametrize("env_class", [BottomUpTree, TopDownTree])


@st.composite
def sizes(draw):
    """n, N and K of few trees."""
    num_words = draw(st.integers(2, 5))
    max_words = draw(st.integers(num_words, 6))
    return num_words, max_words, draw(st.integers(1, 2 if num_words == 5 else 3))


def rows(states):
    return [tuple(row) for row in states.tolist()]


def random_walk(env, context, seed=0):
    """Takes random actions in every row until all are complete; returns states and actions."""
    generator = torch.Generator().manual_seed(seed)
    state, states, actions = env.initial_states(len(context)), [], []
    while True:
        states.append(state)
        mask = env.forward_mask(state, context)
        going = mask.any(-1)
        if not going.any():
            return states, actions
        weight = mask.float() + ~going[:, None]
        action = torch.multinomial(weight, 1, generator=generator).squeeze(-1)
        actions.append(torch.where(going, action, -1))
        state = torch.where(going[:, None], env.step(state, action, context), state)


def replay(env, actions, context):
    """Takes given actions `[T, B]`, each of which must be legal."""
    state = env.initial_states(len(context))
    for action in actions:
        going = action >= 0
        legal = env.forward_mask(state, context).gather(1, action.clamp_min(0)[:, None])
        assert (legal[:, 0] | ~going).all()
        state = torch.where(going[:, None], env.step(state, action.clamp_min(0), context), state)
    return state


# -- the contract ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("max_words", "labels", "min_words"), [(2, 1, 2), (2, 3, 2), (3, 2, 3), (4, 1, 4), (5, 2, 2)]
)
def test_conforms(env_class, max_words, labels, min_words):
    env = env_class(max_words, labels, min_words)
    report = check_latent_env(env, torch.arange(2, max_words + 1)[:, None])
    skipped = {finding.name for finding in report.findings if finding.status == "skipped"}
    assert skipped <= {"trivial_mask", "is_tree", "uniform_trajectories"}


@both
def test_large_trees_conform_on_random_walks(env_class):
    check_latent_env(env_class(12, 4), torch.tensor([[12], [7]]), max_states=100)


@few
@given(sizes())
def test_enumeration_is_every_tree(size):
    num_words, max_words, labels = size
    context_row = torch.tensor([num_words])
    expected = [tuple(as_state(tree, max_words)) for tree in every_tree(num_words, labels)]
    for env in (BottomUpTree(max_words, labels), TopDownTree(max_words, labels)):
        listed = rows(env.enumerate(context_row))
        assert len(set(listed)) == len(listed) == env.num_structures(context_row) == len(expected)
        assert set(listed) == set(expected)
        graph = StateGraph.build(env, context_row)
        assert set(rows(graph.states[graph.complete])) == set(expected)


def test_enumeration_follows_the_documented_order():
    listed = BottomUpTree(4, 2).enumerate(torch.tensor([4])).unflatten(1, (3, 3))
    shapes = listed[:, 1:].flatten(1)[::8]
    roots = [[row[:3].tolist(), row[3:].tolist()] for row in shapes]
    # The root is the node whose span is 0 to 4; that with gap 0 comes first.
    gaps = [next(g for g in range(3) if (left[g], right[g]) == (0, 4)) for left, right in roots]
    assert gaps == [0, 0, 1, 2, 2]
    assert rows(listed[:8, 0]) == list(itertools.product(range(2), repeat=3))


@both
def test_long_sentences_are_counted_but_not_listed(env_class):
    env = env_class(40, 30)
    catalan = math.factorial(78) // (math.factorial(39) * math.factorial(40))
    assert env.num_structures(torch.tensor([40])) == catalan * 30**39
    with pytest.raises(UserError, match="structures are too many to enumerate"):
        env.enumerate(torch.tensor([40]))


@both
def test_action_sequences_and_their_counts(env_class):
    env, context_row = env_class(4, 2), torch.tensor([4])
    orders = Counter(state for _, state in action_sequences(env, context_row))
    states = env.enumerate_states(context_row)
    assert set(rows(states)) == set(orders)
    counts = env.log_num_trajectories(states, context_row.expand(len(states), -1)).exp()
    torch.testing.assert_close(counts, torch.tensor([float(orders[row]) for row in rows(states)]))


@both
def test_sentences_of_several_lengths_share_a_batch(env_class):
    env = env_class(9, 3)
    context = torch.arange(2, 10).repeat(8)[:, None]
    states, actions = random_walk(env, context)
    lengths = (torch.stack(actions) >= 0).sum(0)
    assert torch.equal(lengths, env.num_steps(context))
    assert env.is_complete(states[-1], context).all()
    for t, state in enumerate(states):
        assert torch.equal(env.is_complete(state, context), t >= lengths)
    roots = states[-1].unflatten(1, (3, -1))
    spans_all = (roots[:, 1] == 0) & (roots[:, 2] == context)
    assert (spans_all.sum(1) == 1).all()


@both
def test_lengths_are_drawn_uniformly(env_class):
    env = env_class(6, 1, min_words=3)
    drawn = env.sample_context(4000, torch.Generator().manual_seed(0))
    assert (drawn.shape, drawn.dtype) == ((4000, 1), torch.int64)
    counts = torch.bincount(drawn[:, 0], minlength=7)
    assert counts[:3].sum() == 0
    # Four equally likely lengths: a standard deviation of sqrt(4000 * 1/4 * 3/4) = 27.4.
    assert (counts[3:] - 1000).abs().max() < 5 * 27.4


# -- from the words up ----------------------------------------------------------------------------


def test_merging_by_hand():
    env, context = BottomUpTree(5, 2), torch.tensor([[4]])
    state = env.initial_states(1)
    assert env.forward_mask(state, context)[0].tolist() == [True] * 6 + [False] * 2
    for action in (2 * 2 + 1, 0 * 2 + 0):  # words 2 and 3 under label 1, words 0 and 1 under 0
        state = env.step(state, torch.tensor([action]), context)
    assert state.tolist() == [[0, UNSET, 1, UNSET, 0, UNSET, 2, UNSET, 2, UNSET, 4, UNSET]]
    assert env.backward_mask(state, context)[0].nonzero().flatten().tolist() == [0, 5]
    assert env.num_parents(state, context).tolist() == [2]
    state = env.step(state, torch.tensor([1 * 2 + 1]), context)
    assert state.tolist() == [as_state((1, (0, 0, 1), (1, 2, 3)), 5)]
    assert env.legal_actions(state, context)[0].tolist() == [False] * 8 + [True]
    assert env.backward_mask(state, context)[0].nonzero().flatten().tolist() == [3]
    assert env.log_num_trajectories(state, context).exp().tolist() == pytest.approx([2.0])


@few
@given(trees(max_words=7, labels=1))
def test_order_counts_are_those_of_orders_with_children_first(drawn):
    tree, num_words = drawn
    found = nodes(tree)
    below = [(gap(child), gap(node)) for node in found for child in nodes(node)[1:]]
    orders = sum(
        all(order.index(child) < order.index(parent) for child, parent in below)
        for order in itertools.permutations(map(gap, found))
    )
    env, state = BottomUpTree(7, 1), torch.tensor([as_state(tree, 7)])
    counted = env.log_num_trajectories(state, torch.tensor([[num_words]])).exp()
    assert counted.tolist() == pytest.approx([orders], rel=1e-4)


def test_sampled_orders_are_uniform():
    # Subtrees of 6, 2, 1, 3, 1 and 1 inner nodes: 6! / 36 = 20 orders.
    tree = (0, (0, (0, 0, 1), 2), (1, (2, 3, 4), (2, 5, 6)))
    env, context = BottomUpTree(8, 3), torch.tensor([[7]])
    state = torch.tensor([as_state(tree, 8)])
    orders, draws = 20, 4000
    actions, lengths = env.sample_trajectory_to(
        state.expand(draws, -1), context.expand(draws, -1), torch.Generator().manual_seed(0)
    )
    assert lengths.tolist() == [6] * draws
    assert torch.equal(replay(env, actions, context.expand(draws, -1)), state.expand(draws, -1))
    seen = Counter(rows(actions.T))
    assert len(seen) == orders
    statistic = sum((count - 200) ** 2 / 200 for count in seen.values())
    # Chi-squared with orders - 1 degrees of freedom; five standard deviations above its mean.
    assert statistic < orders - 1 + 5 * math.sqrt(2 * (orders - 1))


@both
def test_sampled_trajectories_to_partial_and_long_trees(env_class):
    env = env_class(40, 30)
    generator = torch.Generator().manual_seed(0)
    context = env.sample_context(64, generator)
    states, _ = random_walk(env, context)
    for state in (states[0], states[7], states[20], states[-1]):
        actions, lengths = env.sample_trajectory_to(state, context, generator)
        assert torch.equal((actions >= 0).sum(0), lengths)
        assert torch.equal(replay(env, actions, context), state)


@both
def test_states_on_the_way_are_the_same_when_the_end_is_known(env_class):
    env = env_class(7, 3)
    generator = torch.Generator().manual_seed(0)
    context = env.sample_context(64, generator)
    states, _ = random_walk(env, context)
    for end in (states[0], states[3], states[-1]):
        actions, _ = env.sample_trajectory_to(end, context, generator)
        one_by_one = env.states_along(actions, context)
        assert torch.equal(one_by_one[0], env.initial_states(64))
        assert torch.equal(one_by_one[-1], end)
        assert torch.equal(env.states_along(actions, context, end), one_by_one)


# -- from the root down ---------------------------------------------------------------------------


def test_splitting_by_hand():
    env, context = TopDownTree(5, 2), torch.tensor([[5]])
    state = env.initial_states(1)
    gaps, labels = [0, 1, 2, 3], [4, 5]
    steps = [
        (5, labels),  # the root is labelled 1
        (2, gaps),  # and split behind word 2
        (4, labels),  # its left part, 0 to 2
        (5, labels),  # its right part, words 3 and 4
        (0, [0, 1]),  # the left part is split behind word 0, itself finished
        (5, labels),  # words 1 and 2
        (1, [1]),
        (3, [3]),
    ]
    for t, (action, legal) in enumerate(steps):
        assert env.forward_mask(state, context)[0].nonzero().flatten().tolist() == legal
        before, state = state, env.step(state, torch.tensor([action]), context)
        assert env.backward_mask(state, context)[0].nonzero().flatten().tolist() == [action]
        assert torch.equal(env.backward_step(state, torch.tensor([action]), context), before)
        if t == 3:
            assert state.tolist() == [[OPEN, UNSET, 1, OPEN - 1, 0, UNSET, 0, 3, 3, UNSET, 5, 5]]
    assert state.tolist() == [as_state((1, (0, 0, (1, 1, 2)), (1, 3, 4)), 5)]
    assert env.legal_actions(state, context)[0].tolist() == [False] * 6 + [True]


@few
@given(trees(labels=3))
def test_the_order_is_the_grammars_own(drawn):
    tree, num_words = drawn
    env, context = TopDownTree(9, 3), torch.tensor([[num_words]])
    wanted = [8 + tree[0]]
    for node in nodes(tree):  # from the root down and from the left
        wanted.append(gap(node))
        wanted += [8 + child[0] for child in node[1:] if not isinstance(child, int)]
    actions, lengths = env.sample_trajectory_to(torch.tensor([as_state(tree, 9)]), context)
    assert actions[: int(lengths[0]), 0].tolist() == wanted
    assert int(lengths[0]) == int(env.num_steps(context)[0]) == 2 * (num_words - 1)


def test_sorted_trajectories_are_those_of_a_walk_backward():
    env = TopDownTree(9, 3)
    context = env.sample_context(64, torch.Generator().manual_seed(0))
    for state in random_walk(env, context)[0][1:]:
        actions, lengths = env.sample_trajectory_to(state, context)
        walked, walked_lengths = LatentEnv.sample_trajectory_to(env, state, context)
        assert torch.equal(lengths, walked_lengths)
        assert torch.equal(actions[: len(walked)], walked)
        assert (actions[len(walked) :] == -1).all()


# -- for people -----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 2), "max_words of at least 2 and labels of at least 1; got 1, 2"),
        ((4, 0), "max_words of at least 2 and labels of at least 1; got 4, 0"),
        ((4, 2, 1), "min_words must lie in 2 to 4; got 1"),
        ((4, 2, 5), "min_words must lie in 2 to 4; got 5"),
    ],
)
def test_bad_arguments_are_user_errors(env_class, arguments, message):
    with pytest.raises(UserError, match=message):
        env_class(*arguments)


@both
@pytest.mark.parametrize("num_words", [1, 5])
def test_lengths_out_of_range_are_user_errors(env_class, num_words):
    env, context_row = env_class(4, 2), torch.tensor([num_words])
    for ask in (env.num_structures, env.enumerate):
        with pytest.raises(UserError, match=f"has 2 to 4 words; the context says {num_words}"):
            ask(context_row)


@both
def test_render(env_class):
    env, context_row = env_class(4, 3), torch.tensor([3])
    state = torch.tensor(as_state((2, 0, (1, 1, 2)), 4))
    assert env.render(state, context_row, "ansi") == write_tree(state, ["0", "1", "2"])
    picture = env.render(state, context_row, "rgb_array")
    assert np.array_equal(picture, draw_tree(state, ["0", "1", "2"]))
    with pytest.raises(UserError, match="Unknown render mode 'human'"):
        env.render(state, context_row, "human")
