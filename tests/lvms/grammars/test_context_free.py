import torch

from gfn_envs.binary_tree import children, tree_nodes
from lvms.grammars.context_free import without_parents
from lvms.grammars.inside_chart import inside_chart, log_span_weights
from lvms.grammars.rules import GrammarRules
from lvms.grammars.table_grammar import TableGrammar


def mostly_short(parent: bool) -> TableGrammar:
    """A grammar of 3 labels whose parts are mostly words, so that hardly any tree is long."""
    model = TableGrammar(3, 2, 4, 24, parent=parent, tree="top-down", seed=2)
    with torch.no_grad():
        model.binary_logits[..., 3:, :] += 2.0
        model.binary_logits[..., 3:] += 2.0
    model.mark_updated()
    return model


def test_a_context_free_grammar_is_left_as_it_is():
    rules = mostly_short(False).rules()
    assert without_parents(rules) is rules


def test_rules_that_are_alike_for_all_parents_are_found_again():
    rules = mostly_short(False).rules()
    repeated = GrammarRules(rules.root, rules.binary.expand(4, -1, -1, -1), rules.emission)
    torch.testing.assert_close(without_parents(repeated).binary, rules.binary)


def test_averages_are_those_of_drawn_trees():
    model = mostly_short(True)
    _, z = model.sample(20_000, torch.Generator().manual_seed(0))
    nodes = tree_nodes(z)
    label = nodes.label
    left, right = children(nodes)
    # Any two words may be the children, so only which of them are labelled is counted.
    kinds = [label.gather(1, gap.clamp_min(0)).where(gap >= 0, 3) for gap in (left, right)]
    present = label >= 0
    flat = ((label * 4 + kinds[0]) * 4 + kinds[1])[present]
    count = torch.bincount(flat, minlength=48).view(3, 16).double()
    expected = without_parents(model.rules()).binary.exp().double()
    expected = torch.cat([expected[..., :3], expected[..., 3:].sum(-1, keepdim=True)], -1)
    expected = torch.cat([expected[:, :3], expected[:, 3:].sum(1, keepdim=True)], 1).flatten(1)
    total = count.sum(1, keepdim=True)
    # Nodes of one tree depend on each other a little, and trees of over 24 words are missing.
    error = (expected * (1 - expected) / total).sqrt()
    assert ((count / total - expected).abs() < 5 * error + 1e-3).all()
    # With equal weights of the parents they would be others.
    equal = model.rules().binary.exp().mean(0)[:, :3, :3].sum((1, 2)).double()
    assert (equal - expected.view(3, 4, 4)[:, :3, :3].sum((1, 2))).abs().min() > 0.006


def test_span_weights_are_those_of_shorter_sentences():
    model = TableGrammar(3, 2, 4, 6, seed=1)
    with torch.no_grad():
        rules = model.rules()
    x = torch.tensor([[0, 3, 2, 1, 1, 0], [2, 2, 1, 3, -1, -1]])
    weights = log_span_weights(inside_chart(rules, x))
    for row, length in enumerate((6, 4)):
        for right in range(2, length + 1):
            for left in range(right - 1):
                words = x[row : row + 1, left:right]
                for label in range(3):
                    root = torch.full((3,), -torch.inf)
                    root[label] = 0.0
                    chart = inside_chart(GrammarRules(root, rules.binary, rules.emission), words)
                    torch.testing.assert_close(
                        weights[row, left, right, label], chart.log_marginal[0]
                    )
