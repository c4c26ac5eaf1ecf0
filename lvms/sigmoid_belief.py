"""A sigmoid belief network with one layer of binary latents."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET, FactoredCategorical
from lvms.blocks import in_blocks
from lvms.model import LatentVariableModel

START_SCALE = 0.5
"""The standard deviation of the weights that learning starts from, nats."""


class SigmoidBeliefNet(LatentVariableModel):
    """Binary latents that switch the logits of binary observations (Neal 1992), one layer deep.

    p(z) = prod_h Bernoulli(z_h; sigmoid(a_h)) and p(x | z) = prod_d Bernoulli(x_d;
    sigmoid((W z + b)_d)). The latents are independent a priori and coupled a posteriori, since
    each observation explains some of them away.

    With c(z) = sum_d softplus((W z + b)_d), which does not depend on x,

        log p(x, z) = x . b + (a + W' x) . z - c(z) - sum_h softplus(a_h),

    so one table of c over all 2^H structures serves every observation. Exact inference sums over
    it in blocks: its cost is 2^H (D + B H), its memory `blocks.BLOCK_ELEMENTS` and the table of c.

    Attributes:
        prior_logits: a, a parameter `[H]`.
        weight: W, a parameter `[D, H]`.
        bias: b, a parameter `[D]`.
    """

    def __init__(
        self,
        hidden: int = 8,
        visible: int = 16,
        scale: float = 1.0,
        order: str = "fixed",
        seed: int = 0,
    ) -> None:
        """Builds the model with normal weights, so that no two latents start alike.

        Args:
            hidden: H.
            visible: D.
            scale: The standard deviation of the weights; the other parameters start at zero.
            order: In which order an environment builds z; see `FactoredCategorical`.
            seed: Of the weights.

        Raises:
            UserError: If there is no hidden or no visible unit.
        """
        super().__init__()
        if hidden < 1 or visible < 1:
            raise UserError(f"hidden and visible must be at least 1; got {hidden} and {visible}.")
        self.env = FactoredCategorical(sizes=(2,) * hidden, order=order)
        self.hidden, self.visible = hidden, visible
        generator = torch.Generator().manual_seed(seed)
        self.prior_logits = nn.Parameter(torch.zeros(hidden))
        self.weight = nn.Parameter(scale * torch.randn(visible, hidden, generator=generator))
        self.bias = nn.Parameter(torch.zeros(visible))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`.

        Args:
            x: Zeros and ones, float `[B, D]`.
            z: int64 `[B, H]`.

        Returns:
            float `[B]`, nats.
        """
        units = z.to(x.dtype)
        return _log_bernoulli(units, self.prior_logits) + _log_bernoulli(x, self._logits(units))

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, D]` and z `[B, H]`; see `LatentVariableModel`."""
        with torch.no_grad():
            prior = self.prior_logits.sigmoid().expand(batch_size, -1)
            units = torch.bernoulli(prior, generator=generator)
            x = torch.bernoulli(self._logits(units).sigmoid(), generator=generator)
            return x, units.long()

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Draws small normal weights, with biases that make each unit about as often on as in x.

        Args:
            x: Zeros and ones, float `[B, D]`.
            generator: Source of randomness.
        """
        self.prior_logits.zero_()
        weight = torch.randn(self.weight.shape, generator=generator, device=self.weight.device)
        self.weight.copy_(START_SCALE * weight)
        on = (x.sum(0) + 0.5) / (len(x) + 1)  # never 0 or 1
        self.bias.copy_(on.logit() - self.weight.sum(1) / 2)
        self.mark_updated()

    # -- PartialJoint ---------------------------------------------------------------------------

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Guesses log p(x, z_A) for the assigned latents A; see `PartialJoint`.

        Latents that are not assigned stand at their prior mean, and have no prior term:

            sum_(h in A) log p(z_h) + log p(x | u),  u_h = z_h in A and sigmoid(a_h) elsewhere.

        Args:
            x: Zeros and ones, float `[N, D]`.
            state: int64 `[N, H]`, -1 where unassigned.

        Returns:
            float `[N]`, nats, finite, differentiable in theta.
        """
        assigned = state != UNSET
        units = torch.where(assigned, state.to(x.dtype), self.prior_logits.sigmoid())
        log_prior = units * self.prior_logits - softplus(self.prior_logits)
        log_likelihood = _log_bernoulli(x, self._logits(units))
        return log_prior.where(assigned, 0.0).sum(-1) + log_likelihood

    # -- ExactPosterior: a sum over the structures ----------------------------------------------

    def log_joint_table(self, x: Tensor) -> Tensor:
        """Computes log p(x, z) for every structure, in the order of `env.enumerate`.

        Args:
            x: float `[B, D]`.

        Returns:
            float `[B, 2^H]`, nats. The other methods make it for a block of rows at a time.

        Raises:
            UserError: If there are too many structures to enumerate.
        """
        units = self._all_units()
        return self._table(x, units, self._log_normaliser(units))

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x), float `[B]`; see `ExactPosterior`."""
        units = self._all_units()
        normaliser = self._log_normaliser(units)
        return in_blocks(
            lambda rows: self._table(rows, units, normaliser).logsumexp(-1), x, len(units)
        )

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k structures for each observation, int64 `[B, k, H]`; see `ExactPosterior`."""
        units = self._all_units()
        normaliser = self._log_normaliser(units)

        def draw(rows: Tensor) -> Tensor:
            probability = self._table(rows, units, normaliser).softmax(-1)
            return torch.multinomial(probability, k, replacement=True, generator=generator)

        return units.long()[in_blocks(draw, x, len(units))]

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- MeanField ------------------------------------------------------------------------------

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent, one latent at a time; see `MeanField`.

        The exact update is logit q_h = a_h + (W' x)_h - E_q[c(z) | z_h = 1] + E_q[c(z) | z_h = 0].
        E_q[c] has no closed form (Saul, Jaakkola and Jordan 1996 bound it, at the price of a
        looser ELBO), so it is summed exactly over the 2^H structures, one variable at a time.

        Raises:
            UserError: If there are too many structures to enumerate.
        """
        units = self._all_units()
        normaliser = self._log_normaliser(units)
        on = in_blocks(lambda rows: self._ascend(rows, normaliser, sweeps), x, len(units))
        return [torch.stack([logsigmoid(-logit), logsigmoid(logit)], -1) for logit in on.unbind(-1)]

    def _ascend(self, x: Tensor, normaliser: Tensor, sweeps: int) -> Tensor:
        """The logits of q(z_h = 1) after so many sweeps, float `[B, H]`."""
        linear = self.prior_logits + x @ self.weight
        logit = torch.zeros_like(linear)
        for _ in range(sweeps):
            # E[c | z_h, ..., z_H-1] under the factors before h, which are done in this sweep.
            given_rest = normaliser.expand(len(x), -1)
            for h in range(self.hidden):
                given_h = given_rest
                for later in reversed(range(h + 1, self.hidden)):
                    pairs = given_h.unflatten(1, (-1, 2))
                    probability = logit[:, later, None].sigmoid()
                    given_h = torch.lerp(pairs[..., 0], pairs[..., 1], probability)
                logit[:, h] = linear[:, h] - given_h[:, 1] + given_h[:, 0]
                halves = given_rest.unflatten(1, (2, -1))
                probability = logit[:, h, None].sigmoid()
                given_rest = torch.lerp(halves[:, 0], halves[:, 1], probability)
        return logit

    # -- parts ----------------------------------------------------------------------------------

    def _logits(self, units: Tensor) -> Tensor:
        """W z + b, float `[N, D]`."""
        return units @ self.weight.T + self.bias

    def _all_units(self) -> Tensor:
        """Every structure as numbers to compute with, `[2^H, H]`."""
        row = self.env.empty_context(1)[0]
        return self.env.enumerate(row).to(self.weight.dtype)

    def _log_normaliser(self, units: Tensor) -> Tensor:
        """c(z) for every structure, float `[2^H]`."""
        return in_blocks(lambda block: softplus(self._logits(block)).sum(-1), units, self.visible)

    def _table(self, x: Tensor, units: Tensor, normaliser: Tensor) -> Tensor:
        """Log p(x, z) for every structure, float `[B, 2^H]`."""
        constant = x @ self.bias - softplus(self.prior_logits).sum()
        linear = self.prior_logits + x @ self.weight
        return torch.addmm(constant[:, None] - normaliser, linear, units.T)


def _log_bernoulli(value: Tensor, logit: Tensor) -> Tensor:
    """Sums the log-probabilities of zeros and ones over the last dimension."""
    return (value * logit - softplus(logit)).sum(-1)
