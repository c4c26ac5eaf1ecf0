"""Reading trees from states, against plain Python."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gfn_envs.binary_tree import (
    OPEN,
    UNSET,
    children,
    parents,
    put_node,
    span_chart,
    tree_nodes,
    tree_state,
)
from tests.gfn_envs.trees import as_state, gap, nodes, span, trees

few = settings(max_examples=25, deadline=None)
MAX_WORDS = 9


def batch(drawn):
    """Trees of several lengths as nodes."""
    return tree_nodes(torch.tensor([as_state(tree, MAX_WORDS) for tree, _ in drawn]))


def nowhere():
    return [UNSET] * (MAX_WORDS - 1)


@few
@given(st.lists(trees(), min_size=1, max_size=4))
def test_nodes_are_a_view_that_becomes_the_state_again(drawn):
    state = torch.tensor([as_state(tree, MAX_WORDS) for tree, _ in drawn])
    assert tree_nodes(state).label.data_ptr() == state.data_ptr()
    assert torch.equal(tree_state(tree_nodes(state)), state)


@few
@given(st.lists(trees(), min_size=1, max_size=4))
def test_chart_has_each_node_at_its_span(drawn):
    chart = span_chart(batch(drawn))
    wanted = torch.full((len(drawn), MAX_WORDS + 1, MAX_WORDS + 1), UNSET)
    for row, (tree, _) in enumerate(drawn):
        for node in nodes(tree):
            wanted[(row, *span(node))] = gap(node)
    assert torch.equal(chart, wanted)


@few
@given(st.lists(trees(), min_size=1, max_size=4))
def test_children_and_parents(drawn):
    below, above = children(batch(drawn)), parents(batch(drawn))
    for row, (tree, _) in enumerate(drawn):
        wanted_below, wanted_above = [nowhere(), nowhere()], [nowhere(), nowhere()]
        for node in nodes(tree):
            for side, child in enumerate(node[1:]):
                if not isinstance(child, int):
                    wanted_below[side][gap(node)] = gap(child)
                    wanted_above[side][gap(child)] = gap(node)
        assert [side[row].tolist() for side in below] == wanted_below
        assert [side[row].tolist() for side in above] == wanted_above


@few
@given(trees(min_words=3), st.data())
def test_open_spans_are_children_too(drawn, data):
    tree, _ = drawn
    # Any node but the root, with all below it, becomes a span that is not split.
    inner = nodes(tree)[1:]
    chosen = data.draw(st.sampled_from(inner))
    state = torch.tensor([as_state(tree, MAX_WORDS)])
    nothing = torch.full((1, 1), UNSET)
    for node in nodes(chosen):
        state = put_node(state, torch.tensor([[gap(node)]]), nothing, nothing, nothing)
    left, right = span(chosen)
    parts = (torch.tensor([[value]]) for value in (OPEN - chosen[0], left, right))
    state = put_node(state, torch.tensor([[left]]), *parts)
    found = tree_nodes(state)
    parent = next(node for node in nodes(tree) if chosen in (node[1], node[2]))
    side = 0 if span(parent[1]) == (left, right) else 1
    assert span_chart(found)[0, left, right] == left
    assert children(found)[side][0, gap(parent)] == left
    assert [int(at[0, left]) for at in parents(found)] == [
        gap(parent) if side == 0 else UNSET, gap(parent) if side == 1 else UNSET
    ]  # fmt: skip
    # A span that is not split has no children, though a node's child may lie at its gap's ends.
    assert [int(at[0, left]) for at in children(found)] == [UNSET, UNSET]


def test_what_is_absent_is_found_nowhere():
    empty = tree_nodes(torch.full((2, 3 * (MAX_WORDS - 1)), UNSET))
    assert (span_chart(empty) == UNSET).all()
    assert all((at == UNSET).all() for at in (*children(empty), *parents(empty)))
