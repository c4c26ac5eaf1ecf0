"""Words and their numbers."""

import pytest

from gfn_envs import UserError
from lvms.data.vocabulary import UNKNOWN, Vocabulary

SENTENCES = [["b", "a", "a"], ["c", "b", "a", "d"]]


def test_words_are_ordered_by_frequency_then_alphabet():
    assert Vocabulary.from_sentences(SENTENCES).words == (UNKNOWN, "a", "b", "c", "d")


@pytest.mark.parametrize(("size", "min_count"), [(2, 1), (10_000, 2), (2, 2)])
def test_rare_words_are_unknown(size, min_count):
    vocabulary = Vocabulary.from_sentences(SENTENCES, size, min_count)
    assert vocabulary.words == (UNKNOWN, "a", "b")
    assert len(vocabulary) == 3
    assert vocabulary.encode(["d", "a", "e", "b"]) == [0, 1, 0, 2]


def test_unknown_words_in_the_text_are_not_counted():
    vocabulary = Vocabulary.from_sentences([["a", UNKNOWN, UNKNOWN]], size=1)
    assert vocabulary.words == (UNKNOWN, "a")


def test_decoding_leaves_out_padding():
    vocabulary = Vocabulary(("x", "y"))
    assert vocabulary.decode([1, 0, 1, -1, -1]) == ["y", "x", "y"]


def test_a_word_never_seen_is_a_user_error_without_unk():
    vocabulary = Vocabulary(("the", "dog", "barks"))
    message = r"The word 'cat' in 'the cat barks' is not one of the 3 words .* no <unk>"
    with pytest.raises(UserError, match=message) as raised:
        vocabulary.encode(["the", "cat", "barks"])
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"in 'cat the[the ]+\.\.\.' is not"):
        vocabulary.encode(["cat", *["the"] * 40])


def test_impossible_vocabularies_are_user_errors():
    with pytest.raises(UserError, match="'b' is in the vocabulary more than once"):
        Vocabulary(("a", "b", "b"))
    with pytest.raises(UserError, match=r"No word occurs 4 times \(min_count\)"):
        Vocabulary.from_sentences(SENTENCES, min_count=4)
    for size, min_count in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="must be at least 1"):
            Vocabulary.from_sentences(SENTENCES, size, min_count)
