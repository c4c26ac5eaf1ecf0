"""log Z(x) by importance sampling from the policies of a run, beside what is known of it.

gfnem bench tree-posterior --preset energy --out runs/energy
python -m benchmarks.tree_posterior.log_partition runs/energy
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from algorithms.importance_sampling import ImportanceEstimate, importance_sample
from benchmarks.provenance import derive_seed
from benchmarks.report.progress import Progress
from benchmarks.report.restore import restore
from benchmarks.run_folder import RunFolder
from benchmarks.runner import open_run
from benchmarks.tree_posterior.learner import TreePosteriorLearner
from benchmarks.tree_posterior.suite import TreePosteriorSuite
from benchmarks.tree_posterior.sweep import TreePosteriorCell
from gfn_envs.errors import UserError
from lvms.enumeration import exact_posterior

LEGEND = (
    "Of each sentence, means over all: how far log Z(x) by importance sampling is from the exact "
    "one, by its absolute value, and what it says its own standard error is; the effective sample "
    "size as a share. ± is the standard error over seeds. untrained is the policy at its start: "
    "what it knows of the grammar alone."
)


def estimate(
    cell: TreePosteriorCell, learner: TreePosteriorLearner, samples: int
) -> ImportanceEstimate:
    """Estimates log Z of the held-out sentences with a learner's policy."""
    seed = derive_seed(cell.seed, cell.task, cell.policy, cell.objective, "log Z")
    generator = torch.Generator().manual_seed(seed)
    e_step = learner.e_step
    return importance_sample(e_step.model, e_step.policy, learner.x, samples, generator)


def make_table(path: Path, samples: int) -> str:
    """Tabulates all trainings of a run.

    Args:
        path: The folder of a tree posterior suite's run.
        samples: Of each sentence.

    Raises:
        UserError: If nothing is finished there.
    """
    folder, suite = open_run("tree-posterior", path)
    assert isinstance(suite, TreePosteriorSuite)
    groups: dict[tuple[str, str, str], list[TreePosteriorCell]] = {}
    for cell in Progress.of(suite, folder).finished:
        groups.setdefault((cell.task, cell.policy, cell.objective), []).append(cell)
    rows, untrained = [], set()
    for (task, policy, objective), cells in tqdm(groups.items(), unit="pair", leave=False):
        start = suite.make_learner(cells[0])
        exact = exact_posterior(start.e_step.model).log_marginal(start.x)
        if (task, policy) not in untrained:
            untrained.add((task, policy))
            found = [estimate(cells[0], start, samples)]
            rows.append([task, policy, "untrained", *_row(found, exact)])
        found = []
        for cell in cells:
            learner = restore(suite, folder, cell)
            if learner is None:
                raise UserError(f"The checkpoint of {cell.title} is gone.")
            found.append(estimate(cell, learner, samples))
        rows.append([task, policy, objective, *_row(found, exact)])
    headers = ["grammar", "policy", "objective", f"error of log Z, {samples} samples",
               "its standard error", "ESS"]  # fmt: skip
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{LEGEND}"


def _row(found: Sequence[ImportanceEstimate], exact: Tensor) -> list[str]:
    """Averages over sentences, then over seeds."""
    return [
        _with_error([(one.log_marginal - exact).abs().mean().item() for one in found]),
        _with_error([one.standard_error.mean().item() for one in found]),
        _with_error([one.effective_samples.mean().item() for one in found], 2),
    ]


def _with_error(values: Sequence[float], digits: int = 4) -> str:
    """Shows a mean with its standard error, if there is any."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, writes it beside the run's, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="of a tree posterior suite")
    parser.add_argument("--samples", type=int, default=1000, metavar="M",
                        help="trees of each sentence (default: 1000)")  # fmt: skip
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        table = make_table(given.run, given.samples)
        RunFolder(given.run).write_text("log-z.md", table + "\n")
    except (UserError, OSError) as error:
        print(f"log_partition: error: {error}", file=sys.stderr)
        return 2
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
