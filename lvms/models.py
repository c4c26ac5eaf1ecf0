"""Every model at fixed parameters by its standard name: tasks of posterior sampling.

`models.make(name, seed, order)` draws the parameters from the seed, `observations` draws data from
the model. Each posterior is known exactly, is neither a point nor uniform, and is no product of
independent factors: the entropies beside each model are means over its own data, smallest and
largest of seeds 0 to 5, next to the log of the number of structures.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gfn_envs.catalogue import Catalogue
from lvms.discrete_vae import DiscreteVAE
from lvms.hidden_markov import HiddenMarkovModel
from lvms.hierarchical_mixture import HierarchicalGaussianMixture
from lvms.model import LatentVariableModel
from lvms.path_drawing import PathDrawing
from lvms.sigmoid_belief import SigmoidBeliefNet
from lvms.sprite_scene import SpriteScene

models = Catalogue("model")

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
"""Turned by it, no two levels of a mixture lie on one line."""

GLYPHS = (
    "####/#..#/#..#/####", "#..#/.##./.##./#..#", "####/.##./.##./.##.", "#..#/#..#/#..#/.##.",
    "##../##../####/####", "..##/..##/##../##..", "####/..../####/....", "#.#./#.#./#.#./#.#.",
)  # fmt: skip
"""Sprites for scenes: ring, cross, T, U, L, two squares, rows and columns."""

STAMPS = ("#.#/.#./#.#", ".#./###/.#.", "###/#.#/###", "###/#../#..", ".##/##./..#", "###/.#./.#.")
"""Stamps for drawings: X, cross, ring, corner, staircase, T."""


def observations(model: LatentVariableModel, n: int, seed: int = 0) -> Tensor:
    """Draws observations from a model, `[n, ...]`, the same for each seed."""
    return model.sample(n, torch.Generator().manual_seed(seed))[0]


# -- hierarchical Gaussian mixtures: exact by a sum over the leaves --------------------------------


def mixture_tiny(seed: int = 0, order: str = "fixed") -> HierarchicalGaussianMixture:
    """Gaussian mixture of depth 2, 16 leaves; posterior entropy 0.8 to 1.4 of 2.8 nats."""
    return _mixture((4, 4), seed, scale=0.5, order=order)


def mixture_small(seed: int = 0, order: str = "fixed") -> HierarchicalGaussianMixture:
    """Gaussian mixture of depth 4, 81 leaves; posterior entropy 1.8 to 2.4 of 4.4 nats."""
    return _mixture((3,) * 4, seed, scale=0.4, decay=0.7, twist=GOLDEN_ANGLE, order=order)


def mixture_medium(seed: int = 0, order: str = "fixed") -> HierarchicalGaussianMixture:
    """Gaussian mixture of depth 8, 256 leaves; posterior entropy 2.6 to 3.0 of 5.5 nats."""
    return _mixture((2,) * 8, seed, scale=0.4, decay=0.9, twist=GOLDEN_ANGLE, order=order)


# -- hidden Markov models: exact by forward-backward -----------------------------------------------


def hmm_tiny(seed: int = 0, order: str = "fixed") -> HiddenMarkovModel:
    """Hidden Markov model, 4 steps of 3 states; posterior entropy 1.2 to 2.1 of 4.4 nats."""
    return _hidden_markov(4, 3, seed, order)


def hmm_small(seed: int = 0, order: str = "fixed") -> HiddenMarkovModel:
    """Hidden Markov model, 6 steps of 4 states; posterior entropy 3.0 to 3.7 of 8.3 nats."""
    return _hidden_markov(6, 4, seed, order)


def hmm_medium(seed: int = 0, order: str = "fixed") -> HiddenMarkovModel:
    """Hidden Markov model, 24 steps of 8 states; posterior entropy 8.5 to 13.6 of 49.9 nats."""
    return _hidden_markov(24, 8, seed, order)


# -- sigmoid belief networks: exact by a sum over the structures -----------------------------------


def sbn_tiny(seed: int = 0, order: str = "fixed") -> SigmoidBeliefNet:
    """Sigmoid belief network, 4 latents, 8 units; posterior entropy 1.1 to 1.5 of 2.8 nats."""
    return _belief_net(4, 8, 2.0, seed, order)


def sbn_small(seed: int = 0, order: str = "fixed") -> SigmoidBeliefNet:
    """Sigmoid belief network, 8 latents, 16 units; posterior entropy 1.8 to 2.3 of 5.5 nats."""
    return _belief_net(8, 16, 2.0, seed, order)


def sbn_medium(seed: int = 0, order: str = "fixed") -> SigmoidBeliefNet:
    """Sigmoid belief network, 16 latents, 32 units; posterior entropy 3.5 to 3.7 of 11.1 nats."""
    return _belief_net(16, 32, 1.5, seed, order)


# -- discrete VAEs: exact by a sum over the structures ---------------------------------------------


def dvae_tiny(seed: int = 0, order: str = "fixed") -> DiscreteVAE:
    """Discrete VAE, 2 x 2 grid of 4 codes; posterior entropy 1.8 to 2.8 of 5.5 nats."""
    return _discrete_vae((2, 2), 4, 0.8, seed, order)


def dvae_small(seed: int = 0, order: str = "fixed") -> DiscreteVAE:
    """Discrete VAE, 3 x 3 grid of 3 codes; posterior entropy 4.5 to 5.2 of 9.9 nats."""
    return _discrete_vae((3, 3), 3, 1.0, seed, order)


# -- scenes of sprites: exact by a sum over the placements -----------------------------------------


def sprites_tiny(seed: int = 0, order: str = "fixed") -> SpriteScene:
    """Scenes of 2 pieces, 3 sprites, 9 places; posterior entropy 1.2 to 1.5 of 6.6 nats."""
    return _sprite_scene(2, 3, (3, 3), 1.5, seed, order)


def sprites_small(seed: int = 0, order: str = "fixed") -> SpriteScene:
    """Scenes of 3 pieces, 4 sprites, 16 places; posterior entropy 1.7 to 1.8 of 12.5 nats."""
    return _sprite_scene(3, 4, (4, 4), 2.5, seed, order)


# -- drawings of paths: exact by a sum over the paths ----------------------------------------------


def paths_tiny(seed: int = 0, order: str = "fixed") -> PathDrawing:
    """Paths of 3 moves on 4 x 4 cells; posterior entropy 1.5 to 2.4 of 6.4 nats."""
    return _path_drawing((4, 4), 3, 1.0, seed, order)


def paths_small(seed: int = 0, order: str = "fixed") -> PathDrawing:
    """Paths of 7 moves on 6 x 6 cells; posterior entropy 1.9 to 4.2 of 11.6 nats."""
    return _path_drawing((6, 6), 7, 0.9, seed, order)


for _size in ("tiny", "small", "medium"):
    for _kind in ("mixture", "hmm", "sbn"):
        models.register(f"{_kind}-{_size}", f"lvms.models:{_kind}_{_size}")
models.register("dvae-tiny", "lvms.models:dvae_tiny")
models.register("dvae-small", "lvms.models:dvae_small")
models.register("sprites-tiny", "lvms.models:sprites_tiny")
models.register("sprites-small", "lvms.models:sprites_small")
models.register("paths-tiny", "lvms.models:paths_tiny")
models.register("paths-small", "lvms.models:paths_small")
for _name in ("pcfg-tiny", "pcfg-small", "ncfg-tiny", "energy-tiny"):
    models.register(_name, f"lvms.grammar_models:{_name.replace('-', '_')}")


# -- parameters at random --------------------------------------------------------------------------


def _mixture(
    branching: Sequence[int],
    seed: int,
    scale: float,
    order: str,
    decay: float = 0.5,
    twist: float = 0.0,
) -> HierarchicalGaussianMixture:
    """A mixture with standard normal super-means, so that their leaves overlap."""
    model = HierarchicalGaussianMixture(
        branching, scale=scale, order=order, decay=decay, twist=twist
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.means.copy_(torch.randn(model.means.shape, generator=generator))
    return model


def _hidden_markov(steps: int, states: int, seed: int, order: str) -> HiddenMarkovModel:
    """A chain of uneven transitions, with neighbouring means 1.25 standard deviations apart."""
    model = HiddenMarkovModel(steps, states, scale=0.8, order=order)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.initial_logits.copy_(torch.randn(states, generator=generator))
        model.transition_logits.copy_(1.5 * torch.randn(states, states, generator=generator))
        model.means.add_(0.2 * torch.randn(states, generator=generator))
    return model


def _belief_net(hidden: int, visible: int, scale: float, seed: int, order: str) -> SigmoidBeliefNet:
    """A network whose units are about as often on as off, or they would tell little of z."""
    model = SigmoidBeliefNet(hidden, visible, scale=scale, order=order, seed=seed)
    # Another stream than that of the weights.
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    with torch.no_grad():
        model.prior_logits.copy_(0.5 * torch.randn(hidden, generator=generator))
        noise = 0.5 * torch.randn(visible, generator=generator)
        model.bias.copy_(noise - model.weight.sum(1) / 2)
    return model


def _discrete_vae(
    grid: Sequence[int], num_codes: int, scale: float, seed: int, order: str
) -> DiscreteVAE:
    """A small decoder with a prior over codes that depend on each other."""
    model = DiscreteVAE(
        (1, 8, 8), grid, num_codes,
        code_dim=8, channels=16, prior="pixel-cnn", order=order, scale=scale, seed=seed,
    )  # fmt: skip
    # Another stream than that of the weights.
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # the biases, and the head that makes a new prior uniform
                parameter.normal_(std=0.2, generator=generator)
    return model


def _sprite_scene(
    pieces: int, sprites: int, grid: Sequence[int], contrast: float, seed: int, order: str
) -> SpriteScene:
    """A scene of glyphs, whose pixels are on or off with a logit of about the contrast."""
    model = SpriteScene(pieces, sprites, grid=grid, order=order)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(GLYPHS), generator=generator)[:sprites].tolist()
    signs = [[1.0 if c == "#" else -1.0 for c in GLYPHS[i].replace("/", "")] for i in chosen]
    with torch.no_grad():
        model.sprite_logits.copy_(contrast * torch.tensor(signs))
        model.background_logit.fill_(-contrast)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def _path_drawing(
    grid: Sequence[int], moves: int, contrast: float, seed: int, order: str
) -> PathDrawing:
    """Drawings with a stamp whose pixels are on or off with a logit of about the contrast."""
    model = PathDrawing(grid, moves, side=3, order=order)
    generator = torch.Generator().manual_seed(seed)
    stamp = STAMPS[int(torch.randint(len(STAMPS), (), generator=generator))].replace("/", "")
    with torch.no_grad():
        model.stamp_logits.copy_(
            contrast * torch.tensor([1.0 if c == "#" else -1.0 for c in stamp])
        )
        model.background_logit.fill_(-contrast)
        for parameter, scale in (
            (model.stamp_logits, 0.2),
            (model.background_logit, 0.2),
            (model.initial_logits, 1.0),
            (model.transition_logits, 1.0),
        ):
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model
