"""Sentences with pickled spans, and everything that such a pickle must not hold."""

import collections
import gzip
import os
import pickle

import pytest

from gfn_envs import UserError
from lvms.data.span_file import read_span_file

TEXT = "a b c\nd e\n"
SPANS = [[(0, 1), (0, 2), (0, 1)], [(0, 1)]]


def write(folder, spans=SPANS, text=TEXT):
    source, pickled = folder / "x.src", folder / "x-trees.pkl"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    pickled.write_bytes(spans if isinstance(spans, bytes) else pickle.dumps(spans))
    return source, pickled


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("packed", [False, True])
def test_inclusive_spans_become_fenceposts_once_each(tmp_path, protocol, packed):
    content = pickle.dumps(SPANS, protocol)
    source, spans = write(tmp_path, gzip.compress(content) if packed else content)
    assert read_span_file(source, spans) == [
        (("a", "b", "c"), ((0, 3, ""), (0, 2, ""))),
        (("d", "e"), ((0, 2, ""),)),
    ]


def test_there_may_be_no_spans(tmp_path):
    source, _ = write(tmp_path, text="a b c\r\nd e")
    assert read_span_file(source, None) == [(("a", "b", "c"), None), (("d", "e"), None)]


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_can_call_nothing(tmp_path):
    harm = tmp_path / "harm"
    source, spans = write(tmp_path, [[Harmful(harm)]])
    with pytest.raises(UserError, match=r"not a pickle of lists.*names (posix|nt).mkdir"):
        read_span_file(source, spans)
    assert not harm.exists()


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([collections.OrderedDict()], r"it names collections.OrderedDict"),
        ([{(0, 1)}, []], r"it names builtins.set|no file of spans"),
        (b"", "not a pickle of lists"),
        (b"no pickle", "not a pickle of lists"),
        (pickle.dumps(SPANS)[:-5], "not a pickle of lists"),
        (gzip.compress(pickle.dumps(SPANS), mtime=0)[:-5], "damaged"),
        ({"spans": SPANS}, "no file of spans"),
        ([[(0, 1.0)], []], "no file of spans"),
        ([[(False, True)], []], "no file of spans"),
        ([[(0, "1")], []], "no file of spans"),
        ([[(0, 1, 2)], []], "no file of spans"),
        ([(0, 1), []], "no file of spans"),
        ([None, []], "no file of spans"),
        ([[(0, 1)]], "spans of 1 sentences, but .* has 2 lines"),
        ([[(0, 3)], []], r"the span \(0, 3\) of line 1 does not lie in its 3 words"),
        ([[], [(1, 1)]], r"the span \(1, 1\) of line 2 .* has fewer than two"),
        ([[(-1, 1)], []], r"the span \(-1, 1\) of line 1"),
        ([[(0, 1), (1, 2)], []], "spans of line 1 cross"),
    ],
)
def test_damaged_span_files_are_user_errors(tmp_path, spans, message):
    source, pickled = write(tmp_path, spans)
    with pytest.raises(UserError, match=message) as raised:
        read_span_file(source, pickled)
    assert str(pickled) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_endless_pickle_is_a_user_error(tmp_path):
    endless = []
    endless.append(endless)
    source, pickled = write(tmp_path, endless)
    with pytest.raises(UserError, match="no file of spans"):
        read_span_file(source, pickled)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a b c\n\nd e\n", "line 2: an empty sentence"), ("a\n \n", "line 2: an empty sentence"),
     (b"caf\xe9\n", "not text in UTF-8")],
)  # fmt: skip
def test_damaged_sentences_are_user_errors(tmp_path, text, message):
    source, pickled = write(tmp_path, text=text)
    with pytest.raises(UserError, match=message) as raised:
        read_span_file(source, pickled)
    assert str(source) in str(raised.value)
