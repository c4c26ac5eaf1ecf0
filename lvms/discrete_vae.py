"""A discrete VAE: images decoded from a grid of codes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.code_grid import CodeGrid
from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET
from lvms.blocks import in_blocks
from lvms.code_decoder import CodeDecoder, channels_last
from lvms.code_prior import CodePrior, code_priors
from lvms.distinct_codes import distinct_rows
from lvms.mean_field import ascend_on_table
from lvms.model import LatentVariableModel
from lvms.random_weights import draw_weights

START_SCALE = 0.25
"""How far the codes move a pixel's logit where learning starts, a standard deviation in nats."""

SCALING_DRAWS = 64
"""On how many grids of codes that scale is measured."""

PRIOR_STREAM = 2_000_003
"""Added to the seed, so that a prior's weights are not the decoder's."""


class DiscreteVAE(LatentVariableModel):
    """Black and white images from a grid of discrete codes (van den Oord et al. 2017).

    p(z) is a prior over grids of K codes, p(x | z) = prod_d Bernoulli(x_d; sigmoid(l_d(z))). The
    logits are l(z) = decoder(embedded codes) + b, with a bias b for each pixel; `CodeDecoder` says
    how the grid grows to the image.

    log p(x, z) = x . l(z) - sum_d softplus(l_d(z)) + log p(z), so what does not depend on x is
    computed once for each distinct z of a batch. Where the structures are few enough to enumerate
    it is its own exact posterior, by a table of l(z) over all of them; elsewhere those methods
    raise.

    Attributes:
        image_shape: `(C, H, W)`.
        embedding: A parameter `[K, D]`.
        decoder: From embedded codes to what they add to the logits.
        pixel_bias: b, a parameter `[C, H, W]`.
        prior: p(z).
        marginal_logits: Of each pixel being on in the data that learning started from, a buffer
            `[C, H, W]`; 0 before there are any.
    """

    env: CodeGrid
    marginal_logits: Tensor

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        grid: Sequence[int] = (4, 4),
        num_codes: int = 8,
        code_dim: int = 16,
        channels: int = 32,
        prior: str | CodePrior = "uniform",
        order: str = "fixed",
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Builds the model with random weights.

        Args:
            image_shape: `(C, H, W)`.
            grid: Rows and columns of codes.
            num_codes: K.
            code_dim: D, the size of an embedded code (the paper has 1).
            channels: The channels of the decoder's hidden layers (the paper has 128).
            prior: The name of one of `code_priors`, or a prior of the same grid and codes.
            order: In which order an environment builds z; see `CodeGrid`.
            scale: The standard deviation over codes of a pixel's logit, nats.
            seed: Of the weights.

        Raises:
            UserError: If a size is below 1, the grid is larger than the image, or the prior is
                unknown or of another shape.
        """
        super().__init__()
        self.image_shape = tuple(int(size) for size in image_shape)
        if len(self.image_shape) != 3 or min(*self.image_shape, code_dim, channels) < 1:
            raise UserError(
                "A DiscreteVAE needs an image_shape of channels, height and width, code_dim and "
                f"channels of at least 1; got {image_shape}, {code_dim} and {channels}."
            )
        if not 0 < scale < math.inf:
            raise UserError(f"scale must be positive; got {scale}.")
        self.env = CodeGrid(grid, num_codes, order)
        self.prior: CodePrior = (
            code_priors.make(prior, self.env.grid, num_codes, seed=seed + PRIOR_STREAM)
            if isinstance(prior, str)
            else prior
        )
        if (self.prior.grid, self.prior.num_codes) != (self.env.grid, num_codes):
            raise UserError(
                f"The prior is over {self.prior.grid} grids of {self.prior.num_codes} codes, the "
                f"model's z are {self.env.grid} grids of {num_codes}."
            )
        self.embedding = nn.Embedding(num_codes, code_dim)
        self.decoder = CodeDecoder(self.image_shape, self.env.grid, code_dim, channels)
        self.pixel_bias = nn.Parameter(torch.zeros(self.image_shape))
        self.register_buffer("marginal_logits", torch.zeros(self.image_shape))
        self._start_decoder(scale, torch.Generator().manual_seed(seed))
        channels_last(self.decoder)

    def decode(self, z: Tensor) -> Tensor:
        """Computes the logit of each pixel being on.

        Args:
            z: int64 `[N, L]`; at an entry of -1 stands the mean of all codes' embeddings.

        Returns:
            float `[N, C, H, W]`.
        """
        codes = self.embedding.weight
        codes = torch.cat([codes, codes.mean(0, keepdim=True)])
        # Index -1 is no row to `F.embedding`: the mean is row K.
        return self.decode_embedded(F.embedding(torch.where(z == UNSET, len(codes) - 1, z), codes))

    def decode_relaxed(self, weights: Tensor) -> Tensor:
        """Computes the logits of pixels where each place holds a mixture of codes.

        Args:
            weights: float `[N, L, K]`, summing to 1 at each place; one-hot, they are codes.

        Returns:
            float `[N, C, H, W]`, differentiable in the weights.
        """
        return self.decode_embedded(weights @ self.embedding.weight)

    def decode_embedded(self, embedded: Tensor) -> Tensor:
        """Computes the logits of pixels from what stands for the codes, float `[N, L, D]`."""
        # A place's numbers lie together, which is channels-last already.
        embedded = embedded.unflatten(1, self.env.grid).permute(0, 3, 1, 2)
        return self.decoder(embedded) + self.pixel_bias

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`.

        Args:
            x: Zeros and ones, `[B, C, H, W]`.
            z: int64 `[B, L]`.

        Returns:
            float `[B]`, nats.
        """
        return self.log_partial(x, z)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x, float `[B, C, H, W]`, and z `[B, L]`; see `LatentVariableModel`."""
        with torch.no_grad():
            z = self.prior.sample(batch_size, generator)
            return torch.bernoulli(self.decode(z).sigmoid(), generator=generator), z

    @torch.no_grad()
    def dreams(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z from the prior and gives each pixel's probability: pictures to look at.

        Args:
            batch_size: B.
            generator: Source of randomness.

        Returns:
            float `[B, C, H, W]`.
        """
        return self.decode(self.prior.sample(batch_size, generator)).sigmoid()

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Draws weights anew, so that z changes little and each pixel is as often on as in x.

        Args:
            x: Zeros and ones, `[B, C, H, W]`.
            generator: Source of randomness.

        Raises:
            UserError: If the images are of another shape.
        """
        if x.shape[1:] != self.image_shape:
            raise UserError(
                f"Images of shape {tuple(x.shape[1:])} do not fit a model of {self.image_shape}; "
                "make it with image_shape=tuple(x.shape[1:])."
            )
        on = (x.to(self.pixel_bias.dtype).sum(0) + 0.5) / (len(x) + 1)  # never 0 or 1
        self.marginal_logits.copy_(on.logit())
        self.prior.start(generator)
        self._start_decoder(START_SCALE, generator)
        self.mark_updated()

    def pixel_marginal_nll(self, x: Tensor) -> Tensor:
        """Computes -log p(x) if all pixels were independent, each as in the data begun from.

        A decoder that ignores z learns this and no more: a model that has learned anything of z
        is below it.

        Args:
            x: Zeros and ones, `[B, C, H, W]`.

        Returns:
            float `[B]`, nats.
        """
        logits = self.marginal_logits
        return -(x * logits - F.softplus(logits)).flatten(1).sum(-1)

    @torch.no_grad()
    def _start_decoder(self, scale: float, generator: torch.Generator | None) -> None:
        """Draws embedding and decoder; the pixels' mean logits over codes are the marginals'."""
        draw_weights(self.embedding, generator)
        draw_weights(self.decoder, generator)
        self.pixel_bias.zero_()
        size = (SCALING_DRAWS, self.env.max_steps)
        device = self.pixel_bias.device
        z = torch.randint(self.env.num_codes, size, generator=generator, device=device)
        added = self.decode(z)
        # With a single code nothing varies, and there is nothing to scale.
        factor = scale / added.var(0).mean().sqrt() if self.env.num_codes > 1 else 1.0
        self.decoder.output.weight.mul_(factor)
        self.pixel_bias.copy_(self.marginal_logits - factor * added.mean(0))

    # -- PartialJoint ---------------------------------------------------------------------------

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Guesses log p(x, z_A) for the assigned codes A; see `PartialJoint`.

        A place without a code is decoded from the mean of all embeddings, and has no prior term.
        The prior's terms of the others are exact in raster order; in any order they take a code
        that is missing before them for the first one.

        Args:
            x: Zeros and ones, `[N, C, H, W]`.
            state: int64 `[N, L]`, -1 where unassigned.

        Returns:
            float `[N]`, nats, finite, differentiable in theta.
        """
        rows, inverse = distinct_rows(state, self.env.num_codes)
        logits, constant = self._decoded(rows)
        if inverse is not None:
            logits, constant = logits.index_select(0, inverse), constant.index_select(0, inverse)
        return torch.linalg.vecdot(x.flatten(1).to(logits.dtype), logits) + constant

    # -- ExactPosterior: a sum over the structures ----------------------------------------------

    def log_joint_table(self, x: Tensor) -> Tensor:
        """Computes log p(x, z) for every structure, in the order of `env.enumerate`.

        Args:
            x: `[B, C, H, W]`.

        Returns:
            float `[B, K^L]`, nats. The other methods make it for a block of rows at a time.

        Raises:
            UserError: If there are too many structures to enumerate.
        """
        return _table(x, self._decoded_structures())

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`."""
        decoded = self._decoded_structures()
        return in_blocks(lambda rows: _table(rows, decoded).logsumexp(-1), x, len(decoded))

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k structures for each observation, int64 `[B, k, L]`; see `ExactPosterior`."""
        decoded = self._decoded_structures()

        def draw(rows: Tensor) -> Tensor:
            probability = _table(rows, decoded).softmax(-1)
            return torch.multinomial(probability, k, replacement=True, generator=generator)

        return self._structures()[in_blocks(draw, x, len(decoded))]

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent, a code at a time; see `MeanField`.

        Raises:
            UserError: If there are too many structures to enumerate.
        """
        decoded = self._decoded_structures()

        def ascend(rows: Tensor) -> Tensor:
            table = _table(rows, decoded).unflatten(1, self.env.sizes)
            return torch.stack(ascend_on_table(table, sweeps), 1)

        return list(in_blocks(ascend, x, len(decoded)).unbind(1))

    # -- parts ----------------------------------------------------------------------------------

    def _decoded(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of all pixels, `[N, D]`, and what of log p(x, z) is without x, `[N]`."""
        logits = self.decode(state).flatten(1)
        conditionals = self.prior.conditionals(state.clamp_min(0))
        log_prior = conditionals.where(state != UNSET, 0.0).sum(-1)
        return logits, log_prior - F.softplus(logits).sum(-1)

    def _decoded_structures(self) -> Tensor:
        """Both for every structure, joined, float `[K^L, D + 1]`."""

        def decode(rows: Tensor) -> Tensor:
            logits, constant = self._decoded(rows)
            return torch.cat([logits, constant[:, None]], 1)

        width = self.decoder.channels * self.pixel_bias.numel()
        return in_blocks(decode, self._structures(), width)

    def _structures(self) -> Tensor:
        """Every structure, int64 `[K^L, L]`."""
        return self.env.enumerate(self.env.empty_context(1)[0])


def _table(x: Tensor, decoded: Tensor) -> Tensor:
    """Log p(x, z) for observations and decoded structures, float `[B, K^L]`."""
    return torch.addmm(decoded[:, -1], x.flatten(1).to(decoded.dtype), decoded[:, :-1].T)
