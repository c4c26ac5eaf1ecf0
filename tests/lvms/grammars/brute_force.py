"""Grammars taken at their word: joints of trees by recursion, preterminals by loops."""

import itertools
import math

from gfn_envs.binary_tree import tree_nodes


def spans_of(z):
    """A complete tree `[S]` as {(left, right): (label, split)}."""
    label, left, right = (part[0].tolist() for part in tree_nodes(z[None]))
    return {
        (left[gap], right[gap]): (label[gap], gap + 1)
        for gap in range(len(label))
        if label[gap] >= 0
    }


def rules_of(z, num_words):
    """The expansions of a tree, each (parent's label or None, label, child, child).

    A child is ("word", position) or ("label", its label).
    """
    spans = spans_of(z)
    assert len(spans) == num_words - 1
    found = []

    def visit(left, right, parent):
        if right - left == 1:
            return ("word", left)
        label, split = spans[left, right]
        place = len(found)
        found.append(None)
        first = visit(left, split, label)
        second = visit(split, right, label)
        found[place] = (parent, label, first, second)
        return ("label", label)

    visit(0, num_words, None)
    return found


def rule_probability(rules, words, parent, label, first, second):
    """The probability of an expansion with all that its words can be summed, in plain Python."""
    num_labels = rules.nonterminals
    binary = rules.binary
    if rules.conditioned_on_parent:
        binary = binary[num_labels if parent is None else parent]

    def symbols(child):
        kind, value = child
        if kind == "label":
            return [(value, 1.0)]
        return [
            (num_labels + p, math.exp(rules.emission[p, words[value]].item()))
            for p in range(rules.preterminals)
        ]

    return sum(
        math.exp(binary[label, b, c].item()) * weight * other
        for (b, weight), (c, other) in itertools.product(symbols(first), symbols(second))
    )


def log_joint(rules, words, z):
    """log p(x, z) of one sentence, a list of word ids, and one tree `[S]`."""
    expansions = rules_of(z, len(words))
    total = rules.root[expansions[0][1]].item()
    return total + sum(math.log(rule_probability(rules, words, *rule)) for rule in expansions)
