"""Policies over grids of codes that score all places from features of their own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.image_policy import ImagePolicy
from algorithms.mlp_policy import zero_linear
from algorithms.policy import Memory
from algorithms.relaxed_categorical import gumbel_noise, relaxed_categorical
from gfn_envs.code_grid import CodeGrid
from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET


class CodeGridPolicy(ImagePolicy):
    """P_F of any build order: each place's features meet the codes that stand already.

    The hidden state of place l is what its features say plus a linear map, its own for each l, of
    the embedded codes at all places; a place without a code contributes nothing. A residual layer
    and a head shared by all places give the logits of its codes. P_F is uniform at first.
    """

    def __init__(
        self,
        env: CodeGrid,
        image_shape: Sequence[int],
        channels: int = 32,
        hidden: int = 64,
        code_dim: int = 16,
        partition: str = "per-image",
    ) -> None:
        """Builds the networks.

        Args:
            env: The environment.
            image_shape: `(image channels, H, W)`.
            channels: The channels of the image encoder.
            hidden: H, the size of a place's hidden state.
            code_dim: D, the size of an embedded code.
            partition: `per-image` or `global`; see `ImagePolicy`.

        Raises:
            UserError: If a size is below 1; see `ImagePolicy` too.
        """
        super().__init__(env, image_shape, channels, partition)
        if min(hidden, code_dim) < 1:
            raise UserError("A CodeGridPolicy needs hidden and code_dim of at least 1.")
        self.places, self.num_codes, self.hidden = env.max_steps, env.num_codes, hidden
        self.read_features = nn.Linear(channels, hidden)
        self.place = nn.Parameter(torch.zeros(self.places, hidden))
        self.embedding = nn.Embedding(env.num_codes + 1, code_dim, padding_idx=0)
        self.read_codes = nn.Linear(self.places * code_dim, self.places * hidden, bias=False)
        self.layer = nn.Linear(hidden, hidden)
        self.head = zero_linear(hidden, env.num_codes)

    def encode(self, x: Tensor) -> Memory:
        """Reads images `[B, C, H, W]` into hidden states `[B, L, H]`; see `Policy.encode`."""
        return self.read_features(self.encoder(x)) + self.place, x

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every code at every place, float `[N, L K + 1]`; see `Policy.logits`."""
        context = self.read_codes(self._embed(state).flatten(1)).unflatten(1, (self.places, -1))
        logits = self._score(memory[0].index_select(0, rows) + context)
        return F.pad(logits.flatten(1), (0, 1))

    def _embed(self, state: Tensor) -> Tensor:
        """Embeds codes: float `[..., D]`, zeros for places without one."""
        return self.embedding(state - UNSET)

    def _score(self, hidden: Tensor) -> Tensor:
        """Turns hidden states `[..., H]` into the logits of codes `[..., K]`."""
        hidden = F.relu(hidden)
        return self.head(hidden + F.relu(self.layer(hidden)))


class RasterPolicy(CodeGridPolicy):
    """P_F of raster order: all codes of a trajectory are scored in one pass.

    The linear map is masked, so that a place sees the codes before it and no others (as in MADE,
    Germain, Gregor, Murray, Larochelle 2015). Sampling computes one place at a time from the
    embedded codes so far. Not autoregressive, it sees no codes at all: q(z | x) is a product over
    places, the amortised mean field.
    """

    scores_in_parallel = True
    mask: Tensor

    def __init__(
        self,
        env: CodeGrid,
        image_shape: Sequence[int],
        channels: int = 32,
        hidden: int = 64,
        code_dim: int = 16,
        partition: str = "per-image",
        autoregressive: bool = True,
    ) -> None:
        """Builds the networks; see `CodeGridPolicy`.

        Args:
            env: The environment, of fixed order.
            image_shape: `(image channels, H, W)`.
            channels: The channels of the image encoder.
            hidden: H.
            code_dim: D.
            partition: `per-image` or `global`.
            autoregressive: Whether a place sees the codes before it.

        Raises:
            UserError: If the order is not fixed; see `CodeGridPolicy` too.
        """
        super().__init__(env, image_shape, channels, hidden, code_dim, partition)
        if not env.is_tree:
            raise UserError("A RasterPolicy needs a CodeGrid of fixed order; use a CodeGridPolicy.")
        self.autoregressive = autoregressive
        before = torch.ones(self.places, self.places).tril(-1)
        mask = before.repeat_interleave(hidden, 0).repeat_interleave(code_dim, 1)
        self.register_buffer("mask", mask, persistent=False)

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores the codes of the next place, float `[N, K + 1]`; see `Policy.logits`."""
        place = (state != UNSET).sum(-1).clamp_max(self.places - 1)
        hidden = self._hidden(state, memory, rows)
        return self._padded(hidden[torch.arange(len(state), device=state.device), place])

    def begin(self, memory: Memory, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Starts N trajectories; see `CachedDecoding`.

        The carry is each image's hidden states, the rows, and the embedded codes so far.
        """
        hidden = memory[0]
        codes = hidden.new_empty(len(rows), 0)
        return (hidden, rows, codes), self._next(hidden, rows, codes)

    def advance(
        self, carry: tuple[Tensor, ...], action: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Puts one code `[N]` in each; see `CachedDecoding.advance`."""
        hidden, rows, codes = carry
        codes = torch.cat([codes, self._embed(action)], 1)
        return (hidden, rows, codes), self._next(hidden, rows, codes)

    def trajectory_logits(self, actions: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores actions `[T, N]` in one pass; see `CachedDecoding.trajectory_logits`."""
        return self._padded(self._hidden(actions.t(), memory, rows)).transpose(0, 1)

    def place_logits(self, memory: Memory) -> Tensor:
        """Scores all places of a policy that is not autoregressive, float `[B, L, K]`."""
        return self._score(memory[0])

    def relaxed_sample(
        self,
        memory: Memory,
        temperature: float,
        hard: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draws weights of codes at each place, with a gradient; see `relaxed_categorical`.

        Where a place sees codes, it sees the mean embeddings of the places before it.

        Args:
            memory: What `encode` returned.
            temperature: Positive.
            hard: Whether the weights are one-hot.
            generator: Source of randomness.

        Returns:
            The weights and the logits that they were drawn from, float `[B, L, K]` each.
        """
        hidden = memory[0]
        noise = gumbel_noise((*hidden.shape[:2], self.num_codes), hidden, generator)
        if not self.autoregressive:
            logits = self.place_logits(memory)
            return relaxed_categorical(logits, noise, temperature, hard), logits
        # Cut up once, not at each place: else each place's gradient would be of the whole's size.
        read = self.read_codes.weight.unflatten(0, (self.places, self.hidden)).unbind(0)
        table = self.embedding.weight[-self.num_codes :]
        codes = hidden.new_empty(len(hidden), 0)
        drawn = []
        for own, ours, chance in zip(hidden.unbind(1), read, noise.unbind(1), strict=True):
            logits = self._score(own + F.linear(codes, ours[:, : codes.shape[1]]))
            weights = relaxed_categorical(logits, chance, temperature, hard)
            codes = torch.cat([codes, weights @ table], 1)
            drawn.append((weights, logits))
        weights, logits = (torch.stack(parts, 1) for parts in zip(*drawn, strict=True))
        return weights, logits

    def _hidden(self, z: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Computes all places' hidden states from the codes before each, `[N, L, H]`."""
        hidden = memory[0].index_select(0, rows)
        if not self.autoregressive:
            return hidden
        context = F.linear(self._embed(z).flatten(1), self.read_codes.weight * self.mask)
        return hidden + context.view_as(hidden)

    def _next(self, hidden: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
        """Scores the place after the embedded codes `[N, t D]`: `[N, K + 1]`."""
        size = codes.shape[1]
        place = size // self.embedding.embedding_dim
        following = hidden[:, place].index_select(0, rows)
        if size and self.autoregressive:
            ours = slice(place * self.hidden, (place + 1) * self.hidden)
            following = following + F.linear(codes, self.read_codes.weight[ours, :size])
        return self._padded(following)

    def _padded(self, hidden: Tensor) -> Tensor:
        """Scores hidden states, with an exit that has no meaning: `[..., K + 1]`."""
        return F.pad(self._score(hidden), (0, 1))
