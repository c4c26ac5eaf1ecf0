"""Small grammars whose truth is known, to draw corpora with gold trees from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gfn_envs.catalogue import Catalogue
from lvms.grammars.table_grammar import TableGrammar
from lvms.grammars.written_grammar import read_grammar

built_in_grammars = Catalogue("grammar")
"""Every built-in grammar by name; it is made from `max_words`, `min_words` and `tree`."""


@dataclass(frozen=True)
class BuiltIn:
    """A grammar with the names of what its tables number.

    Attributes:
        grammar: The truth; `grammar.sample` draws sentences with their trees.
        words: The V words.
        labels: The names of the K nonterminals.
        preterminals: The names of the P preterminals.
    """

    grammar: TableGrammar
    words: Sequence[str]
    labels: Sequence[str]
    preterminals: Sequence[str]


def make_grammar(
    name: str, max_words: int = 12, min_words: int = 2, tree: str = "bottom-up"
) -> BuiltIn:
    """Makes a built-in grammar.

    Args:
        name: One of `built_in_grammars`.
        max_words: N, the length of the longest sentence. One in seven or fewer has more than 12
            words; a grammar fitted to the others alone can beat the truth by the log of their
            share, 0.03 nats a word or less.
        min_words: The length of the shortest, at least 2.
        tree: In which environment trees are built, `bottom-up` or `top-down`.

    Raises:
        UserError: If the name is unknown, or the lengths are not in order.
    """
    return built_in_grammars.make(name, max_words=max_words, min_words=min_words, tree=tree)


# -- context-free, with more than one tree for most sentences --------------------------------------

ARITHMETIC = """
Expr   -> Number Tail .55 | Expr Tail .27 | Group Tail .06 | Signed Tail .12
Tail   -> Op Number .68 | Op Expr .22 | Op Group .05 | Op Signed .05
Signed -> Sign Number .8 | Sign Group .2
Group  -> Open Inside 1.
Inside -> Expr Close .7 | Signed Close .3
Number = 0 1 2 3 4 5 6 7 8 9 x y
Op     = + - * /
Sign   = -
Open   = (
Close  = )
"""

ATTACHMENT = """
S     -> NP VP .35 | Name VP .35 | Pron VP .25 | NP Vi .05
NP    -> Det Noun .6 | Det Nbar .12 | NP PP .22 | NP Coord .06
Nbar  -> Adj Noun .85 | Adj Nbar .15
VP    -> Vt NP .42 | Vt Name .1 | Vi PP .12 | VP PP .36
PP    -> Prep NP .5 | Prep Name .5
Coord -> Conj NP .6 | Conj Name .4
Det   = the a every
Noun  = man woman child dog duck saw hill park telescope hat
Adj   = old small red happy
Vt    = saw watched followed liked met
Vi    = slept walked waited duck
Prep  = with in on near of
Name  = anna ben carla david
Pron  = she he they
Conj  = and or
"""


def arithmetic(**shape: Any) -> BuiltIn:
    """Sums and products without precedence, so that brackets alone say what belongs together."""
    return _built_in(ARITHMETIC, **shape)


def attachment(**shape: Any) -> BuiltIn:
    """Toy English: a prepositional phrase belongs to the verb or to a noun before it."""
    return _built_in(ATTACHMENT, **shape)


# -- expansions that depend on the parent ----------------------------------------------------------

ROLES = """
S^start -> NP VP .85 | NP Vi .15
S^VP    -> VP NP .7 | Vi NP .3  # embedded clauses begin with the verb
NP^S    -> Def Person .8 | NP PP .2
NP^VP   -> Some Thing .8 | NP PP .2
NP^PP   -> My Place 1.
NP^NP   -> Each Animal .5 | Some Thing .5
VP^S    -> Vt NP .55 | VP PP .22 | Vsay S .23
VP^VP   -> Vmove Adverb .5 | Vt NP .5
PP^NP   -> Of NP .6 | In NP .4
PP^VP   -> In NP 1.
S  -> NP Vi 1.  # what follows never occurs
NP -> Def Person 1.
VP -> Vt NP 1.
PP -> In NP 1.
Def    = the this that
Person = girl boy queen farmer
Some   = some any no
Thing  = letter apple coin song
My     = my your our
Place  = garden house tower street
Each   = each every
Animal = cat horse owl
Of     = of like
In     = in behind near
Vt     = finds takes likes brings
Vsay   = says thinks knows
Vmove  = runs jumps swims
Adverb = fast slowly often
Vi     = sleeps waits sings
"""


def roles(**shape: Any) -> BuiltIn:
    """Toy English whose noun phrases tell subjects, objects and places apart by the parent."""
    return _built_in(ROLES, **shape)


def relay(**shape: Any) -> BuiltIn:
    """Nine kinds of words in an order that two labels remember together, and neither alone.

    Label A under Q puts a word of kind 3 Q + A to one side of what it hands over to, label
    A + Q + 1 or A + 2 Q (modulo 3): as in a Markov chain of second order, but a tree.
    """
    lines = [f"Kind{kind} = {kind}a {kind}b {kind}c" for kind in range(9)]
    for above, parent in enumerate(["L0", "L1", "L2", "start"]):
        for label in range(3):
            before = above % 3
            own, first, last = (
                3 * before + label,
                (label + before + 1) % 3,
                (label + 2 * before) % 3,
            )
            expansions = [
                f"Kind{own} Kind{3 * label + first} .22",
                f"Kind{own} L{first} .4",
                f"L{last} Kind{own} .32",
                f"L{first} L{last} .06",
            ]
            lines.append(f"L{label}^{parent} -> {' | '.join(expansions)}")
    return _built_in("\n".join(lines), **shape)


for _name in ("arithmetic", "attachment", "roles", "relay"):
    built_in_grammars.register(_name, f"lvms.grammars.built_in:{_name}")


def _built_in(
    text: str, max_words: int = 12, min_words: int = 2, tree: str = "bottom-up"
) -> BuiltIn:
    """Makes what is written down."""
    written = read_grammar(text)
    grammar = TableGrammar.from_rules(written.rules, max_words, min_words, tree)
    return BuiltIn(grammar, written.words, written.labels, written.preterminals)
