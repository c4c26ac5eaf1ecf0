"""A method's learner beside the sentences that it is judged by."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from algorithms.minibatch_em import MinibatchEM
from algorithms.minibatch_learner import MinibatchLearner
from algorithms.policy import Policy
from benchmarks.grammar.inference import AnyGrammar, Inference, inference_of
from benchmarks.grammar.judgement import posterior_kl, score
from benchmarks.held_out.learner import HeldOutLearner
from benchmarks.posterior.metrics import summarise
from lvms.data.sentences import Sentences
from lvms.grammars.grammar import Grammar
from lvms.grammars.parse_scores import ParseScores


@dataclass(frozen=True)
class Judges:
    """What learners are judged by, the same for every method.

    Attributes:
        validation: Sentences that choose when a learner was best.
        test: Sentences that it is judged by in the end.
        parser: Which trees are compared with gold ones, `mbr` or `viterbi`.
        samples: Trees drawn for each sentence where inference is not exact.
        truth_nll: The test sentences' NLL by the grammar that they were drawn from, see
            `judgement.truth_nll`, float64 `[T]`; None where it is not known.
    """

    validation: Sentences
    test: Sentences
    parser: str
    samples: int
    truth_nll: Tensor | None


class GrammarLearner(HeldOutLearner):
    """Measures a grammar on sentences, exactly if its inference is exact; see `HeldOutLearner`.

    Attributes:
        judges: What it is judged by.
    """

    def __init__(self, learner: MinibatchLearner, judges: Judges) -> None:
        """Takes the learner and its judges."""
        super().__init__(learner)
        self.judges = judges
        self._scores: ParseScores | None = None
        self._error: float | None = None  # of the sum of estimated NLL

    @property
    def model(self) -> AnyGrammar:
        """The grammar as it is now."""
        assert isinstance(self.learner.model, AnyGrammar)
        return self.learner.model

    @property
    def grammar(self) -> Grammar:
        """Its rules alone, without energies of shapes."""
        return self.model if isinstance(self.model, Grammar) else self.model.grammar

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The grammar and, of GFlowNet-EM, the policy; see `HeldOutLearner.parts`."""
        if isinstance(self.learner, MinibatchEM):
            return {"model": self.model, "policy": self.learner.policy}
        return {"model": self.model}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measures the grammar on validation sentences; the best weights so far are kept.

        Returns:
            `nll`, nats a word, and `perplexity`, its exponential; `f1`, the mean F1 of a sentence,
            percent, where there are gold trees, and of GFlowNet-EM `kl`, see `posterior_kl`, of
            the first `KL_SENTENCES`: they are shown, but choose nothing; and `minibatches`, how
            many there have been.
        """
        judges, inference = self.judges, inference_of(self.model, self.judges.samples)
        marginal = inference.log_marginal(judges.validation.words)
        nll = (-marginal.log_marginal.sum() / judges.validation.lengths.sum()).item()
        self.keep_if_best(nll)
        found = {"nll": nll, "perplexity": perplexity(nll)}
        scores = score(inference, judges.validation, judges.parser)
        if scores is not None:
            found["f1"] = scores.sentence_f1
        if isinstance(self.learner, MinibatchEM):
            some = judges.validation.words[:KL_SENTENCES]
            kl = posterior_kl(
                self.learner, self.model, self.learner.policy, some,
                marginal.log_partition[:KL_SENTENCES],
            )  # fmt: skip
            found["kl"] = kl.mean().item()
        return {**found, "minibatches": self.learner.updates}

    def best(self) -> AnyGrammar:
        """Copies the grammar as it was when it was best, or is if never measured."""
        model = self.copy_of_best()["model"]
        assert isinstance(model, AnyGrammar)
        return model

    def inference(self) -> Inference:
        """Gives that of the best weights."""
        return inference_of(self.best(), self.judges.samples)

    def measure_best(self) -> dict[str, Tensor]:
        """Measures the best weights on each test sentence.

        Returns:
            float `[T]` each: `nll`, nats a sentence; `words`, its length; where the NLL is an
            estimate, `nll_error`, its standard error, and `effective_samples`, a share;
            `above_truth`, how far the NLL is above the truth's, where that is known; `f1`,
            percent, where there are gold trees; and of GFlowNet-EM `kl`, nats a sentence, see
            `posterior_kl`.
        """
        test, best = self.judges.test, self.copy_of_best()
        model, policy = best["model"], best.get("policy")
        assert isinstance(model, AnyGrammar)
        inference = inference_of(model, self.judges.samples)
        marginal = inference.log_marginal(test.words)
        nll = -marginal.log_marginal
        found = {"nll": nll, "words": test.lengths.double()}
        self._error = None
        if not inference.is_exact:
            found["nll_error"] = marginal.standard_error
            found["effective_samples"] = marginal.effective_samples
            self._error = marginal.error_of_sum.item()
        if self.judges.truth_nll is not None:
            found["above_truth"] = nll - self.judges.truth_nll
        self._scores = score(inference, test, self.judges.parser)
        if self._scores is not None:
            found["f1"] = self._scores.each
        if isinstance(policy, Policy):
            assert isinstance(self.learner, MinibatchEM)
            found["kl"] = posterior_kl(
                self.learner, model, policy, test.words, marginal.log_partition
            )
        return found

    def summary(self) -> dict[str, dict[str, float]]:
        """Averages what `judge` finds.

        Returns:
            Each metric's `mean` over test sentences, `standard_error` and `n`; and numbers of all
            sentences together: `nll_a_word`, nats, with `sampling_error`, its standard error,
            where it is an estimate, `perplexity`, and where there are gold trees `corpus_f1` and
            the `recall` of each label, percent, of n constituents.
        """
        judged = self.judge()
        found = {name: summarise(values) for name, values in judged.items()}
        nll, num = (judged["nll"].sum() / judged["words"].sum()).item(), len(self.judges.test)
        num_words = int(judged["words"].sum())
        found["nll_a_word"] = _together(nll, num_words)
        if self._error is not None:
            found["sampling_error"] = _together(self._error / num_words, num_words)
        found["perplexity"] = _together(perplexity(nll), num)
        if self._scores is not None:
            found["corpus_f1"] = _together(self._scores.corpus_f1, num)
            for label, one in self._scores.labels.items():
                found[f"{RECALL}{label}"] = _together(one.recall, one.total)
        return found


KL_SENTENCES = 100
"""Of so many validation sentences policies are measured."""

RECALL = "recall "
"""What the metric of a label's recall begins with."""


def perplexity(nll: float) -> float:
    """Turns nats a word into a perplexity; beyond what numbers hold it is the greatest of them."""
    return math.exp(min(nll, 700.0))


def _together(value: float, num: int) -> dict[str, float]:
    """Gives a number of `num` things together, which has no standard error."""
    return {"mean": value, "standard_error": float("nan"), "n": num}
