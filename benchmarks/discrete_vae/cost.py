"""What updates and evaluations of a discrete VAE cost, beside the floor of its convolutions.

python -m benchmarks.discrete_vae.cost --threads 2
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from algorithms.code_grid_policy import RasterPolicy
from algorithms.image_mlp_policy import ImageMLPPolicy
from algorithms.image_policy import ImagePolicy
from algorithms.importance_sampling import ROWS_AT_A_TIME, importance_sample, log_joint_once
from algorithms.minibatch_em import MinibatchEM
from algorithms.rollout import rollout
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from gfn_envs.errors import UserError
from lvms.code_decoder import channels_last
from lvms.data.images import load_images
from lvms.discrete_vae import DiscreteVAE

AUTHORS_SECONDS = {"E-update": 1.114, "M-update": 0.668, "evaluation of an image": 35.6}
"""Seconds that the authors' code takes on a 2-core machine with 2 threads, at the defaults."""

LARGE = (128, 128, 3, 28)
"""Images, channels, kernel and side of the large convolution that the rate is measured by."""

TRAINED_CHANNELS, TRAINED_UPDATES = 32, (100, 400, 1600)
"""The small model that shows how often policies draw the same codes."""


@dataclass(frozen=True)
class Sizes:
    """What is measured; the defaults are the paper's."""

    data: str = "mnist-5k"
    codes: int = 8
    code_dim: int = 1
    channels: int = 128
    batch: int = 128
    samples: int = 5000
    repeats: int = 7


def convolution_rate(repeats: int) -> float:
    """Measures how many floating point operations a second a large convolution reaches."""
    images, channels, kernel, side = LARGE
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    channels_last(layer)
    x = torch.randn(images, channels, side, side).to(memory_format=torch.channels_last)
    with torch.no_grad():
        operations = count_operations(lambda: layer(x))
        return operations / median_seconds(lambda: layer(x), repeats)


def count_operations(function: Callable[[], object]) -> int:
    """Counts the floating point operations of matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Times a call, after two that warm up."""
    function()
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(sizes: Sizes) -> str:
    """Measures both policies and returns the tables.

    Raises:
        UserError: If the images cannot be loaded, or a size is impossible.
    """
    images = load_images(sizes.data)
    shape = tuple(images.train.shape[1:])
    model = DiscreteVAE(shape, (4, 4), sizes.codes, sizes.code_dim, sizes.channels)
    model.start_at_data(images.train, torch.Generator().manual_seed(0))
    rate = convolution_rate(sizes.repeats)
    x = images.train[: sizes.batch]
    policies: dict[str, ImagePolicy] = {
        "raster": RasterPolicy(model.env, shape, sizes.channels),
        "paper's": ImageMLPPolicy(model.env, shape, sizes.channels),
    }
    rows = []
    for name, policy in policies.items():
        encode = _operations(policy.encode, x)
        decode = _operations(model.decode, torch.randint(sizes.codes, (1, model.env.max_steps)))
        # A backward pass is two products for each of the forward pass.
        floors = {
            "E-update": len(x) * (3 * encode + decode) / rate,
            "M-update": len(x) * (encode + 3 * decode) / rate,
            "evaluation of an image": (encode + sizes.samples * decode) / rate,
        }
        for part, seconds in _seconds(model, policy, x, sizes).items():
            authors = f"{AUTHORS_SECONDS[part] / seconds:.1f}" if sizes == Sizes() else "-"
            rows.append([name, part, f"{seconds:.3f}", authors,
                         f"{floors[part]:.3f}", f"{seconds / floors[part]:.2f}"])  # fmt: skip
    head = ["policy", "what", "seconds", "times faster than the authors'", "floor, s", "x floor"]
    caption = (
        f"A large convolution reaches {rate / 1e9:.0f} GFLOP/s with {torch.get_num_threads()} "
        f"threads; an image takes {encode / 1e6:.1f} MFLOP to encode and {decode / 1e6:.1f} to "
        "decode, forward."
    )
    costs = tabulate(rows, head, tablefmt="github", disable_numparse=True)
    return f"{costs}\n\n{caption}\n\n{_gain(images.train, images.test[:4], sizes)}"


@torch.no_grad()
def _operations(network: Callable[[Tensor], object], rows: Tensor) -> int:
    """Counts the floating point operations that a network's forward pass takes for one row."""
    return count_operations(functools.partial(network, rows[:1]))


def _seconds(model: DiscreteVAE, policy: ImagePolicy, x: Tensor, sizes: Sizes) -> dict[str, float]:
    """Times an E-update and an M-update of a mini-batch, and the evaluation of an image."""
    learner = MinibatchEM(
        model, policy, TrajectoryBalance(), num_updates=1, rounds=1, batch_size=len(x),
        samples_per_x=1, m_step="sampled",
    )  # fmt: skip
    ids = torch.arange(len(x))
    return {
        "E-update": median_seconds(lambda: learner.policy_update(x, ids), sizes.repeats),
        "M-update": median_seconds(lambda: learner.model_update(x), sizes.repeats),
        "evaluation of an image": median_seconds(
            lambda: importance_sample(model, policy, x[:1], sizes.samples), 3
        ),
    }


def _gain(train: Tensor, x: Tensor, sizes: Sizes) -> str:
    """Compares scoring each distinct grid of codes once with scoring every sample.

    The more a policy has learned, the oftener it draws the same grid: the model is a small one,
    trained for a while.
    """
    torch.manual_seed(0)
    shape = tuple(train.shape[1:])
    model = DiscreteVAE(shape, (4, 4), sizes.codes, channels=TRAINED_CHANNELS)
    model.start_at_data(train, torch.Generator().manual_seed(0))
    policy = RasterPolicy(model.env, shape, TRAINED_CHANNELS)
    learner = MinibatchEM(
        model, policy, VarGrad(), num_updates=TRAINED_UPDATES[-1],
        rounds=TRAINED_UPDATES[-1] // TRAINED_UPDATES[0], m_step="reweighted",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    rows = []
    for updates in TRAINED_UPDATES:
        while learner.updates < updates:
            learner.update(train)
        batch = rollout(
            model.env, policy, x, rows=torch.arange(len(x)).repeat_interleave(sizes.samples)
        )
        z = batch.z.view(len(x), sizes.samples, -1)
        _, distinct = log_joint_once(model, x, z)
        once = median_seconds(functools.partial(log_joint_once, model, x, z), 3) / len(x)
        every = median_seconds(functools.partial(_log_joint_of_all, model, x, z), 3) / len(x)
        share = (distinct / sizes.samples).mean().item()
        rows.append([updates, f"{share:.2f}", f"{once:.3f}", f"{every:.3f}", f"{every / once:.2f}"])
    heads = ["updates", "distinct", "each once, s an image", "every sample, s", "gain"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


@torch.no_grad()
def _log_joint_of_all(model: DiscreteVAE, x: Tensor, z: Tensor) -> None:
    """Computes log p(x, z) of every sample, equal ones too."""
    for observation, samples in zip(x, z, strict=True):
        for some in samples.split(ROWS_AT_A_TIME):
            logits = model.decode(some).flatten(1)
            on = logits @ observation.flatten()
            on - F.softplus(logits).sum(-1) + model.prior.log_prob(some)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    defaults = Sizes()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default: 2)")
    parser.add_argument("--data", default=defaults.data, help="images (default: mnist-5k)")
    for name in ("codes", "code_dim", "channels", "batch", "samples", "repeats"):
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=default, metavar="N",
            help=f"(default: {default})",
        )  # fmt: skip
    given = vars(parser.parse_args(arguments))
    threads = given.pop("threads")
    try:
        if min(threads, *(value for value in given.values() if isinstance(value, int))) < 1:
            raise UserError("Every number must be at least 1.")
        torch.set_num_threads(threads)
        print(measure(Sizes(**given)))
    except UserError as error:
        print(f"cost: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
