"""What is sampled: the trees of fixed grammars, for sentences of all lengths alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.catalogue import Catalogue
from lvms.grammars.sized_sampling import sample_of_lengths
from lvms.grammars.table_grammar import TableGrammar

NONTERMINALS, PRETERMINALS, VOCABULARY = 5, 10, 40
MIN_WORDS, MAX_WORDS = 3, 10

TRAINING, HELD_OUT = 1000, 200
"""Sentences."""

tree_problems = Catalogue("tree posterior")
"""Every grammar by name; it is made from `tree`, the environment that trees are built in."""

tree_problems.register("cfg", "benchmarks.tree_posterior.problem:make_problem")
tree_problems.register("cfg-peaked", "benchmarks.tree_posterior.problem:make_problem", scale=2.0)
tree_problems.register("ncfg", "benchmarks.tree_posterior.problem:make_problem", parent=True)
tree_problems.register(
    "ncfg-peaked", "benchmarks.tree_posterior.problem:make_problem", parent=True, scale=2.0
)


class EvenGrammar(TableGrammar):
    """Tables whose dreams have all lengths alike; p(x, z | n) is the tables'.

    What grammars at random make by themselves are short sentences, nearly all of them, and
    posteriors of these are easy.
    """

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, N]` and z `[B, 3 (N - 1)]`; see `Grammar.sample`."""
        lengths = torch.randint(
            self.min_words, self.max_words + 1, (batch_size,), generator=generator
        )
        with torch.no_grad():
            return sample_of_lengths(self.rules(), lengths, self.max_words, generator)


@dataclass(frozen=True)
class TreeProblem:
    """A grammar and sentences drawn from it.

    Attributes:
        model: The grammar.
        training: Sentences to train on, int64 `[TRAINING, N]`, as many of each length.
        held_out: Sentences to measure on, int64 `[HELD_OUT, N]`, likewise.
    """

    model: EvenGrammar
    training: Tensor
    held_out: Tensor


def make_problem(tree: str = "top-down", parent: bool = False, scale: float = 1.0) -> TreeProblem:
    """Draws a grammar and its sentences, the same each time.

    Args:
        tree: In which environment trees are built, `bottom-up` or `top-down`.
        parent: Whether an expansion depends on the label of the parent.
        scale: The standard deviation of the normal logits. At 1 rules are nearly alike, and so are
            trees given a sentence; the larger it is the more differ, as those do that are learned.
    """
    model = EvenGrammar(
        NONTERMINALS, PRETERMINALS, VOCABULARY, MAX_WORDS, MIN_WORDS, tree, parent, seed=0
    )
    with torch.no_grad():
        for logits in model.parameters():
            logits.mul_(scale)
    model.mark_updated()
    lengths = torch.arange(MIN_WORDS, MAX_WORDS + 1)
    lengths = lengths.repeat((TRAINING + HELD_OUT) // len(lengths))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x, _ = sample_of_lengths(model.rules(), lengths, MAX_WORDS, generator)
    return TreeProblem(model, x[:TRAINING], x[TRAINING:])
