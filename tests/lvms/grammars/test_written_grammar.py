"""Reading grammars that are written down."""

import pytest
import torch

from gfn_envs import UserError
from lvms.grammars.written_grammar import FLOOR, read_grammar

PLAIN = """
S -> A S .25 | A B .75   # the root
A = a b
B = b c d a
"""

PARENTS = """
S^start -> X X 1.
S       -> X S 1.
X^S     -> S X .5 | X X .5
X       -> X X 1.
"""


def test_probabilities_are_as_written():
    written = read_grammar(PLAIN)
    assert (written.labels, written.preterminals) == (["S"], ["A", "B"])
    assert written.words == ["a", "b", "c", "d"]
    rules = written.rules
    assert not rules.conditioned_on_parent
    expected = torch.zeros(1, 3, 3)
    expected[0, 1, 0], expected[0, 1, 2] = 0.25, 0.75
    close = {"atol": 10 * FLOOR, "rtol": 1e-5}
    torch.testing.assert_close(rules.binary.exp(), expected, **close)
    words = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25] * 4])
    torch.testing.assert_close(rules.emission.exp(), words, **close)
    torch.testing.assert_close(rules.root.exp(), torch.ones(1))
    # What is not written down stays possible.
    assert rules.binary.isfinite().all()
    assert rules.emission.isfinite().all()


def test_a_line_without_a_parent_is_for_those_without_a_line():
    written = read_grammar(PARENTS + "Y = y")
    assert written.labels == ["S", "X"]
    binary = written.rules.binary.exp()  # by parent S, X, start
    assert binary.shape == (3, 2, 3, 3)
    pairs = [[(p > 0.4).nonzero().tolist() for p in row] for row in binary]
    xs, xx, sx = [1, 0], [1, 1], [0, 1]
    assert pairs == [[[xs], [sx, xx]], [[xs], [xx]], [[xx], [xx]]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs expansions"),
        ("S -> A A 1.", "needs expansions"),
        ("A = a", "needs expansions"),
        ("S -> A A 1.\nA = a\nand so on", "must hold '->' or '='; got 'and so on'"),
        ("S -> A 1.\nA = a", r"as in 'Det Noun .5'; got 'A 1.'"),
        ("S -> A B 1.\nA = a", "got 'A B 1.'"),
        ("S -> A A often\nA = a", "got 'A A often'"),
        ("S -> A A .5 |\nA = a", "got ''"),
        ("S -> A X 1.\nX^S -> A A 1.\nA = a", "X has no expansion under X; write 'X -> ...'"),
    ],
)
def test_what_cannot_be_read_is_a_user_error(text, message):
    with pytest.raises(UserError, match=message):
        read_grammar(text)
