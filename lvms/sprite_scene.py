"""Scenes of opaque sprites: a renderer with occlusion as the decoder."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET, FactoredCategorical
from gfn_envs.latent_env import require_enumerable
from lvms import blocks
from lvms.blocks import in_blocks
from lvms.mean_field import ascend_on_table
from lvms.model import LatentVariableModel, WeightedSamples
from lvms.smoothing import smoothed_logit
from lvms.sprite_layout import SpriteLayout

START_CONTRAST = 0.3
"""How much of a patch of the data is left in the sprite that learning starts from."""


class SpriteScene(LatentVariableModel):
    """Black and white images, painted from P opaque square sprites on a background.

    z = (sprite_1, place_1, ..., sprite_P, place_P), uniform a priori. Pieces are painted in this
    order, so later ones hide earlier ones (the 2.1-dimensional sketch of Nitzberg and Mumford
    1990; sprites learned by EM: Jojic and Frey 2001). A pixel is on with the probability of the
    topmost thing there: p(x | z) = prod_d Bernoulli(x_d; p_d(z)), where p_d is that of a cell of
    one of K sprites or that of the background. What is on top is a step function of z: there is
    no pathwise gradient.

    Which cells are seen depends on the places alone, so given these the sprites are independent
    a posteriori. Exact inference sums over the L^P placements, K sprites for each piece; it works
    in blocks of observations, of `blocks.BLOCK_ELEMENTS` numbers.

    The closed-form M-step maximises the expected log joint plus the log-density of a
    Beta prior on each probability, so that none becomes 0 or 1; see `smoothed_logit`.

    Attributes:
        layout: The geometry of the image.
        pieces: P.
        sprites: K.
        sprite_logits: Of each cell being on, a parameter `[K, S^2]`.
        background_logit: Of any other pixel being on, a parameter `[]`.
    """

    env: FactoredCategorical

    def __init__(
        self,
        pieces: int = 2,
        sprites: int = 3,
        side: int = 4,
        grid: Sequence[int] = (3, 3),
        stride: int = 2,
        order: str = "fixed",
        scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        """Builds the model with sprites at random on a dark background.

        Args:
            pieces: P.
            sprites: K.
            side: S, of a sprite, pixels.
            grid: Rows and columns of places.
            stride: Pixels from a place to the next; below the side, neighbours overlap.
            order: In which order an environment builds z; see `FactoredCategorical`.
            scale: The standard deviation of the sprites' logits.
            seed: Of the sprites.

        Raises:
            UserError: If a number is below 1.
        """
        super().__init__()
        if min(pieces, sprites, side, stride, *grid) < 1:
            raise UserError(
                "pieces, sprites, side, stride and both sides of the grid must be at least 1; got "
                f"{pieces}, {sprites}, {side}, {stride} and {tuple(grid)}."
            )
        self.layout = SpriteLayout(side, grid, stride)
        self.pieces, self.sprites = pieces, sprites
        self.env = FactoredCategorical((sprites, self.layout.num_places) * pieces, order)
        generator = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(sprites, side**2, generator=generator)
        self.sprite_logits = nn.Parameter(logits)
        self.background_logit = nn.Parameter(torch.tensor(-2.0))
        self._log_prior = -pieces * math.log(sprites * self.layout.num_places)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`.

        Args:
            x: Zeros and ones, float `[B, H, W]`.
            z: int64 `[B, 2 P]`.

        Returns:
            float `[B]`, nats.
        """
        sprite, place = self._split(z)
        score = self._scores(x, place).gather(2, sprite[..., None]).squeeze(2)
        return self._log_prior + self._log_background(x) + score.sum(1)

    def render(self, z: Tensor) -> Tensor:
        """Computes the logit of each pixel being on, float `[B, H, W]`, for z int64 `[B, 2 P]`."""
        sprite, place = self._split(z)
        # Of the pieces above a pixel only one is visible there, so their differences add up.
        paint = self.layout.visible(place) * (self.sprite_logits - self.background_logit)[sprite]
        empty = self.background_logit.expand(len(z), math.prod(self.layout.image_shape))
        pixels = self.layout.pixels(place)
        image = empty.scatter_add(1, pixels.flatten(1), paint.flatten(1))
        return image.unflatten(1, self.layout.image_shape)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x, float `[B, H, W]`, and z `[B, 2 P]`; see `LatentVariableModel`."""
        with torch.no_grad():
            z = self._sample_prior(batch_size, generator)
            return torch.bernoulli(self.render(z).sigmoid(), generator=generator), z

    @torch.no_grad()
    def dreams(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws z from the prior and gives each pixel's probability: pictures to look at.

        Args:
            batch_size: B.
            generator: Source of randomness.

        Returns:
            float `[B, H, W]`.
        """
        return self.render(self._sample_prior(batch_size, generator)).sigmoid()

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Makes the sprites of patches of random images, blurred to the mean of all pixels.

        Args:
            x: Zeros and ones, float `[B, H, W]`, at least as many images as sprites.
            generator: Source of randomness.

        Raises:
            UserError: If there are too few images, or they are of another shape.
        """
        if x.shape[1:] != self.layout.image_shape:
            raise UserError(
                f"Images of shape {tuple(x.shape[1:])} do not fit scenes of "
                f"{self.layout.image_shape}; choose side, grid and stride to suit them."
            )
        if len(x) < self.sprites:
            raise UserError(
                f"{len(x)} images are too few to start {self.sprites} sprites at; "
                "give more data or fewer sprites."
            )
        mean = ((x.sum() + 0.5) / (x.numel() + 1)).to(self.background_logit)  # never 0 or 1
        device = self.background_logit.device
        image = torch.randperm(len(x), generator=generator, device=device)[: self.sprites]
        size = (self.sprites, 1)
        place = torch.randint(self.layout.num_places, size, generator=generator, device=device)
        patch = self.layout.look(x[image].flatten(1).to(mean), place).squeeze(1)
        self.sprite_logits.copy_(mean.lerp(patch, START_CONTRAST).logit())
        self.background_logit.copy_(mean.logit())
        self.mark_updated()

    # -- ClosedFormMStep ------------------------------------------------------------------------

    @torch.no_grad()
    def maximise(self, x: Tensor, samples: WeightedSamples) -> None:
        """Sets each probability to the smoothed share of its visible pixels that are on.

        See `ClosedFormMStep`. A sprite that is never seen becomes grey.
        """
        k = samples.z.shape[1]
        seen, on = torch.zeros_like(self.sprite_logits), torch.zeros_like(self.sprite_logits)
        rows = max(1, blocks.BLOCK_ELEMENTS // (k * self.pieces * self.layout.side**2))
        parts = (x.flatten(1), samples.z, samples.log_w)
        for images, z, log_w in zip(*(part.split(rows) for part in parts), strict=True):
            sprite, place = self._split(z.flatten(0, 1))
            weight = self.layout.visible(place) * log_w.exp().view(-1, 1, 1)
            under = self.layout.look(images.repeat_interleave(k, 0), place)
            seen.index_add_(0, sprite.flatten(), weight.flatten(0, 1))
            on.index_add_(0, sprite.flatten(), (weight * under).flatten(0, 1))
        # The weights of an observation sum to 1; what no piece shows is background.
        behind, lit = x.numel() - seen.sum(), x.sum() - on.sum()
        for logit, ones, all_seen in (
            (self.sprite_logits, on, seen),
            (self.background_logit, lit, behind),
        ):
            logit.copy_(smoothed_logit(ones, all_seen))

    # -- PartialJoint ---------------------------------------------------------------------------

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Guesses log p(x, z_A) for the assigned variables A; see `PartialJoint`.

        The scene as far as it is painted: a piece without a place is not there yet, and one that
        has a place but no sprite is summed over its sprites.

        Args:
            x: Zeros and ones, float `[N, H, W]`.
            state: int64 `[N, 2 P]`, -1 where unassigned.

        Returns:
            float `[N]`, nats, finite, differentiable in theta.
        """
        sprite, place = self._split(state)
        scores = self._scores(x, place)
        chosen = scores.gather(2, sprite.clamp_min(0)[..., None]).squeeze(2) - self._log_sprites
        piece = torch.where(sprite == UNSET, scores.logsumexp(2) - self._log_sprites, chosen)
        log_prior = (place != UNSET).sum(1) * -math.log(self.layout.num_places)
        # A sprite that has no place yet adds its prior here; its score is 0.
        absent = (sprite == UNSET) & (place == UNSET)
        return log_prior + self._log_background(x) + piece.masked_fill(absent, 0.0).sum(1)

    # -- ExactPosterior: a sum over the placements ----------------------------------------------

    def log_joint_table(self, x: Tensor) -> Tensor:
        """Computes log p(x, z) for every structure, in the order of `env.enumerate`.

        Args:
            x: `[B, H, W]`.

        Returns:
            float `[B, (K L)^P]`, nats.

        Raises:
            UserError: If there are too many structures to enumerate.
        """
        require_enumerable("structures", math.prod(self.env.sizes))
        table = (self._log_prior + self._log_background(x))[:, None]
        for later in range(self.pieces):
            # What is above hides this piece wherever it is, whichever sprites it shows.
            above = (1, self.layout.num_places) * later
            scores = self._placed_scores(x, later).movedim(0, 2).unflatten(-1, (*above, 1))
            table = table.view(len(x), 1, 1, *(self.sprites, self.layout.num_places) * later, 1)
            table = (scores + table).flatten(1)
        return table

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`."""
        return in_blocks(lambda rows: self._log_placed(rows).logsumexp(-1), x, self._width)

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k structures for each observation, int64 `[B, k, 2 P]`; see `ExactPosterior`.

        The places come first, then the sprites, which are independent given these.
        """

        def draw(rows: Tensor) -> Tensor:
            probability = self._log_placed(rows).softmax(-1)
            index = torch.multinomial(probability, k, replacement=True, generator=generator)
            grid = (self.layout.num_places,) * self.pieces
            place = torch.stack(torch.unravel_index(index.flatten(), grid), -1)
            scores = self._scores(rows.repeat_interleave(k, 0), place).flatten(0, 1)
            sprite = torch.multinomial(scores.softmax(-1), 1, generator=generator).view_as(place)
            return torch.stack([sprite, place], -1).view(len(rows), k, -1)

        return in_blocks(draw, x, self._width)

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- MeanField ------------------------------------------------------------------------------

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent, a variable at a time; see `MeanField`.

        Raises:
            UserError: If there are too many structures to enumerate.
        """

        def ascend(rows: Tensor) -> Tensor:
            table = self.log_joint_table(rows).unflatten(1, self.env.sizes)
            return torch.cat(ascend_on_table(table, sweeps), 1)

        joined = in_blocks(ascend, x, math.prod(self.env.sizes))
        return list(joined.split(self.env.sizes, 1))

    # -- parts ----------------------------------------------------------------------------------

    @property
    def _log_sprites(self) -> float:
        return math.log(self.sprites)

    @property
    def _width(self) -> int:
        """How many numbers exact inference holds for an observation."""
        placements = self.layout.num_places**self.pieces
        require_enumerable("placements", placements)
        return placements * (self.sprites + 2)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The sprite and the place of each piece, both int64 `[N, P]`."""
        sprite, place = z.unflatten(1, (self.pieces, 2)).unbind(2)
        return sprite, place

    def _sample_prior(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Draws z, int64 `[B, 2 P]`."""
        device = self.background_logit.device
        draws = [
            torch.randint(size, (batch_size,), generator=generator, device=device)
            for size in self.env.sizes
        ]
        return torch.stack(draws, 1)

    def _log_background(self, x: Tensor) -> Tensor:
        """Log p(x) of an empty scene, float `[B]`."""
        x = x.flatten(1)
        return x.sum(1) * self.background_logit - x.shape[1] * F.softplus(self.background_logit)

    def _weights(self) -> Tensor:
        """What a visible cell adds to that, if it is on and in any case: float `[2 S^2, K]`."""
        on = self.sprite_logits - self.background_logit
        always = F.softplus(self.background_logit) - F.softplus(self.sprite_logits)
        return torch.cat([on, always], 1).T

    def _scores(self, x: Tensor, place: Tensor) -> Tensor:
        """What each piece at its place adds to that, for every sprite, float `[N, P, K]`."""
        visible = self.layout.visible(place)
        on = visible * self.layout.look(x.flatten(1), place)
        return torch.cat([on, visible], -1) @ self._weights()

    def _placed_scores(self, x: Tensor, later: int) -> Tensor:
        """The same for all places of a piece and of those after it, float `[L, B, K, L^later]`."""
        place = torch.arange(self.layout.num_places, device=x.device)
        under = self.layout.look(x.flatten(1), place.expand(len(x), -1))
        on, always = self._weights().T.unflatten(1, (2, -1)).unbind(1)
        # `[L, B, K, S^2]`: of each cell, were it seen.
        cell = under.transpose(0, 1)[:, :, None] * on + always
        score = cell.flatten(1, 2) @ self.layout.visible_table(later).transpose(1, 2)
        return score.unflatten(1, (len(x), self.sprites))

    def _log_placed(self, x: Tensor) -> Tensor:
        """Log p(x, places), summed over the sprites, float `[B, L^P]`."""
        log_placed = (self._log_prior + self._log_background(x))[:, None]
        for later in range(self.pieces):
            piece = self._placed_scores(x, later).logsumexp(2)
            log_placed = (piece + log_placed).movedim(0, 1).flatten(1)
        return log_placed
