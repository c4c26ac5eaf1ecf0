"""What a run was made with, so that it can be made again."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

SEVERAL = " / "
"""Stands between what runs that were merged have each for itself."""

PACKAGES = ("gflownet-em", "torch", "torchgfn", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Returns the commit of the source tree, with `+changes` if it is dirty; None outside git."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[1]:
            return None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, str | int | None]:
    """Returns what the run's costs were measured on."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def made_with() -> dict[str, Any]:
    """Returns all of the above by its name in `config.json`."""
    return {"versions": versions(), "git_commit": git_commit(), "machine": machine()}


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derives the seed of one part of a run from the run's single seed.

    Args:
        seed: The run's seed.
        *purpose: Names and numbers that tell the part from every other.

    Returns:
        A number in 0 .. 2^63 - 1, the same on every machine.
    """
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
