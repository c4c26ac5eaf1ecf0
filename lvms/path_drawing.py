"""Drawings of a turtle's path: a latent whose early parts move all later ones."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from gfn_envs.turtle_path import TurtlePath
from lvms.blocks import in_blocks
from lvms.mean_field import ascend_on_table
from lvms.model import LatentVariableModel, WeightedSamples
from lvms.smoothing import SMOOTHING, smoothed_logit

START_SCALE = 0.3
"""The standard deviation of the turns' logits that learning starts from. Were they all alike, a
path would be as likely as the same walked backwards, and EM could not choose."""


class PathDrawing(LatentVariableModel):
    """Black and white images, drawn by a turtle that leaves a stamp on every cell it visits.

    z is a path, start and turns, over a torus of cells (`TurtlePath`). Start and first turn are
    uniform, the other turns a Markov chain: p(z) = pi[z_2] prod_t A[z_t-1, z_t] / (4 cells). Each
    cell of the image is S x S pixels. On visited cells, once or often, a pixel is on with the
    probability of its place in the stamp, elsewhere with that of the background:
    p(x | z) = prod_d Bernoulli(x_d; p_d(z)). Which cells are visited is a step function of z: there
    is no pathwise gradient. Stamp, background, pi and A are learned.

    What a turn means depends on all before it, and a path walked backwards draws the same image:
    the latents depend strongly on each other. The marks of paths are no sum over their steps, since
    a cell is stamped once, so exact inference lists all paths; it works in blocks of observations,
    of `blocks.BLOCK_ELEMENTS` numbers.

    The closed-form M-step maximises the expected log joint plus the log-density of a Beta prior on
    each pixel's probability, see `smoothed_logit`, and of Dirichlet(1 + `SMOOTHING`) priors on pi
    and the rows of A, so that none becomes 0 or 1.

    Attributes:
        env: The paths.
        side: S, pixels.
        image_shape: `(H, W)`.
        stamp_logits: Of each pixel of a visited cell being on, a parameter `[S^2]`.
        background_logit: Of any other pixel being on, a parameter `[]`.
        initial_logits: Of the second turn, a parameter `[3]`.
        transition_logits: Of later turns, a parameter `[3, 3]`, one row for each turn before.
    """

    env: TurtlePath

    def __init__(
        self,
        grid: Sequence[int] = (4, 4),
        moves: int = 3,
        side: int = 2,
        order: str = "fixed",
        scale: float = 2.0,
        seed: int = 0,
    ) -> None:
        """Builds the model with a stamp at random on a dark background, and turns all alike.

        Args:
            grid: Rows and columns of cells, at least 2 each.
            moves: Steps of the turtle, at least 2; it visits so many cells and one.
            side: S, of a cell, pixels.
            order: In which order an environment builds z; see `TurtlePath`.
            scale: The standard deviation of the stamp's logits.
            seed: Of the stamp.

        Raises:
            UserError: If a number is too small; see `TurtlePath` too.
        """
        super().__init__()
        if moves < 2 or side < 1:
            raise UserError(
                f"A PathDrawing needs moves of at least 2 and side of at least 1; got {moves}, "
                f"{side}."
            )
        self.env = TurtlePath(grid, moves, order)
        self.side = side
        self.image_shape = (self.env.grid[0] * side, self.env.grid[1] * side)
        generator = torch.Generator().manual_seed(seed)
        self.stamp_logits = nn.Parameter(scale * torch.randn(side**2, generator=generator))
        self.background_logit = nn.Parameter(torch.tensor(-2.0))
        self.initial_logits = nn.Parameter(torch.zeros(3))
        self.transition_logits = nn.Parameter(torch.zeros(3, 3))
        self._log_places = -math.log(4 * self.env.num_cells)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`.

        Args:
            x: Zeros and ones, float `[B, H, W]`.
            z: int64 `[B, 1 + moves]`.

        Returns:
            float `[B]`, nats.
        """
        score = (self._visited(z) * self._scores(x)).sum(1)
        return self._log_path(z) + self._log_background(x) + score

    def render(self, z: Tensor) -> Tensor:
        """Computes the logit of each pixel being on, float `[B, H, W]`, for z `[B, 1 + moves]`."""
        stamp = self.stamp_logits - self.background_logit
        cells = self.background_logit + self._visited(z)[..., None] * stamp
        squares = cells.view(len(z), *self.env.grid, self.side, self.side)
        return squares.transpose(2, 3).reshape(len(z), *self.image_shape)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x, float `[B, H, W]`, and z `[B, 1 + moves]`; see `LatentVariableModel`."""
        with torch.no_grad():
            z = self._sample_prior(batch_size, generator)
            return torch.bernoulli(self.render(z).sigmoid(), generator=generator), z

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Makes the stamp of the mean over all cells, and turns a little uneven at random.

        Args:
            x: Zeros and ones, float `[B, H, W]`, at least one image.
            generator: Source of randomness, for the turns.

        Raises:
            UserError: If there is no image, or images are of another shape.
        """
        if x.shape[1:] != self.image_shape:
            raise UserError(
                f"Images of shape {tuple(x.shape[1:])} do not fit drawings of {self.image_shape}; "
                "choose grid and side to suit them."
            )
        if not len(x):
            raise UserError("A drawing cannot start without an image; give at least one.")
        cells = self._cells(x)
        on = cells.sum((0, 1))
        self.stamp_logits.copy_(smoothed_logit(on, torch.full_like(on, cells[..., 0].numel())))
        self.background_logit.copy_(self.stamp_logits.sigmoid().mean().logit())
        for logits in (self.initial_logits, self.transition_logits):
            noise = torch.randn(logits.shape, generator=generator, device=logits.device)
            logits.copy_(START_SCALE * noise)
        self.mark_updated()

    # -- ClosedFormMStep ------------------------------------------------------------------------

    @torch.no_grad()
    def maximise(self, x: Tensor, samples: WeightedSamples) -> None:
        """Sets every probability to its smoothed share of the expected counts.

        See `ClosedFormMStep`.
        """
        weight, z = samples.log_w.exp(), samples.z.flatten(0, 1)
        # How likely each cell of each image was visited, `[B, cells]`.
        visited = self._visited(z).view(*weight.shape, -1)
        visited = torch.einsum("bk,bkc->bc", weight, visited)
        on, seen = torch.einsum("bc,bcs->s", visited, self._cells(x)), visited.sum()
        self.stamp_logits.copy_(smoothed_logit(on, seen.expand_as(on)))
        behind = x.numel() - self.side**2 * seen
        self.background_logit.copy_(smoothed_logit(x.sum() - on.sum(), behind))
        turns = z[:, 2:]
        move = 3 * turns[:, :-1] + turns[:, 1:]
        for logits, index in (
            (self.initial_logits, turns[:, :1]),
            (self.transition_logits, move),
        ):
            count = torch.zeros_like(logits).flatten()
            count.index_add_(0, index.flatten(), weight.view(-1, 1).expand(index.shape).flatten())
            logits.copy_((count + SMOOTHING).log().view_as(logits))

    # -- ExactPosterior: a sum over the paths ---------------------------------------------------

    def log_joint_table(self, x: Tensor) -> Tensor:
        """Computes log p(x, z) for every path, in the order of `env.enumerate`.

        Args:
            x: `[B, H, W]`.

        Returns:
            float `[B, Z]`, nats.

        Raises:
            UserError: If there are too many paths to enumerate.
        """
        return self._joint_with(x, *self._all_paths())

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`."""
        paths = self._all_paths()
        return in_blocks(lambda rows: self._joint_with(rows, *paths).logsumexp(-1), x, self._width)

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k paths for each observation, int64 `[B, k, 1 + moves]`; see `ExactPosterior`."""
        paths = self._all_paths()

        def draw(rows: Tensor) -> Tensor:
            probability = self._joint_with(rows, *paths).softmax(-1)
            return torch.multinomial(probability, k, replacement=True, generator=generator)

        index = in_blocks(draw, x, self._width)
        return torch.stack(torch.unravel_index(index, self.env.sizes), -1)

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- MeanField ------------------------------------------------------------------------------

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent, a variable at a time; see `MeanField`.

        Raises:
            UserError: If there are too many paths to enumerate.
        """
        paths = self._all_paths()

        def ascend(rows: Tensor) -> Tensor:
            table = self._joint_with(rows, *paths).unflatten(1, self.env.sizes)
            return torch.cat(ascend_on_table(table, sweeps), 1)

        return list(in_blocks(ascend, x, self._width).split(self.env.sizes, 1))

    # -- parts ----------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        """How many numbers exact inference holds for an observation."""
        return math.prod(self.env.sizes)

    def _visited(self, z: Tensor) -> Tensor:
        """Marks the cells that paths visit, float `[N, cells]`."""
        return self.env.visited(self.env.walk(z)[0])

    def _cells(self, x: Tensor) -> Tensor:
        """Cuts images into cells, `[B, cells, S^2]`."""
        squares = x.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))
        return squares.transpose(2, 3).flatten(3).flatten(1, 2)

    def _log_path(self, z: Tensor) -> Tensor:
        """Computes log p(z), float `[N]`."""
        turns = z[:, 2:]
        log_transition = self.transition_logits.log_softmax(-1)
        later = log_transition[turns[:, :-1], turns[:, 1:]].sum(1)
        return self._log_places + self.initial_logits.log_softmax(-1)[turns[:, 0]] + later

    def _log_background(self, x: Tensor) -> Tensor:
        """Computes log p(x) of an image without a path, float `[B]`."""
        pixels = x.flatten(1)
        always = pixels.shape[1] * F.softplus(self.background_logit)
        return pixels.sum(1) * self.background_logit - always

    def _scores(self, x: Tensor) -> Tensor:
        """What each cell adds to that if it is visited, float `[B, cells]`."""
        always = F.softplus(self.background_logit) - F.softplus(self.stamp_logits)
        on = (self.stamp_logits - self.background_logit).view(self.side, 1, self.side, 1)
        # A row of cells at a time, as it lies in memory: the stamp under each of its columns.
        rows, columns = self.env.grid
        under = on * torch.eye(columns, device=x.device)[:, None]
        score = x.reshape(len(x) * rows, -1) @ under.reshape(-1, columns)
        return score.view(len(x), -1) + always.sum()

    def _all_paths(self) -> tuple[Tensor, Tensor]:
        """Lists log p(z) of every path, float `[Z]`, and its marks, float `[Z, cells]`."""
        z = self.env.enumerate(self.env.empty_context(1)[0])
        return self._log_path(z), self._visited(z)

    def _joint_with(self, x: Tensor, log_path: Tensor, visited: Tensor) -> Tensor:
        """Computes log p(x, z) with listed paths, float `[B, Z]`."""
        return self._scores(x) @ visited.T + (log_path + self._log_background(x)[:, None])

    def _sample_prior(self, batch_size: int, generator: torch.Generator | None) -> Tensor:
        """Draws z, int64 `[B, 1 + moves]`."""
        device = self.background_logit.device
        z = [
            torch.randint(size, (batch_size,), generator=generator, device=device)
            for size in self.env.sizes[:2]
        ]
        probability = self.initial_logits.softmax(-1).expand(batch_size, -1)
        for _ in self.env.sizes[2:]:
            z.append(torch.multinomial(probability, 1, generator=generator).squeeze(-1))
            probability = self.transition_logits.softmax(-1)[z[-1]]
        return torch.stack(z, 1)
