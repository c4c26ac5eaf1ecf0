"""Images of bars in IDX files, tiny discrete-VAE runs on them, and what must be equal in two."""

import json
import struct

import numpy as np
import torch

from benchmarks.discrete_vae.sweep import Options
from benchmarks.discrete_vae.task import DiscreteVAETask
from benchmarks.runner import open_run, run_task, start_run
from tests.benchmarks.runs import without_time

NAME = "discrete-vae"

TINY = {
    "grid": (2, 2), "codes": 3, "code_dim": 4, "channels": 8, "hidden": 8, "rounds": 4, "every": 2,
    "updates": (12,), "batch_size": 8, "samples": 60, "validation_samples": 20,
    "validation_images": 10,
}  # fmt: skip

COSTS = ("CPU s",)


def bars(count, side=8, seed=0):
    """Grey images, each quarter of which is lit in rows, in columns or not at all, with noise."""
    random = np.random.default_rng(seed)
    half = side // 2
    stripes = np.zeros((3, half, half), dtype=bool)
    stripes[0, ::2] = stripes[1, :, ::2] = True
    kinds = random.integers(0, 3, (count, 2, 2))
    images = stripes[kinds].transpose(0, 1, 3, 2, 4).reshape(count, 2 * half, 2 * half)
    noisy = images ^ (random.random(images.shape) < 0.03)
    return (255 * noisy).astype(np.uint8)


def write_bars(folder, count=120, side=8):
    """Writes a directory of IDX files, training and test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part, seed in (("train", count, 0), ("t10k", count // 3, 1)):
        levels = bars(part, side, seed)
        header = b"\0\0\x08\x03" + struct.pack(">3I", *levels.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + levels.tobytes())
    return str(folder)


def tiny_task(data, **changes):
    return DiscreteVAETask(Options(**{**TINY, "data": data, **changes}))


def start(path, data, **changes):
    task = tiny_task(data, **changes)
    return task, start_run(NAME, task, path)


def resume(path, workers=1):
    """As another process would: from the folder alone, with other global random states."""
    torch.manual_seed(12345)
    folder, task = open_run(NAME, path)
    return run_task(task, folder, workers=workers)


def numbers(path):
    """Every number of a run that must not depend on how it was carried out."""
    found = {"table": table(path)}
    for cell in sorted(path.glob("cells/*/*")):
        lines = (cell / "metrics.jsonl").read_text().splitlines()
        # As text, since some standard errors are NaN, which equals nothing.
        found[str(cell.relative_to(path))] = json.dumps(
            [
                [without_time(json.loads(line)) for line in lines],
                without_time(json.loads((cell / "summary.json").read_text())),
                json.loads((cell / "per-image.json").read_text()),
            ]
        )
    return found


def table(path):
    """The rows of `table.md` by method, each a dict without the seconds."""
    lines = [line for line in (path / "table.md").read_text().splitlines() if line[:1] == "|"]
    cells = [[word.strip() for word in line.split("|")[1:-1]] for line in lines]
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return {
        row["method"]: {name: text for name, text in row.items() if name not in COSTS}
        for row in rows
    }


def words(data, **changes):
    """The same options on the command line."""
    found = []
    for name, value in {**TINY, "data": data, **changes}.items():
        values = value if isinstance(value, tuple) else (value,)
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found
