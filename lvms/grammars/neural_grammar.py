"""Grammars whose rule probabilities are computed by a network from embeddings of the symbols."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from lvms.grammars.grammar import Grammar
from lvms.grammars.rules import GrammarRules


class ResidualBlock(nn.Module):
    """x + relu(W relu(V x)), as in the networks of neural PCFGs."""

    def __init__(self, size: int) -> None:
        """Builds the two layers, `size` numbers wide."""
        super().__init__()
        self.first = nn.Linear(size, size)
        self.second = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Turns float `[..., D]` into float `[..., D]`."""
        return x + F.relu(self.second(F.relu(self.first(x))))


class NeuralGrammar(Grammar):
    """Roots and words of a neural grammar (Kim, Dyer and Rush 2019, section 2.1).

    The root's distribution is a softmax of a residual network of the start symbol's embedding, a
    preterminal's words one of a residual network of its embedding. Subclasses say how A -> B C
    follows from embeddings.

    Attributes:
        dim: D, the size of an embedding.
    """

    def __init__(
        self,
        vocabulary: int,
        max_words: int,
        nonterminals: int = 29,
        preterminals: int = 60,
        dim: int = 256,
        min_words: int = 2,
        tree: str = "bottom-up",
        seed: int = 0,
    ) -> None:
        """Builds the model with random parameters; the sizes are the paper's unless given.

        Args:
            vocabulary: V.
            max_words: N, the length of the longest sentence.
            nonterminals: K.
            preterminals: P.
            dim: D.
            min_words: The length of the shortest sentence, at least 2.
            tree: In which environment z is built, `bottom-up` or `top-down`.
            seed: Of the parameters.

        Raises:
            UserError: If a size is too small or the environment unknown.
        """
        super().__init__(nonterminals, preterminals, vocabulary, max_words, min_words, tree)
        if dim < 1:
            raise UserError(f"dim, the size of an embedding, must be at least 1; got {dim}.")
        self.dim = dim
        self.start_embedding = nn.Embedding(1, dim)
        self.nonterminal_embedding = nn.Embedding(nonterminals, dim)
        self.preterminal_embedding = nn.Embedding(preterminals, dim)
        self.root_network = _residual_network(dim, nonterminals)
        self.emission_network = _residual_network(dim, vocabulary)
        self.rule_scores = nn.Linear(dim, (nonterminals + preterminals) ** 2)
        self._build()
        self._start(torch.Generator().manual_seed(seed))

    @abstractmethod
    def _build(self) -> None:
        """Makes what a subclass needs beside the layers above."""

    @abstractmethod
    def _sides(self) -> Tensor:
        """Represents every left-hand side, float `[K, D]` or, given the parent, `[K + 1, K, D]`."""

    @torch.no_grad()
    def _start(self, generator: torch.Generator | None) -> None:
        """Draws standard normal embeddings, and weights uniformly by Glorot and Bengio 2010.

        With such weights rules start almost alike: their logits differ by 1/4 at D = 256.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Embedding):
                layer.weight.normal_(generator=generator)
            elif isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                layer.bias.zero_()

    def _tables(self) -> GrammarRules:
        """Computes the tables from the embeddings."""
        symbols = (self.nonterminals + self.preterminals,) * 2
        return GrammarRules(
            self.root_network(self.start_embedding.weight[0]).log_softmax(-1),
            self.rule_scores(self._sides()).log_softmax(-1).unflatten(-1, symbols),
            self.emission_network(self.preterminal_embedding.weight).log_softmax(-1),
        )


class NeuralPCFG(NeuralGrammar):
    """The neural PCFG of Kim, Dyer and Rush (2019), equations 1 and 2.

    Rules are a softmax over all pairs of children of a linear map of the nonterminal's embedding.
    """

    def _build(self) -> None:
        """Needs nothing more."""

    def _sides(self) -> Tensor:
        """The nonterminals' embeddings, `[K, D]`."""
        return self.nonterminal_embedding.weight


class NeuralNCFG(NeuralGrammar):
    """A neural grammar whose expansions depend on the parent: not context-free (Hu et al. 2023).

    Rules are a softmax over all pairs of children of a linear map of a residual network of the
    sum of two embeddings: the nonterminal's, and another of its parent, which may be the start
    symbol.
    """

    def _build(self) -> None:
        """Makes the embeddings of parents, the start symbol's last, and the network."""
        self.parent_embedding = nn.Embedding(self.nonterminals + 1, self.dim)
        self.side_network = nn.Sequential(
            nn.Linear(self.dim, self.dim), ResidualBlock(self.dim), ResidualBlock(self.dim)
        )

    def _sides(self) -> Tensor:
        """What the network makes of every parent and nonterminal, `[K + 1, K, D]`."""
        parent = self.parent_embedding.weight[:, None]
        return self.side_network(parent + self.nonterminal_embedding.weight)


def _residual_network(inputs: int, outputs: int) -> nn.Sequential:
    """Two residual blocks between linear layers."""
    return nn.Sequential(
        nn.Linear(inputs, inputs),
        ResidualBlock(inputs),
        ResidualBlock(inputs),
        nn.Linear(inputs, outputs),
    )
