"""Trees written with brackets, as in the Penn Treebank: `(S (NP (DT the) (NN dog)) (VBZ barks))`.

A tree may lie on one line or on several, and may have a bracket without a label around it. Each
word has a bracket of its own, with its part of speech. All that stands in such a bracket is one
word, even with a space in it, as in CRAFT.
"""

import re
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from gfn_envs.errors import UserError
from lvms.data.data_file import files_below, open_data
from lvms.data.parsed_sentence import Span

_TOKEN = re.compile(r"\(\s*([^\s()]*)|(\))|([^\s()]+)")
"""An opening bracket with its label, a closing bracket, or a word."""


class BracketedTree(NamedTuple):
    """A tree as it is written.

    Attributes:
        words: All of them, punctuation and empty elements too.
        tags: The parts of speech of the words.
        constituents: The spans of all other brackets, parents before children, of any width.
        line: Where it begins in its file, from 1.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    constituents: tuple[Span, ...]
    line: int


def read_bracketed_trees(path: Path) -> list[BracketedTree]:
    """Reads the trees of a file, or of all files in a directory and below it.

    Args:
        path: A file in UTF-8, gzipped or not, or a directory of such files, which are read in the
            order of their names; hidden files are passed over.

    Returns:
        The trees in their order, at least one.

    Raises:
        UserError: If a file cannot be read, holds no tree, a tree without a word, a word without a
            bracket of its own, or brackets that do not balance, naming file and line; or if a
            directory holds no file or cannot be listed.
    """
    if not path.is_dir():
        return _read_file(path)
    files = [file for file in files_below(path) if not file.name.startswith(".")]
    if not files:
        raise UserError(f"{path} holds no file to read trees from.")
    return [tree for file in files for tree in _read_file(file)]


class _Bracket(NamedTuple):
    """An open bracket: its label, what stands before it, and the text right inside it."""

    label: str
    words_before: int
    constituent: int
    text: list[str]


def _read_file(path: Path) -> list[BracketedTree]:
    """Reads the trees of one file."""
    text = _read_text(path)
    trees: list[BracketedTree] = []
    # Of the tree that is being read:
    words: list[str] = []
    tags: list[str] = []
    constituents: list[Span] = []
    opened: list[_Bracket] = []
    start, line = 0, 1

    def error(token: re.Match[str], what: str) -> UserError:
        place = line + text.count("\n", start, token.start())
        return UserError(f"{path}, line {place}: {what}")

    with tqdm(total=len(text), desc=path.name, delay=1.0, leave=False, dynamic_ncols=True) as bar:
        for token in _TOKEN.finditer(text):
            label, closing, word = token.groups()
            if label is not None:
                if not opened:
                    line += text.count("\n", start, token.start())
                    bar.update(token.start() - start)
                    start = token.start()
                opened.append(_Bracket(label, len(words), len(constituents), []))
                constituents.append((len(words), len(words), label))
            elif not opened:
                what = "a bracket closes that none opened" if closing else f"'{word}' is in no tree"
                raise error(token, f"{what}; the brackets do not balance.")
            elif word:
                opened[-1].text.append(word)
            else:
                label, before, place, inside = opened.pop()
                if not inside:
                    constituents[place] = (before, len(words), label)
                elif (before, place) == (len(words), len(constituents) - 1):
                    constituents.pop()  # a word with its tag
                    words.append(" ".join(inside))
                    tags.append(label)
                else:
                    raise error(token, f"'{inside[0]}' needs a bracket and tag of its own.")
                if not opened:
                    if not words:
                        raise error(token, "a tree without a word; remove it.")
                    trees.append(
                        BracketedTree(tuple(words), tuple(tags), tuple(constituents), line)
                    )
                    words, tags, constituents = [], [], []
    if opened:
        raise UserError(
            f"{path}, line {line}: the tree that begins here is never closed; "
            "the brackets do not balance."
        )
    if not trees:
        raise UserError(f"{path} holds no tree.")
    return trees


def _read_text(path: Path) -> str:
    """Reads a whole file."""
    with open_data(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not text in UTF-8; convert the file.") from error
