"""Which combinations of a suite's choices fit together."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from benchmarks.task import Cell
from gfn_envs.errors import UserError

CellT = TypeVar("CellT", bound=Cell)
Names = tuple[str, ...]


def make_grid(
    combinations: Iterable[Names],
    seeds: Sequence[int],
    make_cell: Callable[..., CellT],
    make_learner: Callable[[CellT], object],
) -> tuple[list[CellT], dict[Names, str]]:
    """Makes the cells of the combinations whose learner can be made.

    Args:
        combinations: The names of what is combined.
        seeds: At least one.
        make_cell: Makes a cell from such names and a seed.
        make_learner: Makes a cell's learner, or raises a UserError that says why it cannot be.

    Returns:
        The whole grid with the first seed, then with the next; and why each of the other
        combinations is left out.

    Raises:
        UserError: If nothing fits together.
    """
    fitting: list[Names] = []
    left_out: dict[Names, str] = {}
    for names in combinations:
        try:
            make_learner(make_cell(*names, seeds[0]))
            fitting.append(names)
        except UserError as error:
            left_out[names] = str(error)
    if not fitting:
        raise UserError(f"Nothing to compare: {next(iter(left_out.values()))}")
    return [make_cell(*names, seed) for seed in seeds for names in fitting], left_out
