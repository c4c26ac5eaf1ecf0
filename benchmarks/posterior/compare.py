"""Compares objectives and explorations at equal CPU time, against exact posteriors.

python -m benchmarks.posterior.compare --tasks mixture-tiny hmm-tiny --seconds 20 --controls
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from algorithms.objectives import objectives
from algorithms.schedule import Constant
from benchmarks.posterior.controls import controls, run_control
from benchmarks.posterior.curves import train_posterior
from benchmarks.posterior.training import FAST_SHARE, LEARNING_RATE, make_data, make_e_step
from benchmarks.provenance import derive_seed, made_with
from gfn_envs.errors import UserError
from lvms.models import models

METRICS = ("total_variation", "forward_kl", "reverse_kl", "ess")


def compare(
    task: str,
    objective: str,
    exploration: str,
    seconds: float,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
) -> dict[str, Any]:
    """Trains one policy on one model's posterior, for 32 observations.

    Adam's rate falls to a tenth for the last third of the time.

    Args:
        task: A registered model.
        objective: A registered objective.
        exploration: A registered exploration.
        seconds: CPU seconds of training.
        seed: Of everything random.
        learning_rate: Adam's, to begin with.

    Returns:
        What was compared, its final metrics, updates, likelihood evaluations and CPU seconds.

    Raises:
        UserError: If a name is unknown, or objective and exploration do not fit together.
    """
    x = make_data(task)
    e_step = make_e_step(task, objective, exploration, x, seed, learning_rate)
    fast = train_posterior(e_step, x, names=(), every=20, cpu_seconds=seconds * FAST_SHARE)
    e_step.learning_rate = Constant(learning_rate / 10)
    slow = train_posterior(e_step, x, names=(), every=20, cpu_seconds=seconds * (1 - FAST_SHARE))
    final = train_posterior(e_step, x, names=METRICS, every=1, updates=0)[-1]
    return {
        "task": task,
        "objective": objective,
        "exploration": exploration,
        "metrics": final.metrics,
        "updates": final.updates,
        "likelihood_evaluations": final.likelihood_evaluations,
        "cpu_seconds": fast[-1].cpu_seconds + slow[-1].cpu_seconds,
    }


def compare_control(task: str, control: str, budget: int, seed: int = 0) -> dict[str, Any]:
    """Runs one control on one model's posterior, for the same 32 observations.

    Args:
        task: A registered model.
        control: A registered control.
        budget: The most likelihood evaluations, all observations together.
        seed: Of everything random.

    Returns:
        What was run, its metrics, likelihood evaluations and CPU seconds.

    Raises:
        UserError: See `run_control`.
    """
    model, x = models.make(task), make_data(task)
    generator = torch.Generator().manual_seed(derive_seed(seed, task, "control", control))
    return {"task": task, "control": control, **run_control(control, model, x, budget, generator)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every combination that fits together and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["mixture-tiny", "hmm-tiny", "sbn-tiny"])
    parser.add_argument("--objectives", nargs="*", default=list(objectives))
    parser.add_argument("--explorations", nargs="+", default=["on-policy", "epsilon-uniform"])
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds of each training")
    parser.add_argument(
        "--learning-rate", type=float, default=LEARNING_RATE, help="Adam's, to begin with"
    )
    parser.add_argument(
        "--controls",
        nargs="*",
        default=None,
        metavar="CONTROL",
        help=f"samplers without a policy; all without names: {' '.join(controls)}",
    )
    parser.add_argument("--evaluations", type=int, default=None, metavar="N",
                        help="likelihood evaluations of each control (default: the most that a "
                        "training on the same task took)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found, left_out = [], []
    cells = [(t, o, e) for t in options.tasks for o in options.objectives
             for e in options.explorations]  # fmt: skip
    with tqdm(cells, unit="training") as bar:
        for cell in bar:
            bar.set_description(" ".join(cell))
            try:
                result = compare(*cell, options.seconds, options.seed, options.learning_rate)
                found.append(result)
            except UserError as error:
                left_out.append(f"{', '.join(cell)}: {error}")
    names = list(controls) if options.controls == [] else options.controls or []
    most = {task: max((r["likelihood_evaluations"] for r in found if r["task"] == task), default=0)
            for task in options.tasks}  # fmt: skip
    with tqdm([(t, c) for t in options.tasks for c in names], unit="control") as bar:
        for task, control in bar:
            bar.set_description(f"{task} {control}")
            try:
                budget = most[task] if options.evaluations is None else options.evaluations
                found.append(compare_control(task, control, budget, options.seed))
            except UserError as error:
                left_out.append(f"{task}, {control}: {error}")
    print(_table(found))
    print("\n".join(["", *left_out]))
    if options.out is not None:
        options.out.write_text(json.dumps({"results": found, **made_with()}, indent=2) + "\n")


def _table(results: Sequence[dict[str, Any]]) -> str:
    """Formats trainings and controls, in Markdown; what a control has not is left empty."""
    tasks = list(dict.fromkeys(r["task"] for r in results))
    results = sorted(results, key=lambda r: tasks.index(r["task"]))
    means = [[r["metrics"].get(m, {}).get("mean") for m in METRICS] for r in results]
    rows = [
        [
            r["task"],
            r.get("objective", r.get("control")),
            r.get("exploration"),
            mean[0],
            r["metrics"][METRICS[0]]["standard_error"],
            *mean[1:],
            r.get("updates"),
            r["likelihood_evaluations"],
            r["cpu_seconds"],
        ]
        for r, mean in zip(results, means, strict=True)
    ]
    head = ["task", "objective or control", "exploration", METRICS[0], "standard error",
            *METRICS[1:], "updates", "likelihood evaluations", "CPU seconds"]  # fmt: skip
    decimals = (*[".4f"] * (len(head) - 1), ".1f")
    return tabulate(rows, head, tablefmt="github", floatfmt=decimals)


if __name__ == "__main__":
    main()
