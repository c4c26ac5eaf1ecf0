"""What is sampled: the trees of fixed grammars, for sentences of all lengths alike."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gfn_envs.catalogue import Catalogue
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.sized_sampling import sample_of_lengths
from lvms.grammars.table_grammar import TableGrammar

NONTERMINALS, PRETERMINALS, VOCABULARY = 5, 10, 40
MIN_WORDS, MAX_WORDS = 3, 10

TRAINING, HELD_OUT = 8000, 200
"""Sentences; of fewer a policy learns some by heart within a minute."""

AT_A_TIME = 200
"""So many sentences are drawn at a time, since their charts take memory."""

ENERGY_LABELS, ENERGY_WORDS, ENERGY_SENTENCES = 3, 5, 32
"""Where shapes have energies: nonterminals and words of a sentence, so that all trees can be
enumerated, and held-out sentences."""

ENERGY_SCALE = 1.2
"""The standard deviation of an energy's last weights; that of energies is 3 nats then."""

tree_problems = Catalogue("tree posterior")
"""Every grammar by name; it is made from `tree`, the environment that trees are built in."""

tree_problems.register("cfg", "benchmarks.tree_posterior.problem:make_problem")
tree_problems.register("cfg-peaked", "benchmarks.tree_posterior.problem:make_problem", scale=2.0)
tree_problems.register("ncfg", "benchmarks.tree_posterior.problem:make_problem", parent=True)
tree_problems.register(
    "ncfg-peaked", "benchmarks.tree_posterior.problem:make_problem", parent=True, scale=2.0
)
tree_problems.register("energy", "benchmarks.tree_posterior.problem:make_energy_problem")


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
        model: The grammar, with energies beside it or not.
        training: Sentences to train on, int64 `[B, N]`, as many of each length.
        held_out: Sentences to measure on, int64 `[B, N]`, likewise.
    """

    model: EvenGrammar | EnergyGrammar
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
    scale_logits(model, scale)
    lengths = torch.arange(MIN_WORDS, MAX_WORDS + 1)
    lengths = lengths.repeat((TRAINING + HELD_OUT) // len(lengths))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rules = model.rules()
        parts = [sample_of_lengths(rules, some, MAX_WORDS, generator)[0]
                 for some in lengths.split(AT_A_TIME)]  # fmt: skip
    x = torch.cat(parts)
    return TreeProblem(model, x[:TRAINING], x[TRAINING:])


def make_energy_problem(tree: str = "top-down", scale: float = 2.0) -> TreeProblem:
    """Draws a grammar with energies of shapes beside it, and sentences all of one length.

    Only enumeration is exact there.

    Args:
        tree: In which environment trees are built, `bottom-up` or `top-down`.
        scale: The standard deviation of the grammar's logits.
    """
    grammar = EvenGrammar(
        ENERGY_LABELS, 2 * ENERGY_LABELS, VOCABULARY, ENERGY_WORDS, ENERGY_WORDS, tree, seed=0
    )
    scale_logits(grammar, scale)
    generator = torch.Generator().manual_seed(0)
    model = EnergyGrammar(grammar, generator=generator)
    with torch.no_grad():
        model.energy.contribution.weight.normal_(0.0, ENERGY_SCALE, generator=generator)
    model.mark_updated()
    parts = [model.sample(AT_A_TIME, generator)[0] for _ in range(TRAINING // AT_A_TIME + 1)]
    x = torch.cat(parts)
    return TreeProblem(model, x[:TRAINING], x[TRAINING : TRAINING + ENERGY_SENTENCES])


@torch.no_grad()
def scale_logits(model: TableGrammar, scale: float) -> None:
    """Makes rules that are nearly alike differ more, or less."""
    for logits in model.parameters():
        logits.mul_(scale)
    model.mark_updated()
