"""A hidden Markov model with Gaussian emissions."""

import math

import torch
from torch import Tensor, nn

from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET, FactoredCategorical
from lvms.model import LatentVariableModel, WeightedSamples

PROBABILITY_FLOOR = 1e-6
"""The closed-form M-step sets no probability lower: log 0 would end every gradient in NaN."""


class HiddenMarkovModel(LatentVariableModel):
    """A chain of hidden states, each seen through Gaussian noise (Rabiner 1989).

    p(x, z) = pi[z_1] N(x_1; mean[z_1], scale^2) prod_t A[z_t-1, z_t] N(x_t; mean[z_t], scale^2).

    pi, A (log-softmax of free logits) and the means are learned; the scale is fixed, as in the
    mixture, since with a learned one the likelihood has no upper bound. Emissions are Gaussian
    rather than categorical because x is then a vector of reals, which any policy encodes as it is.

    A new model has uniform pi, A that stays with probability 1/2 and otherwise moves uniformly,
    and means a unit apart around 0. `start_at_data` makes it a model to be fitted.

    Attributes:
        initial_logits: A parameter `[K]`.
        transition_logits: A parameter `[K, K]`, one row for each previous state.
        means: The emission means, a parameter `[K]`.
        scale: The standard deviation of an emission.
    """

    def __init__(
        self, steps: int = 8, states: int = 4, scale: float = 0.5, order: str = "fixed"
    ) -> None:
        """Builds the model.

        Args:
            steps: T, the length of the chain.
            states: K.
            scale: The standard deviation of an emission.
            order: In which order an environment builds z; see `FactoredCategorical`.

        Raises:
            UserError: If steps or states is below 1, or the scale is not positive.
        """
        super().__init__()
        if not 0 < scale < math.inf:
            raise UserError(f"scale must be positive; got {scale}.")
        if steps < 1 or states < 1:
            raise UserError(f"steps and states must be at least 1; got {steps} and {states}.")
        self.env = FactoredCategorical(sizes=(states,) * steps, order=order)
        self.steps, self.states = steps, states
        self.scale = float(scale)
        self.initial_logits = nn.Parameter(torch.zeros(states))
        self.transition_logits = nn.Parameter(_staying(states))
        self.means = nn.Parameter(torch.arange(states) - (states - 1) / 2)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(x, z); see `LatentVariableModel`. x is `[B, T]`, z `[B, T]`."""
        start, moves, emissions = self._log_factors(x, z)
        return start + moves.sum(-1) + emissions.sum(-1)

    def log_partial(self, x: Tensor, state: Tensor) -> Tensor:
        """Computes the product of the factors whose variables are all assigned.

        On a state of order `fixed` this is log p(x_1, ..., x_t, z_1, ..., z_t), on a complete one
        `log_joint`; transitions next to a gap of order `any` are left out.

        Args:
            x: `[B, T]`.
            state: int64 `[B, T]`, -1 where unassigned.

        Returns:
            float `[B]`, nats, differentiable in theta.
        """
        assigned = state != UNSET
        start, moves, emissions = self._log_factors(x, state.clamp_min(0))
        moves = moves.where(assigned[:, 1:] & assigned[:, :-1], 0.0)
        emissions = emissions.where(assigned, 0.0)
        return start.where(assigned[:, 0], 0.0) + moves.sum(-1) + emissions.sum(-1)

    def sample(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws x `[B, T]` and z `[B, T]`; see `LatentVariableModel`."""
        with torch.no_grad():
            probability = self.initial_logits.softmax(-1).expand(batch_size, -1)
            transition = self.transition_logits.softmax(-1)
            chain = []
            for _ in range(self.steps):
                state = torch.multinomial(probability, 1, generator=generator).squeeze(-1)
                chain.append(state)
                probability = transition[state]
            z = torch.stack(chain, dim=-1)
            noise = torch.randn(z.shape, generator=generator, device=z.device)
            return self.means[z] + self.scale * noise, z

    # -- StartAtData ----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_data(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Puts the means on randomly chosen values of the data; pi and A are a new model's.

        Args:
            x: `[B, T]`, at least as many values as states.
            generator: Source of randomness.

        Raises:
            UserError: If there are too few values.
        """
        if x.numel() < self.states:
            raise UserError(
                f"{x.numel()} values are too few to start {self.states} states at; "
                "give more data or fewer states."
            )
        chosen = torch.randperm(x.numel(), generator=generator)[: self.states]
        self.means.copy_(x.flatten()[chosen])
        self.initial_logits.zero_()
        self.transition_logits.copy_(_staying(self.states))
        self.mark_updated()

    # -- ExactPosterior: forward-backward ------------------------------------------------------

    def log_marginal(self, x: Tensor) -> Tensor:
        """Computes log p(x) by the forward recursion, float `[B]`; see `ExactPosterior`."""
        return self._log_filter(x)[-1].logsumexp(-1)

    @torch.no_grad()
    def sample_posterior(
        self, x: Tensor, k: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws k chains for each observation, int64 `[B, k, T]`; see `ExactPosterior`.

        Forward filtering, backward sampling: the last state first, then each state given the
        next, p(z_t | z_t+1, x) proportional to p(x_1..t, z_t) A[z_t, z_t+1] (Scott 2002).
        """
        *earlier, last = self._log_filter(x)
        to_next = self.transition_logits.log_softmax(-1).T
        row = torch.arange(len(x), device=x.device)[:, None]
        chain = [torch.multinomial(last.softmax(-1), k, replacement=True, generator=generator)]
        for log_filter in reversed(earlier):
            given_next = (log_filter[:, None] + to_next).softmax(-1)
            probability = given_next[row, chain[-1]].flatten(0, 1)
            chain.append(torch.multinomial(probability, 1, generator=generator).view(len(x), k))
        return torch.stack(chain[::-1], dim=-1)

    def posterior_log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Computes log p(z | x) for pairs, float `[B]`; see `ExactPosterior`."""
        return self.log_joint(x, z) - self.log_marginal(x)

    # -- ClosedFormMStep ------------------------------------------------------------------------

    @torch.no_grad()
    def maximise(self, x: Tensor, samples: WeightedSamples) -> None:
        """Sets pi and A to the expected relative counts and each mean to its states' mean of x.

        A state without any weight keeps its row of A and its mean, and no probability is set
        below `PROBABILITY_FLOOR`. See `ClosedFormMStep`; also Rabiner 1989, equations 40 and 53.
        """
        weight = samples.log_w.exp()[..., None]
        z = samples.z
        mass = self._count(z, weight.expand(z.shape), self.states)
        total = self._count(z, weight * x[:, None], self.states)
        self.means.copy_(torch.where(mass > 0, total / mass, self.means))
        first = self._count(z[..., :1], weight, self.states)
        self.initial_logits.copy_((first / first.sum()).clamp_min(PROBABILITY_FLOOR).log())
        move = z[..., :-1] * self.states + z[..., 1:]
        count = self._count(move, weight.expand(move.shape), self.states**2)
        count = count.view(self.states, self.states)
        left = count.sum(-1, keepdim=True)
        rows = (count / left).clamp_min(PROBABILITY_FLOOR).log()
        self.transition_logits.copy_(torch.where(left > 0, rows, self.transition_logits))

    # -- MeanField ------------------------------------------------------------------------------

    @torch.no_grad()
    def mean_field(self, x: Tensor, sweeps: int) -> list[Tensor]:
        """Fits q(z | x) by coordinate ascent along the chain; see `MeanField`.

        The exact update is log q_t(k) = log N(x_t; mean_k) + E_q[log A[z_t-1, k]]
        + E_q[log A[k, z_t+1]] + const, with log pi[k] for the term before the first state.
        """
        emission = self._log_emission(x)
        log_initial = self.initial_logits.log_softmax(-1)
        log_transition = self.transition_logits.log_softmax(-1)
        uniform = emission.new_full((len(x), self.states), -math.log(self.states))
        log_q = [uniform] * self.steps
        for _ in range(sweeps):
            for t in range(self.steps):
                before = log_q[t - 1].exp() @ log_transition if t else log_initial
                score = emission[:, t] + before
                if t + 1 < self.steps:
                    score = score + log_q[t + 1].exp() @ log_transition.T
                log_q[t] = score.log_softmax(-1)
        return log_q

    # -- parts ----------------------------------------------------------------------------------

    def _log_factors(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logs of pi `[B]`, of the transitions `[B, T - 1]` and of the emissions `[B, T]`."""
        log_transition = self.transition_logits.log_softmax(-1)
        start = self.initial_logits.log_softmax(-1)[z[:, 0]]
        return start, log_transition[z[:, :-1], z[:, 1:]], self._log_gaussian(x - self.means[z])

    def _log_filter(self, x: Tensor) -> list[Tensor]:
        """The forward recursion: log p(x_1..t, z_t) for each step, T times `[B, K]`."""
        emission = self._log_emission(x)
        log_transition = self.transition_logits.log_softmax(-1)
        alpha = self.initial_logits.log_softmax(-1) + emission[:, 0]
        filtered = [alpha]
        for t in range(1, self.steps):
            alpha = (alpha[:, :, None] + log_transition).logsumexp(1) + emission[:, t]
            filtered.append(alpha)
        return filtered

    def _log_emission(self, x: Tensor) -> Tensor:
        """Computes log N(x_t; mean_k, scale^2) for every state, float `[B, T, K]`."""
        return self._log_gaussian(x[..., None] - self.means)

    def _log_gaussian(self, away: Tensor) -> Tensor:
        """Turns distances from a mean into log densities."""
        normaliser = math.log(self.scale) + math.log(2 * math.pi) / 2
        return -(away / self.scale).square() / 2 - normaliser

    def _count(self, index: Tensor, weight: Tensor, size: int) -> Tensor:
        """Sums the weights of each index, float `[size]`."""
        total = torch.zeros(size, dtype=weight.dtype, device=weight.device)
        return total.index_add_(0, index.flatten(), weight.flatten())


def _staying(states: int) -> Tensor:
    """Logits of a chain that stays with probability 1/2 and otherwise moves uniformly, `[K, K]`."""
    return (torch.eye(states) / 2 + 1 / (2 * states)).log()
