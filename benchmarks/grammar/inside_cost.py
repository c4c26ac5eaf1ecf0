"""What log p(x) of a grammar and its gradient cost, beside torch-struct's CKY in the same run.

python -m benchmarks.grammar.inside_cost --threads 2
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from benchmarks.throughput.measure import peak_memory
from gfn_envs.errors import UserError
from lvms.grammars.inside import log_marginal
from lvms.grammars.rules import GrammarRules

VOCABULARY = 10_000
"""As in the compound-PCFG work's treebank."""

MEMORY = "over 23 GB"
"""What torch-struct needs at the largest size."""


class Size(NamedTuple):
    """A grammar and sentences of one length."""

    nonterminals: int
    preterminals: int
    batch: int
    words: int


SIZES = [
    *(Size(10, 20, 8, words) for words in (10, 20, 40)),
    *(Size(30, 60, 4, words) for words in (10, 20, 40)),
]
LARGEST = Size(30, 60, 32, 40)

LogMarginal = Callable[[GrammarRules, Tensor], Tensor]


def problem(size: Size) -> tuple[GrammarRules, Tensor]:
    """Draws a grammar, to be differentiated, and sentences `[B, n]`."""
    generator = torch.Generator().manual_seed(0)
    labels, symbols = size.nonterminals, size.nonterminals + size.preterminals
    binary = torch.randn(labels, symbols**2, generator=generator).log_softmax(-1)
    rules = GrammarRules(
        torch.randn(labels, generator=generator).log_softmax(-1).requires_grad_(),
        binary.view(labels, symbols, symbols).requires_grad_(),
        torch.randn(size.preterminals, VOCABULARY, generator=generator)
        .log_softmax(-1)
        .requires_grad_(),
    )
    return rules, torch.randint(VOCABULARY, (size.batch, size.words), generator=generator)


def torch_struct_log_marginal(rules: GrammarRules, x: Tensor) -> Tensor:
    """Computes log p(x) as a user of torch-struct would, float `[B]`."""
    terms = F.embedding(x, rules.emission.T)
    binary = rules.binary.expand(len(x), -1, -1, -1)
    potentials = terms, binary, rules.root.expand(len(x), -1)
    return _torch_struct().SentCFG(potentials).partition


def _torch_struct() -> ModuleType:
    """Imports torch-struct, which only this benchmark and the tests need."""
    try:
        import torch_struct
    except ImportError:
        raise UserError("This needs torch-struct: pip install torch-struct==0.5") from None
    return torch_struct


class Cost(NamedTuple):
    """Wall seconds of each repeat, of log p(x) alone and with its gradient."""

    forward: list[float]
    both: list[float]


def measure(sides: Sequence[LogMarginal], size: Size, repeats: int) -> list[Cost]:
    """Times all sides in turn, after a call that warms up.

    Raises:
        RuntimeError: If they do not compute the same.
    """
    rules, x = problem(size)
    values = [side(rules, x).detach() for side in sides]
    for value in values:
        if not torch.allclose(value, values[0], rtol=1e-5):
            raise RuntimeError(f"The sides differ at {size}: {value} and {values[0]}.")
    costs = [Cost([], []) for _ in sides]
    for _ in range(repeats):
        for side, cost in zip(sides, costs, strict=True):
            begin = time.perf_counter()
            total = side(rules, x).sum()
            cost.forward.append(time.perf_counter() - begin)
            torch.autograd.grad(total, (rules.root, rules.binary, rules.emission))
            cost.both.append(time.perf_counter() - begin)
    return costs


def megabytes(side: LogMarginal, size: Size) -> str:
    """The most that one call and its gradient hold in tensors beyond the tables."""
    rules, x = problem(size)
    tables = (rules.root, rules.binary, rules.emission)
    return f"{peak_memory(lambda: torch.autograd.grad(side(rules, x).sum(), tables)) / 1e6:.0f}"


def tabulated(repeats: int, largest: bool) -> str:
    """Measures every size and lays the costs out.

    Args:
        repeats: How often each side is timed.
        largest: Whether torch-struct is run at the largest size too.
    """
    rows = []
    for size in [*SIZES, LARGEST]:
        sides = [log_marginal, torch_struct_log_marginal]
        if size == LARGEST and not largest:
            sides.pop()
        costs = measure(sides, size, repeats)
        row = [*size, *map(_milliseconds, costs[0]), megabytes(sides[0], size)]
        if len(sides) == 1:
            row += ["-", "-", MEMORY, "-", "-"]
        else:
            ratios = [min(b) / min(a) for a, b in zip(*costs, strict=True)]
            row += [*map(_milliseconds, costs[1]), megabytes(sides[1], size)]
            row += [f"{ratio:.1f}" for ratio in ratios]
        rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    head = [
        "NT", "PT", "batch", "words", "forward, ms", "with gradient", "MB",
        "torch-struct's forward", "with gradient", "MB", "ratio forward", "with gradient",
    ]  # fmt: skip
    caption = (
        f"Wall time (torch's threads: {torch.get_num_threads()}), least / median of {repeats}; "
        "ratios of the least; MB is the most held in tensors, beyond the grammar's tables."
    )
    table = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{caption}"


def _milliseconds(seconds: list[float]) -> str:
    return f"{1000 * min(seconds):.1f} / {1000 * statistics.median(seconds):.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument(
        "--large", action="store_true",
        help=f"run torch-struct at the largest size too; it needs {MEMORY}",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        if min(given.threads, given.repeats) < 1:
            raise UserError("Every number must be at least 1.")
        _torch_struct()
        torch.set_num_threads(given.threads)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*arg_constraints")
            print(tabulated(given.repeats, given.large))
    except UserError as error:
        print(f"inside_cost: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
