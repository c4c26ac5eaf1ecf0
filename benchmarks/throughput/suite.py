"""The throughput suite: what is compared with what, and in which sizes."""

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks import provenance
from benchmarks.run_folder import RunFolder
from benchmarks.throughput import report
from benchmarks.throughput.case import KINDS, Case, Setting
from benchmarks.throughput.measure import measure, peak_memory
from benchmarks.throughput.results import Comparison, Measurement, to_json
from benchmarks.throughput.sides import (
    BARE,
    GROUPS,
    OURS,
    SAMPLING,
    STOCK,
    STOCK_X,
    TB,
    WORKS,
    sides,
)
from gfn_envs.errors import UserError
from gfn_envs.registration import load_plugins, registry

SECTIONS = ("grid", "environments", "length", "batch", "x-size")

GROWING = {"MLP, fixed order": (OURS, BARE, STOCK), "causal, cached": (OURS, BARE)}
"""Whose growth with length and with batch is measured, and on which sides. torchgfn reads a causal
policy's whole prefix anew at each step, which would take minutes at length 64."""

HOW = (
    "CPU time of one process with one torch thread; the sides take turns within each repeat. "
    "A side that can work in several ways (drawing by torch.multinomial or by inverse CDF, with "
    "gradient in the loop or with trajectories scored afterwards) counts by its fastest. A ratio "
    "is the median over repeats of that within a repeat. Memory is the peak of what torch "
    "allocates for tensors during a call, gradients included, from its profiler."
)
"""How everything is measured, for the report."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        sections: Some of `SECTIONS`.
        repeats: So many of each comparison; 0: as many as fit into `seconds`.
        seconds: The time for each comparison.
        seed: Of policies and observations.
        batches: Sizes in the grid.
        lengths: Lengths at batch 256.
        large_batches: Sizes at length 8.
        x_sizes: Numbers in an observation, at batch 64.
    """

    sections: tuple[str, ...] = SECTIONS
    repeats: int = 0
    seconds: float = 2.0
    seed: int = 0
    batches: tuple[int, ...] = (16, 64, 256, 1024)
    lengths: tuple[int, ...] = (8, 16, 32, 64)
    large_batches: tuple[int, ...] = (256, 512, 1024, 2048)
    x_sizes: tuple[int, ...] = (2, 32, 256, 3072)

    def __post_init__(self) -> None:
        if self.repeats < 0 or not 0 < self.seconds < math.inf:
            raise UserError("--repeats must be at least 1, and --seconds a positive number.")


QUICK = Options(
    seconds=0.2, batches=(16, 64), lengths=(8, 16), large_batches=(256, 512), x_sizes=(2, 3072)
)
"""A look at everything in about a minute."""


@dataclass(frozen=True)
class Plan:
    """One comparison to make: which work, on which sides, in which setting."""

    setting: Setting
    work: str
    groups: tuple[str, ...] = GROUPS


def plan(options: Options) -> list[Plan]:
    """Lists the comparisons that the options ask for, section by section."""
    makers = {
        "grid": _grid, "environments": _environments, "length": _lengths, "batch": _batches,
        "x-size": _x_sizes,
    }  # fmt: skip
    return [one for name in SECTIONS if name in options.sections for one in makers[name](options)]


def _grid(options: Options) -> Iterator[Plan]:
    for policy in KINDS:
        for batch in options.batches:
            for work in WORKS:
                yield Plan(Setting("grid", policy, batch), work)


def _environments(options: Options) -> Iterator[Plan]:
    load_plugins()
    for env_id in registry:
        for work in (SAMPLING, TB):
            yield Plan(Setting("environments", env_id, 64, length=0), work, (OURS, STOCK))


def _lengths(options: Options) -> Iterator[Plan]:
    for policy, groups in GROWING.items():
        for length in options.lengths:
            for work in (SAMPLING, TB):
                yield Plan(Setting("length", policy, 256, length), work, groups)


def _batches(options: Options) -> Iterator[Plan]:
    for policy, groups in GROWING.items():
        for batch in options.large_batches:
            for work in (SAMPLING, TB):
                yield Plan(Setting("batch", policy, batch), work, groups)


def _x_sizes(options: Options) -> Iterator[Plan]:
    for x_size in options.x_sizes:
        for work in (SAMPLING, TB):
            setting = Setting("x-size", "MLP, fixed order", 64, x_size=x_size)
            yield Plan(setting, work, (OURS, BARE, STOCK, STOCK_X))


def compare(one: Plan, options: Options) -> Comparison | None:
    """Makes one comparison; None if this suite cannot do the work with the policy."""
    case = Case(one.setting, options.seed)
    work = sides(case, one.work, one.groups)
    if not work:
        return None
    names = {f"{side}: {way}": (side, way) for side, way in work}
    timings = measure(
        {name: work[key] for name, key in names.items()}, options.seconds, options.repeats
    )
    found = [
        Measurement(*key, timings[name], peak_memory(work[key])) for name, key in names.items()
    ]
    return Comparison(one.setting, one.work, found)


def run(options: Options, path: Path) -> tuple[str, list[Path]]:
    """Measures everything and writes it down.

    Args:
        options: What to measure.
        path: A folder that does not exist yet, or is empty.

    Returns:
        The tables, and the files to look at: `throughput.json`, `table.md` and the pictures.

    Raises:
        UserError: If the folder is not empty.
        OSError: If it cannot be written.
    """
    about = {
        "suite": "throughput",
        "settings": dataclasses.asdict(options),
        "how": HOW,
        **provenance.made_with(),
    }
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} is not empty; name a new folder with --out.")
    folder = RunFolder.create(path, about)
    wall, cpu = time.monotonic(), time.process_time()
    comparisons = []
    with tqdm(plan(options), unit="comparison", dynamic_ncols=True, leave=False) as bar:
        for one in bar:
            bar.set_description(f"{one.setting.policy}, batch {one.setting.batch}, {one.work}")
            comparison = compare(one, options)
            if comparison is not None:
                comparisons.append(comparison)
    cost = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
    folder.write_json("throughput.json", {**about, "cost": cost, **to_json(comparisons)})
    table, files = report.write(comparisons, folder, HOW)
    return table, [folder.path / "throughput.json", *files]
