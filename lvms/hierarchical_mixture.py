"""A hierarchy of Gaussian mixture components."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import FactoredCategorical
from lvms.model import LatentVariableModel, WeightedSamples


class HierarchicalGaussianMixture(LatentVariableModel):
    """A Gaussian mixture whose components are the leaves of a tree (Hu et al. 2023, section 5.1).

    z = (z_1, ..., z_D) is uniform over branches; x | z is Gaussian of fixed scale around
    mean[z_1] + offset_2[z_2] + ... + offset_D[z_D]. Only the super-means (first level) are
    learned. The paper's model is the default: 4 super-components of 4 petals in the plane.

    A new model has its super-means on the circle of radius 2 at angles (k + 1/2) 2 pi / K, the
    parameters that the paper's data is drawn from, and the offsets of level d likewise on a
    circle of radius 2^(2 - d). `start_at_data` makes it a model to be fitted. Deep trees use
    `decay` and `twist`, or their leaves would be too close to tell apart, and on one line where
    each branching is 2.

    Attributes:
        means: The super-means, a parameter `[K_1, 2]`.
        scale: The standard deviation of a leaf, the same in every direction.
    """

    def __init__(
        self,
        branching: Sequence[int] = (4, 4),
        scale: float = 0.25,
        radius: float = 1.0,
        order: str = "fixed",
        decay: float = 0.5,
        twist: float = 0.0,
    ) -> None:
        """Builds the model at the paper's true parameters.

        Args:
            branching: (K_1, ..., K_D), the number of branches at each level.
            scale: The standard deviation of a leaf.
            radius: The radius of the second level's offsets.
            order: In which order an environment builds z; see `FactoredCategorical`.
            decay: The ratio of each further level's radius to its parent's.
            twist: By how much each level's circle is turned from its parent's, radians.

        Raises:
            UserError: If a size is below 1, or scale, radius or decay is not positive.
        """
        super().__init__()
        if not (0 < scale < math.inf and 0 < radius < math.inf):
            raise UserError(f"scale and radius must be positive; got {scale} and {radius}.")
        if not (0 < decay < math.inf and math.isfinite(twist)):
            raise UserError(f"decay must be positive, twist finite; got {decay} and {twist}.")
        self.env = FactoredCategorical(sizes=branching, order=order)
        self.branching = self.env.sizes
        self.scale = float(scale)
        self.radius = float(radius)
        self.means = nn.Parameter(_circle(self.branching[0], 2.0))
        offsets = [
            _circle(branches, radius * decay**level, twist * (level + 1))
            for level, branches in enumerate(self.branching[1:])
        ]
        for level, offset in enumerate(offsets):
            self.register_buffer(f"offset_{level + 2}", offset, persistent=False)
        self._log_prior = -math.log(math.prod(self.branching))
        self._log_normaliser = -math.log(2 * math.pi * self.scale**2)

    def offset(self, z: Tensor) -> Tensor:
        """Sums the fixed offsets of a leaf below its super-mean.

        Args:
            z: int64 `[..., D]`.

        Returns:
            float `[..., 2]`.
        """
        total = torch.zeros(*z.shape[:-1], 2, dtype=self.means.dtype, device=z.device)
        for level in range(1, len(self.branching)):
            total = total + self._offsets(level)[z[..., level]]
        return total

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`. x is `[B, 2]`, z `[B, D]`."""
        distance = (x - self.means[z[:, 0]] - self.offset(z)).square().sum(-1)
        return self._log_gaussian(distance)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, 2]` and z `[B, D]`; see `LatentVariableModel`."""
        device = self.means.device
        z = torch.stack(
            [
                torch.randint(branches, (batch_size,), generator=generator, device=device)
                for branches in self.branching
            ],
            dim=-1,
        )
        noise = torch.randn(batch_size, 2, generator=generator, device=device)
        with torch.no_grad():
            return self.means[z[:, 0]] + self.offset(z) + self.scale * noise, z

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Puts the super-means on randomly chosen data points, as the paper does.

        Args:
            x: `[B, 2]`, at least as many points as super-components.
            generator: Source of randomness.

        Raises:
            UserError: If there are too few points.
        """
        if len(x) < self.branching[0]:
            raise UserError(
                f"{len(x)} points are too few to start {self.branching[0]} super-components at; "
                "give more data or fewer branches."
            )
        self.means.copy_(x[torch.randperm(len(x), generator=generator)[: self.branching[0]]])
        self.mark_updated()

    # -- PartialJoint ---------------------------------------------------------------------------

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Approximates log p(x, z_A) for the assigned levels A; see `PartialJoint`.

        Given z_A, x is a mixture of the leaves that are left, taken here as one Gaussian of the
        same mean and covariance:

            p(z_A) N(x; sum_(d in A) m_d[z_d] + sum_(d not in A) mean(m_d),
                     scale^2 I + sum_(d not in A) cov(m_d)),

        where m_d are the vectors of level d, its super-means or offsets, with their mean and
        covariance over branches. In order `fixed` the exact p(x, z_A) is the flow itself.

        Args:
            x: `[N, 2]`.
            state: int64 `[N, D]`, -1 where unassigned.

        Returns:
            float `[N]`, nats, finite, differentiable in theta.
        """
        known = x.new_zeros(len(x), 6)
        for d, row in enumerate(state.unbind(-1)):
            # Row -1 of a level's table is what stands in while it is unassigned.
            known = known + self._moments(d)[row]
        log_prior, away = known[:, 0], x - known[:, 1:3]
        first, second, covariance = known[:, 3:].unbind(-1)
        noise = self.scale**2
        # |noise I + C| and a' adj(noise I + C) a, which rounding must not make negative.
        spread = (first * second - covariance.square()).clamp_min(0.0)
        determinant = noise * (noise + first + second) + spread
        across = second * away[:, 0].square() + first * away[:, 1].square()
        across = (across - 2 * covariance * away.prod(-1)).clamp_min(0.0)
        squared_distance = (noise * away.square().sum(-1) + across) / determinant
        return log_prior - math.log(2 * math.pi) - (determinant.log() + squared_distance) / 2

    def _moments(self, level: int) -> Tensor:
        """What each branch of a level tells of log p(z_d) and of the mean and covariance of x.

        Args:
            level: 0 .. D - 1.

        Returns:
            float `[K + 1, 6]`: log-prior, mean (2), variances (2), covariance; the last row is
            that of a branch not chosen yet.
        """
        vectors: Tensor = self._offsets(level) if level else self.means
        mean = vectors.mean(0)
        spread = vectors - mean
        variance, covariance = spread.square().mean(0), spread.prod(-1).mean()
        chosen = torch.cat(
            [vectors.new_full((len(vectors), 1), -math.log(len(vectors))), vectors], 1
        )
        left_open = torch.cat([mean.new_zeros(1), mean, variance, covariance[None]])
        return torch.cat([F.pad(chosen, (0, 3)), left_open[None]])

    # -- ExactPosterior: a sum over the leaves --------------------------------------------------

    def log_leaf_joint(self, x: Tensor) -> Tensor:
        """Computes log p(x, z) for every leaf, in the order of `env.enumerate`.

        Args:
            x: `[B, 2]`.

        Returns:
            float `[B, K_1 * ... * K_D]`, nats.
        """
        leaf: Tensor = self.means
        for level in range(1, len(self.branching)):
            leaf = (leaf[:, None] + self._offsets(level)).flatten(0, 1)
        # Column by column, this is a third of the time of broadcasting to [B, Z, 2].
        distance = (x[:, :1] - leaf[:, 0]).square() + (x[:, 1:] - leaf[:, 1]).square()
        return self._log_gaussian(distance)

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`."""
        return self.log_leaf_joint(x).logsumexp(-1)

    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k leaves for each observation, int64 `[B, k, D]`; see `ExactPosterior`."""
        probability = self.log_leaf_joint(x).softmax(-1)
        leaf = torch.multinomial(probability, k, replacement=True, generator=generator)
        return torch.stack(torch.unravel_index(leaf, self.branching), dim=-1)

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- ClosedFormMStep ------------------------------------------------------------------------

    @torch.no_grad()
    def maximise(self, x: Tensor, samples: WeightedSamples) -> None:
        """Moves each super-mean to the weighted mean of x less its leaf's offset.

        A super-component without any weight stays where it is. See `ClosedFormMStep`.
        """
        weight = samples.log_w.exp()
        residual = (x[:, None] - self.offset(samples.z)) * weight[..., None]
        component = samples.z[..., 0].flatten()
        total = torch.zeros_like(self.means).index_add_(0, component, residual.flatten(0, 1))
        mass = torch.zeros_like(self.means[:, 0]).index_add_(0, component, weight.flatten())
        used = mass > 0
        self.means[used] = total[used] / mass[used, None]

    # -- MeanField ------------------------------------------------------------------------------

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent; see `MeanField`.

        With e_d = E_q[m_d] the expected vector of level d, the exact update is
        q_d(k) proportional to exp((m_dk . (x - sum_{c != d} e_c) - |m_dk|^2 / 2) / scale^2),
        so a sweep costs the sum, not the product, of the branchings.
        """
        vectors = [self.means, *map(self._offsets, range(1, len(self.branching)))]
        log_q = [x.new_full((len(x), len(m)), -math.log(len(m))) for m in vectors]
        expected = [q.exp() @ m for q, m in zip(log_q, vectors, strict=True)]
        for _ in range(sweeps):
            for d, m in enumerate(vectors):
                rest = x - sum(e for c, e in enumerate(expected) if c != d)
                score = (rest @ m.T - m.square().sum(-1) / 2) / self.scale**2
                log_q[d] = score.log_softmax(-1)
                expected[d] = log_q[d].exp() @ m
        return log_q

    def _offsets(self, level: int) -> Tensor:
        """The offsets of level 1 .. D - 1 (counted from 0), float `[K, 2]`."""
        return self.get_buffer(f"offset_{level + 1}")

    def _log_gaussian(self, squared_distance: Tensor) -> Tensor:
        """Turns squared distances from leaf means into log p(x, z)."""
        return self._log_prior + self._log_normaliser - squared_distance / (2 * self.scale**2)


def _circle(points: int, radius: float, twist: float = 0.0) -> Tensor:
    """Places points on a circle, half a step and a twist past the first axis, `[points, 2]`."""
    angle = (torch.arange(points) + 0.5) * (2 * math.pi / points) + twist
    return radius * torch.stack([angle.cos(), angle.sin()], dim=-1)
