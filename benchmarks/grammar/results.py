"""What a grammar run found."""

import numpy as np

from benchmarks.grammar.judgement import PER_SENTENCE
from benchmarks.held_out.results import MethodResult


class GrammarResult(MethodResult):
    """All finished runs of one method; `details` are those of `GrammarLearner.measure_best`."""

    details_file = PER_SENTENCE
    of_curves = ("nll",)
    of_curves_if_any = ("f1", "kl")

    @property
    def scores(self) -> np.ndarray:
        """The NLL a word, see `by_word`, float `[runs, T]`, nats."""
        return self.by_word("nll")

    def by_word(self, name: str) -> np.ndarray:
        """Spreads a quantity of sentences over their words, float `[runs, T]`.

        The ratio of sums r = sum_i v_i / sum_i n_i is no mean over sentences. Its linearisation
        r + (v_i - r n_i) / mean(n) has it for its mean, and its spread (the delta method).
        """
        values, words = self.details[name], self.details["words"]
        ratio = values.sum(1, keepdims=True) / words.sum(1, keepdims=True)
        return ratio + (values - ratio * words) / words.mean(1, keepdims=True)


class F1Result(GrammarResult):
    """The same runs, compared by F1."""

    @property
    def scores(self) -> np.ndarray:
        """What each sentence's F1 lacks of 100, percent, float `[runs, T]`."""
        return 100 - self.details["f1"]
