"""Sentences in a `.src` file, one a line, and their gold spans in a pickle beside it."""

import io
import pickle
from pathlib import Path
from typing import Any

from gfn_envs.errors import UserError
from lvms.data.data_file import open_data
from lvms.data.parsed_sentence import ParsedSentence


class _NumberUnpickler(pickle.Unpickler):
    """Rebuilds built-in containers and numbers and refuses all else: a pickle may call anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuses every name; see `pickle.Unpickler.find_class`."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_span_file(source: Path, spans: Path | None) -> list[ParsedSentence]:
    """Reads sentences and, where there are any, their gold spans.

    Args:
        source: One sentence a line, in UTF-8, gzipped or not.
        spans: A pickle of a list for each sentence with a pair (i, j) for each constituent: its
            first and its last word, counted from 0, two words or more; or None.

    Returns:
        The sentences; spans have no labels, and one that repeats is given once.

    Raises:
        UserError: If a file cannot be read, a line is empty, the pickle holds anything but lists,
            tuples and integers, or the two do not fit.
    """
    sentences = _read_sentences(source)
    if spans is None:
        return [ParsedSentence(words, None) for words in sentences]
    trees = _unpickle(spans)
    if not isinstance(trees, list) or not all(map(_is_span_list, trees)):
        raise UserError(
            f"{spans} is no file of spans: it must hold a list for each sentence of pairs of "
            "integers, in lists and tuples only."
        )
    if len(trees) != len(sentences):
        raise UserError(
            f"{spans} has spans of {len(trees)} sentences, but {source} has {len(sentences)} lines."
        )
    parsed = []
    for line, (words, pairs) in enumerate(zip(sentences, trees, strict=True), 1):
        gold = sorted({(first, last + 1) for first, last in pairs}, key=lambda s: (s[0], -s[1]))
        if wrong := [pair for pair in gold if not 0 <= pair[0] < pair[1] - 1 < len(words)]:
            first, end = wrong[0]
            raise UserError(
                f"{spans}: the span ({first}, {end - 1}) of line {line} does not lie in its "
                f"{len(words)} words, or has fewer than two."
            )
        if _cross(gold):
            raise UserError(f"{spans}: spans of line {line} cross, so they are no tree.")
        parsed.append(ParsedSentence(words, tuple((left, right, "") for left, right in gold)))
    return parsed


def _read_sentences(path: Path) -> list[tuple[str, ...]]:
    """Reads lines of words."""
    with open_data(path) as file:
        content = file.read()
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8; convert the file.") from error
    if not lines[-1]:
        lines.pop()  # what follows the last line's end
    sentences = [tuple(line.split()) for line in lines]
    if () in sentences:
        raise UserError(f"{path}, line {sentences.index(()) + 1}: an empty sentence; remove it.")
    return sentences


def _unpickle(path: Path) -> Any:
    """Reads a pickle that names nothing."""
    with open_data(path) as file:
        content = io.BytesIO(file.read())  # all of it, for gzip has its checksum at the end
    try:
        return _NumberUnpickler(content).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"{path} is not a pickle of lists, tuples and integers, or is damaged ({error})."
        ) from error


def _is_span_list(spans: Any) -> bool:
    """Says whether something is a list of pairs of integers."""
    return isinstance(spans, list) and all(
        type(pair) in (tuple, list) and len(pair) == 2 and all(type(i) is int for i in pair)
        for pair in spans
    )


def _cross(spans: list[tuple[int, int]]) -> bool:
    """Says whether two spans overlap without one holding the other; they must be in order."""
    around: list[tuple[int, int]] = []
    for left, right in spans:
        while around and around[-1][1] <= left:
            around.pop()
        if around and right > around[-1][1]:
            return True
        around.append((left, right))
    return False
