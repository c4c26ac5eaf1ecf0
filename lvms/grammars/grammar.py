"""What all grammars share: joints of trees, dreams and exact inference, from tables of rules."""

from abc import abstractmethod

import torch
from torch import Tensor

from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.errors import UserError, unknown_name
from gfn_envs.top_down_tree import TopDownTree
from lvms.grammars import inside, parent_inside
from lvms.grammars.ancestral_sampling import sample_trees
from lvms.grammars.mbr_tree import mbr_tree
from lvms.grammars.rules import GrammarRules, sentence_lengths
from lvms.grammars.tree_score import node_scores, tree_log_prob
from lvms.model import LatentVariableModel

TREES: dict[str, type[BottomUpTree] | type[TopDownTree]] = {
    "bottom-up": BottomUpTree,
    "top-down": TopDownTree,
}
"""The environments of trees by name; both end in the same states."""


class Grammar(LatentVariableModel):
    """A grammar in Chomsky normal form over sentences x, whose z is the labelled binary tree.

    S -> A, A -> B C, preterminal -> word; see `GrammarRules`. An expansion may depend on the label
    of A's parent, and then the grammar is not context-free. Preterminals are not part of z: every
    rule score sums over those of its words. Sentences are int64 `[B, N]`, word ids, -1 behind the
    end, of `min_words` to N words; `check` says what is wrong with others.

    log p(x, z) is that of the whole grammar, which makes sentences of every length. Dreams are
    drawn until they fit `min_words` to N.

    Subclasses make the tables from their parameters (`_tables`) and draw the parameters anew
    (`_start`).

    Attributes:
        max_words: N.
        nonterminals: K, the number of labels.
        preterminals: P.
        vocabulary: V, the number of words.
    """

    env: BottomUpTree | TopDownTree

    def __init__(
        self,
        nonterminals: int,
        preterminals: int,
        vocabulary: int,
        max_words: int,
        min_words: int = 2,
        tree: str = "bottom-up",
    ) -> None:
        """Takes the sizes.

        Args:
            nonterminals: K.
            preterminals: P.
            vocabulary: V.
            max_words: N, the length of the longest sentence.
            min_words: The length of the shortest, at least 2.
            tree: In which environment z is built, `bottom-up` or `top-down`.

        Raises:
            UserError: If a size is below 1, the lengths are not in order, or the environment is
                unknown.
        """
        super().__init__()
        if min(nonterminals, preterminals, vocabulary) < 1:
            raise UserError(
                "A grammar needs at least one nonterminal, preterminal and word; got "
                f"{nonterminals}, {preterminals} and {vocabulary}."
            )
        if tree not in TREES:
            raise unknown_name("tree environment", tree, TREES)
        self.env = TREES[tree](max_words, nonterminals, min_words=min_words)
        self.nonterminals, self.preterminals = nonterminals, preterminals
        self.vocabulary = vocabulary
        self.min_words, self.max_words = min_words, max_words
        self._kept_rules: tuple[tuple[object, ...], GrammarRules] | None = None

    @abstractmethod
    def _tables(self) -> GrammarRules:
        """Makes the tables, differentiable in the parameters."""

    @abstractmethod
    def _start(self, generator: torch.Generator | None) -> None:
        """Draws every parameter anew."""

    def rules(self) -> GrammarRules:
        """Gives the tables of log-probabilities, differentiable in the parameters.

        Without gradients they are made once and kept until a parameter changes: an E-step asks
        for many log-joints of the same parameters.
        """
        if torch.is_grad_enabled():
            # What asks for gradients is about to change the parameters.
            self._kept_rules = None
            return self._tables()
        # Writing to a parameter raises its `_version`; only fused optimisers forget to.
        written = ((parameter.data_ptr(), parameter._version) for parameter in self.parameters())
        now = (self.version, *written)
        if self._kept_rules is None or self._kept_rules[0] != now:
            self._kept_rules = now, self._tables()
        return self._kept_rules[1]

    def check(self, x: Tensor) -> None:
        """Raises a UserError that says what is wrong with sentences that are not for this grammar.

        Args:
            x: Should be int64 `[B, N]`.
        """
        length = sentence_lengths(x, self.vocabulary)
        if x.dtype != torch.int64 or x.shape[1] != self.max_words:
            raise UserError(
                f"This grammar takes sentences as int64 [B, {self.max_words}], padded with -1; "
                f"got {x.dtype} {list(x.shape)}."
            )
        if length.min() < self.min_words:
            raise UserError(
                f"This grammar takes sentences of at least {self.min_words} words; got one of "
                f"{length.min().item()}."
            )

    # -- LatentVariableModel --------------------------------------------------------------------

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`.

        Args:
            x: int64 `[B, N]`.
            z: int64 `[B, 3 (N - 1)]`.

        Returns:
            float `[B]`, nats.
        """
        return tree_log_prob(self.rules(), x, z)

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Scores the rules of a partial tree that are known; see `tree_log_prob`.

        Args:
            x: int64 `[B, N]`.
            state: int64 `[B, 3 (N - 1)]`.

        Returns:
            float `[B]`, nats, differentiable in theta.
        """
        return tree_log_prob(self.rules(), x, state)

    def node_scores(self, x: Tensor, z: Tensor) -> Tensor:
        """Takes log p(x, z) apart into the rules of the nodes; see `tree_score.node_scores`.

        Args:
            x: int64 `[B, N]`.
            z: int64 `[B, 3 (N - 1)]`.

        Returns:
            float `[B, N]`, nats: at gap g the rule of its node, last the root's factor.
        """
        return node_scores(self.rules(), x, z)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, N]` and z `[B, 3 (N - 1)]` of `min_words` to N words.

        Raises:
            UserError: If hardly any sentence of the grammar is of such a length.
        """
        with torch.no_grad():
            rules = self.rules()
        return sample_trees(rules, batch_size, self.min_words, self.max_words, generator)

    def context(self, x: Tensor) -> Tensor:
        """Counts the words, int64 `[B, 1]`."""
        return (x >= 0).sum(-1, keepdim=True)

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Draws every parameter anew.

        Args:
            x: int64 `[B, N]`, only checked.
            generator: Source of randomness.

        Raises:
            UserError: If x is not for this grammar.
        """
        self.check(x)
        self._start(generator)
        self.mark_updated()

    # -- ExactPosterior: the inside algorithm ---------------------------------------------------

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`, and `inside` for the cost."""
        rules = self.rules()
        if rules.conditioned_on_parent:
            return parent_inside.log_marginal(rules, x)
        return inside.log_marginal(rules, x)

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k trees for each sentence, int64 `[B, k, 3 (N - 1)]`; see `ExactPosterior`."""
        rules = self.rules()
        if rules.conditioned_on_parent:
            return parent_inside.sample(rules, x, k, generator)
        return inside.sample(rules, x, k, generator)

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- parses ---------------------------------------------------------------------------------

    @torch.no_grad()
    def span_marginals(self, x: Tensor) -> Tensor:
        """Computes how probable each labelled span is given x, float `[B, N + 1, N + 1, K]`."""
        rules = self.rules()
        if rules.conditioned_on_parent:
            return parent_inside.span_marginals(rules, x)
        return inside.span_marginals(rules, x)

    @torch.no_grad()
    def viterbi(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the tree z `[B, 3 (N - 1)]` of the highest log p(x, z), and this, `[B]`, nats."""
        rules = self.rules()
        if rules.conditioned_on_parent:
            return parent_inside.viterbi(rules, x)
        return inside.viterbi(rules, x)

    def mbr(self, x: Tensor) -> Tensor:
        """Finds the tree `[B, 3 (N - 1)]` of the most right unlabelled spans in expectation."""
        return mbr_tree(self.span_marginals(x), x)
