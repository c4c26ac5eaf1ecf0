"""What an update of a policy over parse trees costs, beside the published code of Hu et al. (2023).

An update is all of: sentences read, trees drawn and rewarded, the loss and its gradient, Adam.

python -m benchmarks.grammar.e_update_cost --threads 1
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from tabulate import tabulate

from algorithms.backward_policy import LearnedBackward
from algorithms.forward_looking import ForwardLookingSubTrajectoryBalance
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.objective import Objective
from algorithms.span_balance import SpanBalance
from algorithms.tree_policies import tree_policies
from gfn_envs.errors import UserError
from lvms.grammars.neural_grammar import NeuralNCFG, NeuralPCFG

VOCABULARY = 10_000
"""As in the compound-PCFG work's treebank."""


class Setting(NamedTuple):
    """A policy, a grammar and a batch.

    Attributes:
        policy: Its name in `tree_policies`; `forest` is trained as in the paper, by
            forward-looking SubTB with lambda = 1 and a learned P_B, `chart` by `span-db`.
        parent: Whether the grammar's rules are given the parent's label.
        nonterminals: K.
        preterminals: P.
        words: Of every sentence, and the most that the model takes.
        batch: Sentences an update.
        trees: Trees drawn for each.
        authors: Seconds that the published code took on 2 cores for as many sentences of at most as
            many words under such a grammar, by the Transformer of `forest` (at 20 words a larger
            one); "-" if it was not measured.
    """

    policy: str
    parent: bool
    nonterminals: int
    preterminals: int
    words: int
    batch: int
    trees: int
    authors: str


SETTINGS = (
    Setting("forest", False, 30, 20, 10, 8, 1, "0.217"),
    Setting("chart", False, 30, 20, 10, 64, 1, "-"),
    Setting("chart", False, 30, 20, 10, 64, 4, "-"),
    Setting("chart", False, 29, 60, 20, 32, 1, "13 to 16"),
    Setting("chart", False, 29, 60, 20, 32, 4, "13 to 16"),
    Setting("chart", True, 29, 60, 20, 32, 1, "13 to 16"),
    Setting("chart", True, 29, 60, 20, 32, 4, "13 to 16"),
)
"""With one tree a sentence, as in the paper, and with four, as `gflownet-em` has by default."""


class Cost(NamedTuple):
    """Of each repeat, seconds by the clock and of CPU time."""

    wall: list[float]
    cpu: list[float]


def make_e_step(setting: Setting) -> GFlowNetEStep:
    """Builds model, policy and objective with random parameters."""
    torch.manual_seed(0)
    kind = NeuralNCFG if setting.parent else NeuralPCFG
    bottom_up = setting.policy == "forest"
    model = kind(
        VOCABULARY, setting.words, setting.nonterminals, setting.preterminals,
        tree="bottom-up" if bottom_up else "top-down",
    )  # fmt: skip
    objective: Objective = SpanBalance(model.node_scores)
    if bottom_up:
        objective = ForwardLookingSubTrajectoryBalance(
            model.log_partial, LearnedBackward(), lambda_=1.0
        )
    return GFlowNetEStep(
        model, tree_policies.make(setting.policy, model), objective,
        batch_size=setting.batch, samples_per_x=setting.trees, learning_rate=1e-3,
    )  # fmt: skip


def measure(setting: Setting, repeats: int) -> Cost:
    """Times updates at one theta, after two that warm up; words are random."""
    e_step, ids = make_e_step(setting), torch.arange(setting.batch)
    shape = setting.batch, setting.words
    x = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(0))
    rows = ids.repeat_interleave(setting.trees)
    cost = Cost([], [])
    for repeat in range(-2, repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        e_step.train(x, ids, rows)
        if repeat >= 0:
            cost.wall.append(time.perf_counter() - wall)
            cost.cpu.append(time.process_time() - cpu)
    return cost


def tabulated(repeats: int) -> str:
    """Measures every setting and lays the costs out.

    Args:
        repeats: How many updates of each are timed.
    """
    rows = []
    for setting in SETTINGS:
        cost = measure(setting, repeats)
        sizes = setting.nonterminals, setting.preterminals, setting.words, setting.batch
        each = [1000 * seconds / setting.batch for seconds in cost.wall]
        rows.append(
            [
                setting.policy, "NCFG" if setting.parent else "context-free", *sizes, setting.trees,
                f"{min(each):.2f} / {statistics.median(each):.2f}",
                f"{min(cost.wall):.3f} / {statistics.median(cost.wall):.3f}",
                f"{min(cost.cpu):.3f} / {statistics.median(cost.cpu):.3f}",
                setting.authors,
            ]
        )  # fmt: skip
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    head = [
        "policy", "grammar", "NT", "PT", "words", "batch", "trees", "ms a sentence",
        "seconds an update", "CPU-seconds", "authors' seconds",
    ]  # fmt: skip
    caption = (
        f"Wall time but for CPU-seconds (torch's threads: {torch.get_num_threads()}), least / "
        f"median of {repeats} updates at fixed rules; the authors' code was measured on 2 cores, "
        "earlier."
    )
    table = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{caption}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="(default: 10)")
    given = parser.parse_args(arguments)
    try:
        if min(given.threads, given.repeats) < 1:
            raise UserError("Every number must be at least 1.")
        torch.set_num_threads(given.threads)
        print(tabulated(given.repeats))
    except UserError as error:
        print(f"e_update_cost: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
