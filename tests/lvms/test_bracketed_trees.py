"""Bracketed trees: what is written is read, and what is damaged is named with its line."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfn_envs import UserError
from lvms.data.bracketed_trees import BracketedTree, read_bracketed_trees
from lvms.data.tree_cleaning import Cleaning

SYMBOLS = st.text("abÄβ-*=|.0'`$", min_size=1, max_size=5)
TAGGED = st.tuples(SYMBOLS, SYMBOLS)
"""A word: its tag and itself."""
TREES = st.recursive(
    st.tuples(SYMBOLS, st.lists(TAGGED, min_size=1, max_size=2)),
    lambda trees: st.tuples(
        SYMBOLS | st.just(""), st.lists(trees | TAGGED, min_size=1, max_size=4)
    ),
    max_leaves=12,
)


def written(tree, spaces):
    """A tree in brackets, with blanks drawn from `spaces` between them."""
    label, inside = tree
    if isinstance(inside, str):
        return f"({label}{next(spaces)}{inside})"
    return f"({label}{next(spaces)}{next(spaces).join(written(one, spaces) for one in inside)})"


def expected(tree, line):
    """The tree as it should be read, by plain recursion."""
    words, tags, constituents = [], [], []

    def visit(node):
        label, inside = node
        if isinstance(inside, str):
            words.append(inside)
            tags.append(label)
            return
        left, place = len(words), len(constituents)
        constituents.append(None)
        for one in inside:
            visit(one)
        constituents[place] = (left, len(words), label)

    visit(tree)
    return BracketedTree(tuple(words), tuple(tags), tuple(constituents), line)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("trees") / "trees.mrg"


@given(st.lists(TREES, min_size=1, max_size=4), st.booleans(), st.randoms())
def test_what_is_written_is_read(file, trees, packed, random):
    spaces = iter(lambda: random.choice([" ", "\n", "\n\t ", "  "]), None)
    text, lines = "\n" * random.randrange(3), []
    for tree in trees:
        lines.append(text.count("\n") + 1)
        text += written(tree, spaces) + random.choice(["\n", "\n\n", " "])
    content = text.encode()
    file.write_bytes(gzip.compress(content) if packed else content)
    assert read_bracketed_trees(file) == [
        expected(tree, line) for tree, line in zip(trees, lines, strict=True)
    ]


def test_a_tree_of_the_penn_treebank(tmp_path):
    path = tmp_path / "wsj.mrg"
    path.write_text(
        "\n( (S \n    (NP-SBJ (DT The) (NN dog) )\n"
        "    (VP (VBZ barks) (NP (-NONE- *)))\n    (. .) ))\n"
    )
    assert read_bracketed_trees(path) == [
        BracketedTree(
            words=("The", "dog", "barks", "*", "."),
            tags=("DT", "NN", "VBZ", "-NONE-", "."),
            constituents=(
                (0, 5, ""), (0, 5, "S"), (0, 2, "NP-SBJ"), (2, 4, "VP"), (3, 4, "NP"),
            ),
            line=2,
        )
    ]  # fmt: skip


def test_all_that_stands_in_a_tag_is_one_word(tmp_path):
    path = tmp_path / "trees"
    path.write_text("(NP (NN † XPCS) (NN n ))")
    (tree,) = read_bracketed_trees(path)
    assert tree.words == ("† XPCS", "n")
    assert tree.constituents == ((0, 2, "NP"),)


def test_a_constituent_without_words_spans_none(tmp_path):
    path = tmp_path / "trees"
    path.write_text("(S (NP) (VP (VBZ barks) (RB loudly)))")
    (tree,) = read_bracketed_trees(path)
    assert tree.constituents == ((0, 2, "S"), (0, 0, "NP"), (0, 2, "VP"))


def test_a_directory_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "01").mkdir()
    (tmp_path / "01" / "b.mrg").write_text("(X b)")
    (tmp_path / "01" / "a.mrg.gz").write_bytes(gzip.compress(b"(X a)"))
    (tmp_path / "00.mrg").write_text("(X 0)")
    (tmp_path / ".hidden").write_text("no tree")
    assert [tree.words for tree in read_bracketed_trees(tmp_path)] == [("0",), ("a",), ("b",)]


# -- damaged files --------------------------------------------------------------------------------

GOOD = "(S (NP a) (VP b))\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "\n(S (NP a) (VP b)\n" + GOOD, "line 3: the tree that begins here is never closed"),
        (GOOD + "(S (NP a)) (VP b))\n" + GOOD, "line 2: a bracket closes that none opened"),
        (GOOD + "(S\n(NP a)))\n", "line 3: a bracket closes that none opened"),
        ("\n\nNP a)\n", "line 3: 'NP' is in no tree; the brackets do not balance"),
        (GOOD + "# a comment\n", "line 2: '#' is in no tree"),
        (GOOD + "()\n", "line 2: a tree without a word; remove it"),
        (GOOD + "( (S (NP)\n(VP)) )\n", "line 3: a tree without a word"),
        (GOOD + "(S)", "line 2: a tree without a word"),
        (GOOD + "(S\n(NP a) b\n)", "line 4: 'b' needs a bracket and tag of its own"),
        ("(S a (NP b))", "line 1: 'a' needs a bracket"),
        ("", "holds no tree"),
        (" \n", "holds no tree"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_trees_are_named_with_file_and_line(tmp_path, content, message, packed):
    path = tmp_path / "trees.mrg"
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    with pytest.raises(UserError, match=message) as raised:
        read_bracketed_trees(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
    path = tmp_path / "trees.mrg"
    path.write_bytes(GOOD.encode() + b"(NN caf\xe9)\n")
    with pytest.raises(UserError, match="line 2: not text in UTF-8"):
        read_bracketed_trees(path)


@pytest.mark.parametrize("cut", [-20, -5])
def test_a_damaged_gzip_file_is_a_user_error(tmp_path, cut):
    path = tmp_path / "trees.mrg.gz"
    path.write_bytes(gzip.compress(GOOD.encode() * 100, mtime=0)[:cut])
    with pytest.raises(UserError, match=r"damaged .*fetch it again"):
        read_bracketed_trees(path)


def test_what_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*No such file"):
        read_bracketed_trees(tmp_path / "none")
    with pytest.raises(UserError, match="holds no file to read trees from"):
        read_bracketed_trees(tmp_path)


# -- cleaning -------------------------------------------------------------------------------------

TREE = BracketedTree(
    words=("The", "U.S.-based", "dog", ",", "1,234.5", "*T*", "barks", "."),
    tags=("DT", "JJ", "NN", ",", "CD", "-NONE-", "VBZ", "."),
    constituents=(
        (0, 8, ""), (0, 8, "S"), (0, 6, "NP-SBJ-1"), (0, 3, "NP"), (1, 3, "NML=2"), (3, 5, "QP"),
        (4, 6, "NP|QP"), (6, 8, "VP"), (5, 7, "VP"),
    ),
    line=1,
)  # fmt: skip


def test_cleaning_removes_and_writes_as_the_compound_pcfg_does():
    words, spans = Cleaning().sentence(TREE)
    assert words == ("the", "u.s.-based", "dog", "N", "barks")
    assert spans == ((0, 5, "S"), (0, 4, "NP"), (0, 3, "NP"), (1, 3, "NML"))


def test_cleaning_can_leave_everything():
    cleaning = Cleaning(lower_case=False, numbers=False, removed_tags=frozenset())
    words, spans = cleaning.sentence(TREE)
    assert words == TREE.words
    assert spans == (
        (0, 8, "S"), (0, 6, "NP"), (0, 3, "NP"), (1, 3, "NML"), (3, 5, "QP"), (4, 6, "NP|QP"),
        (6, 8, "VP"), (5, 7, "VP"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("word", "cleaned"),
    [("89ΔN", "Nδn"), ("1,234.5", "N"), ("2-3", "N-N"), ("747S", "Ns"), ("1990s.", "Ns."),
     ("-LRB-", "-lrb-"), (".5", ".N")],
)  # fmt: skip
def test_numbers_become_n(word, cleaned):
    assert Cleaning().word(word) == cleaned


def test_unary_chains_keep_or_join_their_labels():
    tree = BracketedTree(
        ("a", "b", "."), ("X", "X", "."),
        ((0, 3, ""), (0, 3, "S"), (0, 2, "VP-1"), (0, 2, "VP"), (0, 2, "NP")), 1,
    )  # fmt: skip
    assert Cleaning().sentence(tree).spans == ((0, 2, "S"), (0, 2, "VP"), (0, 2, "NP"))
    assert Cleaning(collapse_unary=True).sentence(tree).spans == ((0, 2, "S+VP+NP"),)
    unnamed = tree._replace(constituents=((0, 3, ""),))
    assert Cleaning().sentence(unnamed).spans == ((0, 2, ""),)


def test_a_tree_of_punctuation_has_no_words_left():
    tree = BracketedTree((".",), (".",), ((0, 1, "S"),), 1)
    assert Cleaning().sentence(tree) == ((), ())
