"""Construction processes of discrete latent structures, for Gymnasium and for torchgfn."""

from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.code_grid import CodeGrid
from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import FactoredCategorical
from gfn_envs.latent_env import LatentEnv
from gfn_envs.registration import make, register, registry, spec
from gfn_envs.state_graph import StateGraph
from gfn_envs.symbol_sequence import SymbolSequence
from gfn_envs.top_down_tree import TopDownTree
from gfn_envs.turtle_path import TurtlePath

__all__ = [
    "BottomUpTree",
    "CodeGrid",
    "FactoredCategorical",
    "LatentEnv",
    "StateGraph",
    "SymbolSequence",
    "TopDownTree",
    "TurtlePath",
    "UserError",
    "make",
    "register",
    "registry",
    "spec",
]

register(
    "gfn_envs/FactoredCategorical-v0",
    "gfn_envs.factored_categorical:FactoredCategorical",
    sizes=[4, 4],
    order="fixed",
)
register(
    "gfn_envs/FactoredCategoricalAnyOrder-v0",
    "gfn_envs.factored_categorical:FactoredCategorical",
    sizes=[4, 4],
    order="any",
)
register(
    "gfn_envs/SymbolSequence-v0",
    "gfn_envs.symbol_sequence:SymbolSequence",
    length=4,
    symbols=3,
    min_length=1,
)
register(
    "gfn_envs/CodeGrid-v0",
    "gfn_envs.code_grid:CodeGrid",
    grid=[4, 4],
    num_codes=8,
    order="fixed",
)
register(
    "gfn_envs/BottomUpTree-v0",
    "gfn_envs.bottom_up_tree:BottomUpTree",
    max_words=4,
    labels=2,
    min_words=2,
)
register(
    "gfn_envs/TopDownTree-v0",
    "gfn_envs.top_down_tree:TopDownTree",
    max_words=4,
    labels=2,
    min_words=2,
)
register(
    "gfn_envs/TurtlePath-v0",
    "gfn_envs.turtle_path:TurtlePath",
    grid=[4, 4],
    moves=3,
    order="fixed",
)
