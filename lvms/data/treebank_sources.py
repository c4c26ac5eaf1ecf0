"""Where sentences and trees come from: an installed package, files and directories."""

import re
from collections.abc import Callable
from pathlib import Path

from gfn_envs.errors import UserError, unknown_name
from lvms.data.bracketed_trees import read_bracketed_trees
from lvms.data.data_file import list_folder
from lvms.data.parsed_sentence import ParsedSentence
from lvms.data.penn_text import read_penn_text
from lvms.data.span_file import read_span_file
from lvms.data.tree_cleaning import Cleaning

_PARTS = {
    "train": ("train", "training"),
    "validation": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
"""What files and directories of a treebank's parts are called."""

_PENN_SECTIONS = {
    "train": {f"{section:02}" for section in range(2, 22)},
    "validation": {"22"},
    "test": {"23"},
}
"""The directories of the Wall Street Journal part of the Penn Treebank, by custom."""


def read_parts(source: str | Path, cleaning: Cleaning) -> list[list[ParsedSentence]]:
    """Reads a named text, a bracketed file or a directory.

    Args:
        source: A key of `treebank_sources`; a bracketed file; or a directory that holds a
            bracketed file or a directory of them for each part (`train.mrg.gz`, `valid`,
            `ptb-test.txt`), the sections of the Penn Treebank (`02` to `23`), or span files
            (`train.src` and, where there are gold trees, `train-trees.pkl`). A directory may lack
            a part for validation.
        cleaning: How trees become sentences. Text and span files are published cleaned, and are
            taken as they are.

    Returns:
        All sentences; or those for training and for testing; or those for training, validation
        and testing.

    Raises:
        UserError: If there is no such source, what brings it is missing, or a file is damaged.
    """
    if source in treebank_sources:
        return treebank_sources[str(source)]()
    path = Path(source).expanduser()
    if path.is_file():
        return [_read_trees([path], cleaning)]
    if not path.is_dir():
        raise unknown_name("treebank, file or directory", str(source), treebank_sources)
    entries = [entry for entry in list_folder(path) if not entry.name.startswith(".")]
    texts = [entry for entry in entries if ".src" in entry.suffixes]
    if texts:
        spans = _by_part(path, [entry for entry in entries if ".pkl" in entry.suffixes])
        sources = _by_part(path, texts, needed=("train", "test"))
        return [read_span_file(file, spans.get(part)) for part, file in sources.items()]
    if {entry.name for entry in entries} >= set().union(*_PENN_SECTIONS.values()):
        return [
            _read_trees([path / section for section in sorted(sections)], cleaning)
            for sections in _PENN_SECTIONS.values()
        ]
    files = _by_part(path, entries, needed=("train", "test"))
    return [_read_trees([file], cleaning) for file in files.values()]


def _read_trees(paths: list[Path], cleaning: Cleaning) -> list[ParsedSentence]:
    """Reads bracketed files and directories of them, one after the other."""
    return [cleaning.sentence(tree) for path in paths for tree in read_bracketed_trees(path)]


def _by_part(folder: Path, entries: list[Path], needed: tuple[str, ...] = ()) -> dict[str, Path]:
    """Finds for each part, in the order train, validation, test, the entry named after it."""
    found: dict[str, list[Path]] = {}
    for part, names in _PARTS.items():
        for entry in entries:
            if not set(names).isdisjoint(re.findall(r"[a-z]+", entry.name.lower())):
                found.setdefault(part, []).append(entry)
    if found.keys() >= set(needed) and all(len(several) == 1 for several in found.values()):
        return {part: entry for part, [entry] in found.items()}
    shown = ", ".join(entry.name for several in found.values() for entry in several) or "none"
    raise UserError(
        f"{folder} must hold one file or directory each for training and testing, and may hold "
        f"one for validation (train.mrg.gz, valid.mrg.gz, test.mrg.gz); found: {shown}."
    )


treebank_sources: dict[str, Callable[[], list[list[ParsedSentence]]]] = {"ptb-text": read_penn_text}
"""Every named treebank."""
