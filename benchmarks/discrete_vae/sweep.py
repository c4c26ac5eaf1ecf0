"""The settings of the discrete-VAE task, and its presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.discrete_vae.methods import dvae_methods
from benchmarks.held_out.options import HeldOutOptions
from benchmarks.options import option, require_at_least, require_names
from gfn_envs.errors import UserError
from lvms.code_prior import code_priors

POSITIVE = (
    "codes", "code_dim", "channels", "hidden", "samples", "validation_images", "validation_samples",
)  # fmt: skip
"""Options that must be at least 1."""


@dataclass(frozen=True)
class Options(HeldOutOptions):
    """What can be set on the command line; the defaults make a quick comparison."""

    methods: tuple[str, ...] = option(
        (
            "gflownet-em", "gflownet-em-warm", "gumbel-softmax", "vq-vae",
            "reweighted-wake-sleep", "reinforce", "mean-field",
        ),
        "registered discrete VAE methods",
    )  # fmt: skip
    data: str = option(
        "digits", "images: digits, mnist-5k, mnist, fashion-mnist, or a directory of IDX files"
    )

    prior: str = option("uniform", f"prior over grids of codes: {', '.join(code_priors)}")
    grid: tuple[int, ...] = option((2, 2), "rows and columns of codes")
    codes: int = option(8, "how many codes there are, K")
    code_dim: int = option(16, "numbers that an embedded code has")
    channels: int = option(32, "channels of the hidden layers of decoder and encoder")
    hidden: int = option(64, "width of the policy's other hidden layers")
    order: str = option(
        "fixed", "order in which a policy puts codes: row after row, or any", ("fixed", "any")
    )

    validation_images: int = option(200, "validation images that are measured, at most")
    validation_samples: int = option(50, "samples of the validation bound")
    samples: int = option(1000, "samples of the test NLL for each image, M")
    test_images: int = option(0, "test images that are measured; 0: all")

    def check(self) -> None:
        """Raises a UserError if an option cannot be served."""
        require_at_least(1, self, POSITIVE)
        require_at_least(0, self, ("test_images",))
        self.check_shared(dvae_methods)
        require_names("prior", (self.prior,), code_priors)
        if len(self.grid) != 2 or min(self.grid) < 1:
            raise UserError("--grid takes two numbers, rows and columns of at least 1.")


presets: Mapping[str, Mapping[str, Any]] = {
    # Hu et al. 2023, section 5.3, with K = 8. It takes most of a day; --updates shortens it.
    "paper": {
        "methods": ("paper",),
        "data": "mnist",
        "grid": (4, 4),
        "codes": 8,
        "code_dim": 1,
        "channels": 128,
        "hidden": 256,
        "batch_size": 128,
        "updates": (195_000,),  # 500 epochs of 50,000 images
        "rounds": 500,
        "samples": 5000,
        "test_images": 1000,
    },
    # What each part of GFlowNet-EM brings: kinds of log Z, dreams, what the M-step learns from.
    "ablation": {
        "methods": (
            "gflownet-em", "gflownet-em-tb", "gflownet-em-global-z", "gflownet-em-no-sleep",
            "gflownet-em-reweighted", "gflownet-em-equal", "gflownet-em-sampled",
            "gflownet-em-greedy", "gflownet-em-alternating", "gflownet-em-adaptive",
        ),
        "seeds": 6,
    },
    # 8 x 8 pixels, quickly learned: the EM suite's `digits`.
    "digits": {
        "methods": (
            "gflownet-em", "gflownet-em-warm", "gumbel-softmax", "reweighted-wake-sleep",
            "reinforce", "mean-field",
        ),
        "seeds": 3,
    },
    # 28 x 28 pixels on two cores; methods that dream do so in every update.
    "mnist-5k": {
        "methods": (
            "gflownet-em-dreams", "gflownet-em-warm", "gumbel-softmax-autoregressive",
            "gumbel-softmax", "reweighted-wake-sleep-dreams", "vq-vae", "reinforce", "mean-field",
        ),
        "data": "mnist-5k",
        "grid": (4, 4),
        "codes": 8,
        "code_dim": 16,
        "channels": 32,
        "hidden": 64,
        "batch_size": 32,
        "cpu_minutes": 4.0,
    },
}  # fmt: skip
