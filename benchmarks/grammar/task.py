"""Learn grammars from sentences without trees, with exact inference and without."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from algorithms.minibatch_learner import MinibatchLearner
from benchmarks.grammar import report, sweep
from benchmarks.grammar.corpus import load_corpus
from benchmarks.grammar.judgement import PER_SENTENCE, truth_nll
from benchmarks.grammar.learner import GrammarLearner, Judges
from benchmarks.grammar.methods import grammar_methods
from benchmarks.grammar.problem import Problem
from benchmarks.grammar.sweep import Options
from benchmarks.held_out.cell import MethodCell
from benchmarks.held_out.task import HeldOutTask
from benchmarks.provenance import derive_seed
from benchmarks.run_folder import RunFolder
from gfn_envs.errors import UserError
from lvms.data.sentences import Sentences
from lvms.grammars.span_table import gold_table

if TYPE_CHECKING:
    from benchmarks.report.document import Document
    from benchmarks.report.reference import Reference


class GrammarTask(HeldOutTask):
    """Grammars from the same starts by every method, at equal CPU time or equal updates."""

    options_type = Options
    presets = sweep.presets
    details = PER_SENTENCE
    known_methods = grammar_methods
    shown_metrics = ("loss", "nll", "f1", "kl")
    options: Options

    def __init__(self, options: Options) -> None:
        """Checks the options, draws or loads the sentences and fixes the number of updates."""
        options.check()
        self.options = options
        self.corpus = corpus = load_corpus(options)
        self.evaluate_every = options.every
        test = first(corpus.test, options.test_sentences)
        self.judges = Judges(
            first(corpus.validation, options.validation_sentences),
            test,
            options.parser,
            options.samples,
            None if corpus.truth is None else truth_nll(corpus.truth, test.words),
        )
        self.settle_updates()

    def data(self, cell: MethodCell) -> Tensor:
        """Returns the training sentences, the same for every cell; see `Task.data`."""
        return self.corpus.train.words

    @property
    def judging_data(self) -> list[Tensor]:
        """The sentences and gold trees that learners are judged by; see `Task.judging_data`."""
        parts = (self.judges.validation, self.judges.test)
        gold = [torch.stack(gold_table(part.spans)) for part in parts if part.spans is not None]
        return [*(part.words for part in parts), *gold]

    def make_learner(self, cell: MethodCell) -> GrammarLearner:
        """Makes the method's learner from the start that it shares with others."""
        num_updates = self.num_minibatches(cell.method)
        own = self.make_own_learner(cell, num_updates, self.options.rounds)
        return GrammarLearner(own, self.judges)

    def make_own_learner(self, cell: MethodCell, num_updates: int, rounds: int) -> MinibatchLearner:
        """Makes the method's own learner; see `HeldOutTask.make_own_learner`."""
        options, seed = self.options, derive_seed(cell.seed, cell.method)
        problem = Problem(
            x=self.corpus.train.words,
            num_updates=num_updates,
            rounds=rounds,
            batch_size=options.batch_size,
            generator=torch.Generator().manual_seed(seed),
            vocabulary=len(self.corpus.words),
            max_words=options.max_words,
            min_words=options.min_words,
            nonterminals=options.nonterminals,
            preterminals=options.preterminals,
            dim=options.dim,
            rate=options.rate,
            tree=options.tree,
            start=derive_seed(cell.seed, "start"),
        )
        with torch.random.fork_rng(devices=[]):  # policies draw their weights from the global one
            torch.manual_seed(seed)
            return grammar_methods.make(cell.method, problem)

    def report(
        self, folder: RunFolder, failures: Mapping[MethodCell, str]
    ) -> tuple[str, list[Path]]:
        """Writes the tables and the pictures; see `Task.report`."""
        return report.write(self, folder, failures)

    def document(self, folder: RunFolder, against: "Reference | None" = None) -> "Document":
        """Describes a run, finished or not; see `Task.document`."""
        from benchmarks.grammar.document import make_document

        if against is not None:
            raise UserError("Runs of grammar are not compared; leave out --against.")
        return make_document(self, folder)


def first(sentences: Sentences, number: int) -> Sentences:
    """Takes the first so many sentences; 0: all."""
    return sentences.select(torch.arange(len(sentences))[: number or None])
