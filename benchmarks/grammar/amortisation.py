"""When amortisation pays: exact inference in grammars beside policies, by size and by length.

python -m benchmarks.grammar.amortisation --out runs/amortisation
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from algorithms.alternation import FixedUpdates
from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.residual_loss import Huber
from algorithms.schedule import Constant
from algorithms.span_balance import SpanBalance
from algorithms.tree_policies import tree_policies
from benchmarks import provenance
from benchmarks.grammar import amortisation_report
from benchmarks.posterior.curves import measure_e_step, train_posterior
from benchmarks.posterior.training import FAST_SHARE
from benchmarks.run_folder import RunFolder
from benchmarks.throughput.measure import Timing, Work, measure
from benchmarks.tree_posterior.problem import scale_logits
from gfn_envs.errors import UserError
from lvms.grammars.sized_sampling import sample_of_lengths
from lvms.grammars.table_grammar import TableGrammar

BATCH, TREES = 32, 4
"""Sentences of a batch; trees for each of an update."""

VOCABULARY, TRAINING, HELD_OUT = 1000, 512, 64
"""Words, and sentences."""

LOGIT_SCALE = 2.0
"""The standard deviation of the rules' logits, so that they differ as learned ones do."""

LEARNING_RATE, EPSILON = 5e-3, 0.05

EXACT = "exact"


@dataclass(frozen=True)
class Setting:
    """A grammar and sentences of one length.

    Attributes:
        parent: Whether its rules depend on the parent.
        nonterminals: K; there are 2 K preterminals.
        words: n.
    """

    parent: bool
    nonterminals: int
    words: int

    @property
    def grammar(self) -> str:
        """What people are shown of its kind."""
        return "given the parent" if self.parent else "context-free"


BY_SIZE, BY_LENGTH = ((5, 20), (10, 20), (20, 20), (30, 20)), ((20, 10), (20, 20), (20, 40))
"""Nonterminals and words of the settings in which the one grows, and the other."""

SETTINGS = [
    Setting(parent, *sizes)
    for parent in (False, True)
    for sizes in dict.fromkeys((*BY_SIZE, *BY_LENGTH))
]
QUICK = [Setting(parent, 5, 10) for parent in (False, True)]


@dataclass(frozen=True)
class Comparison:
    """One policy beside exact inference in one setting.

    Attributes:
        setting: Where.
        policy: Which.
        exact: CPU milliseconds a sentence: exact inference and a tree.
        sample: The same by the policy.
        update: CPU milliseconds a sentence of an update of the policy.
        untrained: KL(q || p) before training, nats a held-out sentence.
        gap: KL(q || p) after it.
    """

    setting: Setting
    policy: str
    exact: Timing
    sample: Timing
    update: Timing
    untrained: float
    gap: float

    @property
    def sampling_ratio(self) -> float:
        """Exact inference over a trained policy, the median over repeats."""
        pairs = zip(self.exact.milliseconds, self.sample.milliseconds, strict=True)
        return statistics.median(exact / sample for exact, sample in pairs)

    @property
    def learning_ratio(self) -> float:
        """Exact inference over a policy that is updated for each batch, as EM does."""
        return statistics.median(
            exact / (sample + update)
            for exact, sample, update in zip(
                self.exact.milliseconds,
                self.sample.milliseconds,
                self.update.milliseconds,
                strict=True,
            )
        )

    def sentences_to_earn(self, cpu_seconds: float) -> float | None:
        """How many sentences must be sampled to earn so much training back; None if never."""
        saved = (self.exact.median - self.sample.median) / 1000
        return cpu_seconds / saved if saved > 0 else None


def problem(setting: Setting) -> tuple[TableGrammar, Tensor]:
    """Draws a grammar and sentences of it, int64 `[TRAINING + HELD_OUT, n]`."""
    labels, words = setting.nonterminals, setting.words
    model = TableGrammar(
        labels, 2 * labels, VOCABULARY, words, words, "top-down", setting.parent, seed=0
    )
    lengths = torch.full((TRAINING + HELD_OUT,), words)
    scale_logits(model, LOGIT_SCALE)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        parts = [sample_of_lengths(model.rules(), some, words, generator)[0]
                 for some in lengths.split(HELD_OUT)]  # fmt: skip
    return model, torch.cat(parts)


def make_e_step(model: TableGrammar, policy: str) -> GFlowNetEStep:
    """Makes the training of a policy, one update a `fit`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = tree_policies.make(policy, model)
    return GFlowNetEStep(
        model,
        made,
        SpanBalance(model.node_scores, Huber()),
        exploration=EpsilonUniform(EPSILON),
        alternation=FixedUpdates(1),
        batch_size=BATCH,
        samples_per_x=TREES,
        learning_rate=LEARNING_RATE,
        generator=torch.Generator().manual_seed(0),
    )


def compare(
    setting: Setting, policies: Sequence[str], seconds: float, cpu_seconds: float
) -> list[Comparison]:
    """Times exact inference and all policies in turns, then trains each policy anew.

    Args:
        setting: The grammar and the sentences.
        policies: Registered tree policies that split spans.
        seconds: Wall time of the timing.
        cpu_seconds: Of each training.
    """
    model, x = problem(setting)
    held_out, batch = x[TRAINING:], x[:BATCH]
    timed = {policy: make_e_step(model, policy) for policy in policies}
    generator = torch.Generator().manual_seed(0)
    sides: dict[str, Work] = {EXACT: partial(model.sample_posterior, batch, 1, generator)}
    for policy, e_step in timed.items():
        sides[policy] = partial(e_step.draw, batch, 1)
        sides[f"{policy}, update"] = partial(e_step.fit, x[:TRAINING], 0)
    timings = {
        side: Timing([cost / BATCH for cost in timing.milliseconds], timing.calls)
        for side, timing in measure(sides, seconds).items()
    }
    found = []
    for policy in policies:
        e_step = make_e_step(model, policy)
        untrained = _gap(e_step, held_out)
        for share, rate in ((FAST_SHARE, LEARNING_RATE), (1 - FAST_SHARE, LEARNING_RATE / 10)):
            e_step.learning_rate = Constant(rate)
            train_posterior(
                e_step, x[:TRAINING], names=(), every=1, cpu_seconds=share * cpu_seconds
            )
        times = timings[EXACT], timings[policy], timings[f"{policy}, update"]
        found.append(Comparison(setting, policy, *times, untrained, _gap(e_step, held_out)))
    return found


def _gap(e_step: GFlowNetEStep, x: Tensor) -> float:
    """Estimates KL(q || p) of the policy as it is, nats a sentence, from 8 trees each."""
    return measure_e_step(e_step, x, ["elbo_gap"], k=8)["elbo_gap"]["mean"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for table and picture")
    parser.add_argument("--policies", nargs="+", default=["chart", "neural"], metavar="POLICY",
                        help="tree policies that split spans (default: chart neural)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=3.0,
                        help="wall time of each timing (default: 3)")  # fmt: skip
    parser.add_argument("--train", type=float, default=10.0, metavar="SECONDS",
                        help="CPU time of each training (default: 10)")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one small grammar of each kind")
    given = parser.parse_args(arguments)
    try:
        if min(given.seconds, given.train) <= 0:
            raise UserError("--seconds and --train must be positive.")
        for policy in given.policies:
            tree_policies[policy]
        torch.set_num_threads(1)
        about = {
            "settings": {"policies": given.policies, "train": given.train},
            "versions": provenance.versions(),
            "git_commit": provenance.git_commit(),
            "machine": provenance.machine(),
        }
        folder = RunFolder.create(given.out, about)
        print(_measure_all(folder, QUICK if given.quick else SETTINGS, given))
    except (UserError, OSError) as error:
        print(f"amortisation: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"amortisation: error: interrupted; what was measured is in {given.out}.",
            file=sys.stderr,
        )
        return 2
    return 0


def _measure_all(folder: RunFolder, settings: Sequence[Setting], given: argparse.Namespace) -> str:
    """Measures every setting, writes after each what there is, and returns the table."""
    found: list[Comparison] = []
    table = ""
    with tqdm(settings, unit="setting", leave=False, dynamic_ncols=True) as bar:
        for setting in bar:
            found += compare(setting, given.policies, given.seconds, given.train)
            comparisons = [dataclasses.asdict(one) for one in found]
            folder.write_json("results.json", {"comparisons": comparisons})
            table = amortisation_report.write(found, folder, given.train)
            bar.set_postfix_str(f"exact / sample = {found[-1].sampling_ratio:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
