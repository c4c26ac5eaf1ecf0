"""A little treebank, tiny grammar runs on it, and what must be equal in two."""

import json
import random

import torch

from benchmarks.grammar.sweep import Options
from benchmarks.grammar.task import GrammarTask
from benchmarks.runner import open_run, run_task, start_run
from tests.benchmarks.runs import without_time

NAME = "grammar"

TINY = {
    "max_words": 6, "nonterminals": 3, "preterminals": 4, "dim": 8, "rounds": 4, "every": 2,
    "updates": (12,), "batch_size": 8, "validation_sentences": 15,
}  # fmt: skip

COSTS = ("CPU s",)

SIZES = {"train": 60, "valid": 20, "test": 24}


def sentence(draw):
    """A tree in brackets of 2 to 6 words: a noun phrase, and a verb phrase or a phrase apart."""
    noun = "(NP (D the) (N {}))".format(draw.choice(["cat", "dog", "bird"]))
    verb = "(V {})".format(draw.choice(["sees", "hears"]))
    other = "(NP (D a) (N {}))".format(draw.choice(["mouse", "fly"]))
    kinds = [
        f"(S {noun} (VP {verb} {other}) (. .))",
        f"(S {noun} (VP {verb} (ADV often)))",
        f"(S (PRP she) (VP {verb} {other}))",
        f"(FRAG {noun})",
    ]
    return f"({draw.choice(kinds)})"


def write_treebank(folder):
    """Writes a directory of bracketed trees for training, validation and testing."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        draw = random.Random(seed)
        lines = [sentence(draw) for _ in range(size)]
        (folder / f"{name}.mrg").write_text("\n".join(lines) + "\n")
    return str(folder)


def tiny_task(data, **changes):
    return GrammarTask(Options(**{**TINY, "data": data, **changes}))


def start(path, data, **changes):
    task = tiny_task(data, **changes)
    return task, start_run(NAME, task, path)


def resume(path, workers=1):
    """As another process would: from the folder alone, with other global random states."""
    torch.manual_seed(12345)
    folder, task = open_run(NAME, path)
    return run_task(task, folder, workers=workers)


def numbers(path):
    """Every number of each cell that must not depend on how it was carried out."""
    found = {}
    for cell in sorted(path.glob("cells/*/*")):
        lines = (cell / "metrics.jsonl").read_text().splitlines()
        # As text, since some standard errors are NaN, which equals nothing.
        found[str(cell.relative_to(path))] = json.dumps(
            [
                [without_time(json.loads(line)) for line in lines],
                without_time(json.loads((cell / "summary.json").read_text())),
                json.loads((cell / "per-sentence.json").read_text()),
            ]
        )
    return found


def tables(path):
    """The rows of each table of `table.md` by their first column, without the seconds."""
    found, lines = [], (path / "table.md").read_text().splitlines()
    for line, before in zip(lines, ["", *lines], strict=False):
        words = [word.strip() for word in line.split("|")[1:-1]]
        if not words:
            continue
        if not before.startswith("|"):
            heads = words
            found.append({})
        elif "--" not in line:
            row = dict(zip(heads, words, strict=True))
            found[-1][words[0]] = {name: row[name] for name in heads if name not in COSTS}
    return found


def words(data, **changes):
    """The same options on the command line."""
    found = []
    for name, value in {**TINY, "data": data, **changes}.items():
        values = value if isinstance(value, tuple) else (value,)
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found
