"""The settings of the grammar task, and its presets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.grammar.methods import grammar_methods
from benchmarks.held_out.options import HeldOutOptions
from benchmarks.options import option, require_at_least
from gfn_envs.errors import UserError
from lvms.grammars.built_in import built_in_grammars
from lvms.grammars.grammar import TREES

POSITIVE = (
    "sentences", "vocabulary", "min_count", "nonterminals", "preterminals", "dim",
    "samples", "validation_sentences",
)  # fmt: skip
"""Options that must be at least 1."""

MOST_WORDS = 100
"""Charts of longer sentences fit no memory."""


@dataclass(frozen=True)
class Options(HeldOutOptions):
    """What can be set on the command line; the defaults make a quick comparison."""

    methods: tuple[str, ...] = option(
        (
            "marginalisation", "exact-sampling", "monte-carlo", "ncfg-marginalisation",
            "ncfg-exact-sampling", "ncfg-monte-carlo",
        ),
        "registered grammar methods",
    )  # fmt: skip
    cpu_minutes: float = option(
        0.2, "CPU-minutes of each method and seed, where --updates is not given"
    )
    rounds: int = option(50, "rounds that the mini-batches are spread over, for log and bar")
    data: str = option(
        "attachment", f"built-in grammar ({', '.join(built_in_grammars)}), ptb-text, a bracketed "
        "file, or a directory with files train, valid and test of bracketed trees or of spans",
    )  # fmt: skip
    sentences: int = option(
        2000, "training sentences drawn from a built-in grammar; a quarter as many for validation "
        "and for testing",
    )  # fmt: skip
    data_seed: int = option(0, "seed of such sentences, or of the split of a single file")
    max_words: int = option(10, "longer sentences are left out")
    min_words: int = option(2, "shorter sentences are left out")
    vocabulary: int = option(10_000, "words of a treebank that are kept at most, beside <unk>")
    min_count: int = option(1, "how often such a word must occur; with small treebanks 2 or more")

    nonterminals: int = option(12, "nonterminals of the grammars that learn, K")
    preterminals: int = option(24, "their preterminals, P")
    dim: int = option(64, "numbers that an embedded symbol has")
    rate: float = option(5e-3, "Adam's learning rate, until it falls over the last updates")
    tree: str = option(
        "bottom-up", "environment in which trees are built, where the method's policy does not say",
        tuple(TREES),
    )  # fmt: skip

    parser: str = option(
        "mbr", "trees that are judged: those with the most expected right spans, or the most "
        "probable ones", ("mbr", "viterbi"),
    )  # fmt: skip
    samples: int = option(
        100, "trees drawn for each sentence to estimate NLL and parses where no exact algorithm "
        "finds them, as with energies of shapes",
    )  # fmt: skip
    validation_sentences: int = option(
        500, "validation sentences that are measured, at most; the weights with the least NLL on "
        "them are judged, never those with the best F1, which takes gold trees",
    )  # fmt: skip
    test_sentences: int = option(0, "test sentences that are measured; 0: all")

    def check(self) -> None:
        """Raises a UserError if an option cannot be served."""
        require_at_least(1, self, POSITIVE)
        require_at_least(0, self, ("test_sentences", "data_seed"))
        self.check_shared(grammar_methods)
        if not self.data:
            raise UserError(
                "--data is missing: name a treebank, such as a directory with train.mrg.gz, "
                "valid.mrg.gz and test.mrg.gz."
            )
        if not 0 < self.rate < math.inf:
            raise UserError(f"--rate must be a positive number; got {self.rate}.")
        if not 2 <= self.min_words <= self.max_words <= MOST_WORDS:
            raise UserError(
                f"--min-words must be at least 2 and --max-words at most {MOST_WORDS} and no less; "
                f"got {self.min_words} and {self.max_words}."
            )


TREEBANK: Mapping[str, Any] = {
    "data": "",
    "min_count": 2,
    "nonterminals": 29,
    "preterminals": 60,
    "dim": 256,
    "rate": 1e-3,
}
"""The paper's sizes, on short sentences of a treebank that `--data` names."""

presets: Mapping[str, Mapping[str, Any]] = {
    # Hu et al. 2023, section 5.2. Hours without the last method, and days with it; --updates
    # shortens it. Those of the last method are the policy's and the grammar's together.
    "paper": {
        "methods": ("marginalisation", "exact-sampling", "monte-carlo", "gflownet-em-paper"),
        "data": "ptb-text",
        "max_words": 20,
        "nonterminals": 29,
        "preterminals": 60,
        "dim": 256,
        "rate": 1e-3,
        "batch_size": 32,
        "updates": (10_000,),
        "rounds": 200,
        "every": 10,
    },
    # Ours on sentences whose grammar is known and not context-free.
    "gflownet": {
        "methods": (
            "marginalisation",
            "exact-sampling",
            "monte-carlo",
            "gflownet-em",
            "ncfg-marginalisation",
            "ncfg-gflownet-em",
        ),
        "data": "roles",
        "cpu_minutes": 3.0,
        "seeds": 3,
        "rounds": 100,
    },
    # A grammar that is known, with ambiguous attachment: the EM suite's `toy`.
    "toy": {
        "methods": ("marginalisation", "exact-sampling", "monte-carlo", "gibbs", "gflownet-em"),
        "data": "attachment",
        "cpu_minutes": 0.5,
        "seeds": 3,
    },
    # A look at a treebank: the EM suite's `craft-10`.
    "craft-10": {
        "methods": (
            "marginalisation",
            "exact-sampling",
            "monte-carlo",
            "gibbs",
            "gflownet-em",
            "energy-gflownet-em",
        ),
        **TREEBANK,
        "cpu_minutes": 3.0,
        "seeds": 3,
    },
    # An hour each. Exact methods overfit within minutes, and are measured often enough to see it.
    "treebank-10": {
        "methods": ("marginalisation", "exact-sampling", "monte-carlo"),
        **TREEBANK,
        "cpu_minutes": 60.0,
        "seeds": 3,
        "rounds": 600,
        "every": 3,
        "patience": 30,
    },
}
