"""Grammars whose latent variable is the tree: their tables, exact inference and priors."""

from lvms.grammars.built_in import BuiltIn, built_in_grammars, make_grammar
from lvms.grammars.energy_grammar import EnergyGrammar
from lvms.grammars.energy_marginal import estimate_log_marginal, estimate_log_partition
from lvms.grammars.grammar import Grammar
from lvms.grammars.neural_grammar import NeuralNCFG, NeuralPCFG
from lvms.grammars.preterminals import likeliest_preterminals, sample_preterminals
from lvms.grammars.rules import PAD, GrammarRules
from lvms.grammars.table_grammar import TableGrammar

__all__ = [
    "PAD",
    "BuiltIn",
    "EnergyGrammar",
    "Grammar",
    "GrammarRules",
    "NeuralNCFG",
    "NeuralPCFG",
    "TableGrammar",
    "built_in_grammars",
    "estimate_log_marginal",
    "estimate_log_partition",
    "likeliest_preterminals",
    "make_grammar",
    "sample_preterminals",
]
