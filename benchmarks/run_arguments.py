"""The arguments that all commands share which carry out runs: where, and by what."""

import argparse
import shlex
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from gfn_envs.errors import UserError


@dataclass(frozen=True)
class RunArguments:
    """Where a run lives and what carries it out, as typed."""

    out: Path | None
    resume: Path | None
    workers: int
    engine: str
    address: str | None
    tensorboard: bool

    @property
    def workers_and_engine(self) -> tuple[bool, int, str, str | None]:
        """What `run_task` takes of it."""
        return self.tensorboard, self.workers, self.engine, self.address

    def prepare(self) -> None:
        """Refuses what cannot be had, before anything is written."""
        import torch

        from benchmarks.ray_workers import require
        from benchmarks.runner import tensorboard_writer

        torch.set_num_threads(1)  # two threads on tensors this small are slower than one
        if self.tensorboard:
            tensorboard_writer()
        if self.engine == "ray":
            require(self.address)

    def out_or(self, name: str) -> Path:
        """Says where a new run goes."""
        return self.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"

    def resumption(self, command: str, folder: Path) -> str:
        """Says what continues the run."""
        words = f"{command} --resume {shlex.quote(str(folder))}"
        if self.workers > 1:
            words += f" --workers {self.workers}"
        if self.engine != "local":
            words += f" --engine {self.engine}"
        if self.address is not None:
            words += f" --address {shlex.quote(self.address)}"
        return words


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of a `RunArguments`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help="folder of the new run (default: runs/TASK-TIME)")
    where.add_argument("--resume", type=Path, metavar="FOLDER", help="continue a run from there")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, one core each (default: 1)"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="where workers run: on this machine, or on a Ray cluster, whose nodes must all see "
        "the run's folder (default: local)",
    )  # fmt: skip
    parser.add_argument(
        "--address",
        help="Ray cluster to run on (default: RAY_ADDRESS; without it, one is started here for "
        "the run)",
    )
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard events too")


def take_run_arguments(given: dict[str, Any]) -> RunArguments:
    """Takes a `RunArguments` out of parsed arguments, which leaves the options of what is run.

    Raises:
        UserError: If its parts do not fit together.
    """
    where = RunArguments(**{field.name: given.pop(field.name) for field in fields(RunArguments)})
    if where.workers < 1:
        raise UserError("--workers must be at least 1.")
    if where.resume is not None and any(value is not None for value in given.values()):
        raise UserError("--resume continues with the run's own options; give no others.")
    if where.address is not None and where.engine != "ray":
        raise UserError("--address names a Ray cluster; give --engine ray too.")
    return where
