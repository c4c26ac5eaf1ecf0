"""The one exception that means: the user can mend this."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what was asked for; its message says what is wrong and what to do.

    Command lines print the message alone, without a traceback, and exit with status 2.
    """


class MissingPackageError(UserError, ImportError):
    """A package of an optional extra is not installed; the message says which `pip install`."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Builds the error for a name that no registry holds, with the nearest known names.

    Args:
        kind: What the name should have been, in the singular ("task", "environment").
        name: The name that was asked for.
        known: Every name that would have been right.

    Returns:
        The error, ready to raise.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
    return UserError(f"There is no {kind} '{name}'. {advice}")
