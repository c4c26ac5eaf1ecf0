"""The one definition of a latent structure: how it is built, step by step."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gfn_envs.errors import UserError

ENUMERATION_LIMIT = 1_000_000
"""No method enumerates more states or structures than this."""


class LatentEnv(ABC):
    """A construction process of a discrete compositional structure.

    A structure z is built from `initial_state` by actions 0 .. `num_actions` - 1 and ended by an
    exit action, which is legal exactly where `is_complete` holds. Everything is a pure function
    over a batch of int64 tensors, one trajectory a row: no method keeps state, changes its
    arguments, or lets one row depend on another.

    `step` and `backward_step` are total: for an illegal action they return a state of the right
    shape and never raise, so that inner loops need not compact their batch. Whoever takes actions
    from outside (the Gymnasium face) checks them against `forward_mask` first.

    A subclass sets the attributes below in `__init__` and implements the abstract methods. It
    declares `num_steps`, `trivial_mask` and `is_tree` where they are true, because they make
    rollouts cheaper. `gfn_envs.testing.check_latent_env` tells whether it keeps the contract.

    Attributes:
        state_shape: `(S,)`; states are int64 tensors `[B, S]`.
        num_actions: A, the number of actions without exit.
        max_steps: A bound on the number of actions before exit.
        initial_state: int64 `[S]`, the same for every observation.
        state_low: int64 `[S]`, the smallest value of each entry of a legal state.
        state_high: int64 `[S]`, the largest value of each entry of a legal state.
        context_size: C, the number of integers that shape an observation's action space
            (a sentence's length, say); 0 where all observations share one.
        trivial_mask: Whether every action is legal until the structure is complete.
        is_tree: Whether every state but the initial one has a single parent, so that P_B = 1.
    """

    state_shape: tuple[int]
    num_actions: int
    max_steps: int
    initial_state: Tensor
    state_low: Tensor
    state_high: Tensor
    context_size: int = 0
    trivial_mask: bool = False
    is_tree: bool = False

    # -- the construction process ---------------------------------------------------------------

    @abstractmethod
    def forward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Says which actions are legal.

        Args:
            state: int64 `[B, S]`.
            context: int64 `[B, C]`.

        Returns:
            bool `[B, A]`, exit not included.
        """

    @abstractmethod
    def backward_mask(self, state: Tensor, context: Tensor) -> Tensor:
        """Says which actions can have been the last one; the index is that of the forward action.

        Args:
            state: int64 `[B, S]`.
            context: int64 `[B, C]`.

        Returns:
            bool `[B, A]`.
        """

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Takes one action in each row.

        Args:
            state: int64 `[B, S]`.
            action: int64 `[B]` in 0 .. A - 1, legal or not.
            context: int64 `[B, C]`.

        Returns:
            The next state, int64 `[B, S]`, a new tensor.
        """

    @abstractmethod
    def backward_step(self, state: Tensor, action: Tensor, context: Tensor) -> Tensor:
        """Undoes one action in each row.

        Args:
            state: int64 `[B, S]`.
            action: int64 `[B]` in 0 .. A - 1, legal or not.
            context: int64 `[B, C]`.

        Returns:
            The state before it, int64 `[B, S]`, a new tensor.
        """

    @abstractmethod
    def is_complete(self, state: Tensor, context: Tensor) -> Tensor:
        """Says where exit is legal.

        Args:
            state: int64 `[B, S]`.
            context: int64 `[B, C]`.

        Returns:
            bool `[B]`.
        """

    def legal_actions(self, state: Tensor, context: Tensor) -> Tensor:
        """Says which actions are legal, exit included.

        Args:
            state: int64 `[B, S]`.
            context: int64 `[B, C]`.

        Returns:
            bool `[B, A + 1]`, exit last. The fallback joins `forward_mask` and `is_complete`.
        """
        complete = self.is_complete(state, context)[:, None]
        return torch.cat([self.forward_mask(state, context), complete], dim=1)

    def num_steps(self, context: Tensor) -> Tensor | None:
        """Gives the number of actions before exit where it is the same for every structure.

        Declaring it promises that exit is forced: a complete state has no legal action.

        Args:
            context: int64 `[B, C]`.

        Returns:
            int64 `[B]`, or None where structures of one observation differ in length.
        """
        return None

    # -- batches --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device that the environment's constants are on."""
        return self.initial_state.device

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy whose tensors are on `device`.

        Args:
            device: Any torch device, `"meta"` included.

        Returns:
            A new environment; this one is unchanged.
        """
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    def initial_states(self, batch_size: int) -> Tensor:
        """Returns `batch_size` copies of the initial state, int64 `[B, S]`."""
        return self.initial_state.expand(batch_size, -1).clone()

    def empty_context(self, batch_size: int) -> Tensor:
        """Returns the context of an environment that needs none, int64 `[B, 0]`.

        Raises:
            UserError: If this environment does need a context.
        """
        if self.context_size:
            raise UserError(
                f"{type(self).__name__} needs a context of {self.context_size} numbers for each "
                "observation; pass context=."
            )
        return torch.zeros(batch_size, 0, dtype=torch.int64, device=self.device)

    def sample_context(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws contexts to build structures without data: for checks and bare Gymnasium use.

        Args:
            batch_size: B.
            generator: Source of randomness.

        Returns:
            int64 `[B, C]`.

        Raises:
            NotImplementedError: If `context_size` is positive and the subclass does not say how.
        """
        if self.context_size:
            raise NotImplementedError(
                f"{type(self).__name__} has context_size {self.context_size}: "
                "it must define sample_context."
            )
        return self.empty_context(batch_size)

    # -- exact references -----------------------------------------------------------------------

    def num_structures(self, context_row: Tensor) -> int:
        """Counts the complete structures of one observation.

        Args:
            context_row: int64 `[C]`.

        Returns:
            Their number. The fallback enumerates them.
        """
        return len(self.enumerate(context_row))

    def enumerate(self, context_row: Tensor) -> Tensor:
        """Lists every complete structure of one observation.

        Args:
            context_row: int64 `[C]`.

        Returns:
            int64 `[Z, S]` without duplicates, in a fixed order. The fallback searches from the
            initial state.

        Raises:
            UserError: If there are more than `ENUMERATION_LIMIT`.
        """
        from gfn_envs.state_graph import StateGraph

        graph = StateGraph.build(self, context_row)
        return graph.states[graph.complete]

    def enumerate_states(self, context_row: Tensor) -> Tensor:
        """Lists every reachable state of one observation, partial ones included.

        Args:
            context_row: int64 `[C]`.

        Returns:
            int64 `[M, S]` without duplicates, in a fixed order. The fallback searches from the
            initial state.

        Raises:
            UserError: If there are more than `ENUMERATION_LIMIT`.
        """
        from gfn_envs.state_graph import StateGraph

        return StateGraph.build(self, context_row).states

    def num_parents(self, state: Tensor, context: Tensor) -> Tensor:
        """Counts the legal backward actions.

        Args:
            state: int64 `[B, S]`.
            context: int64 `[B, C]`.

        Returns:
            int64 `[B]`. The fallback sums `backward_mask`.
        """
        return self.backward_mask(state, context).sum(-1)

    def log_num_trajectories(self, state: Tensor, context: Tensor) -> Tensor:
        """Gives log N(s), the number of distinct action sequences from the initial state to s.

        Uniform over trajectories means P_B(s | s') = N(s) / N(s'), so log P_B(tau | z) = -log N(z).

        Args:
            state: int64 `[B, S]`, reachable.
            context: int64 `[B, C]`.

        Returns:
            float `[B]`, nats.

        Raises:
            NotImplementedError: If the subclass does not know it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not count its trajectories (log_num_trajectories); "
            "use the backward policy that is uniform over legal actions instead."
        )

    def sample_trajectory_to(
        self, state: Tensor, context: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws an action sequence to each given state, uniformly among all that lead there.

        The fallback walks backward with P_B(s | s') = N(s) / N(s'), so it needs
        `log_num_trajectories`, unless every state on the way has a single parent.

        Args:
            state: int64 `[B, S]`, reachable.
            context: int64 `[B, C]`.
            generator: Source of randomness.

        Returns:
            actions, int64 `[T, B]`, padded with -1 after each row's length, and lengths,
            int64 `[B]`.
        """
        from gfn_envs.backward_walk import walk_backward

        def draw(state: Tensor, mask: Tensor) -> Tensor:
            row, action = mask.nonzero(as_tuple=True)
            parent = self.backward_step(state[row], action, context[row])
            log_count = self.log_num_trajectories(parent, context[row])
            logits = torch.full(mask.shape, -torch.inf, dtype=log_count.dtype, device=state.device)
            logits[row, action] = log_count
            logits[~mask.any(-1), 0] = 0.0  # at the initial state already
            # Scaled row by row: counts of different rows can be too far apart for one scale.
            return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)

        return walk_backward(self, state, context, draw)

    def states_along(self, actions: Tensor, context: Tensor, end: Tensor | None = None) -> Tensor:
        """Gives the states of trajectories from the initial state.

        The fallback takes the actions one after another.

        Args:
            actions: int64 `[T, B]`, legal ones, padded with -1.
            context: int64 `[B, C]`.
            end: The state that each trajectory leads to, int64 `[B, S]`, if it is known: some
                environments then give all states at once.

        Returns:
            int64 `[T + 1, B, S]`; after its last action a row repeats its last state.
        """
        states = [self.initial_states(len(context))]
        for action in actions:
            following = self.step(states[-1], action.clamp_min(0), context)
            states.append(torch.where((action >= 0)[:, None], following, states[-1]))
        return torch.stack(states)

    # -- for people -----------------------------------------------------------------------------

    def to_structure(self, state: Tensor, context_row: Tensor) -> Any:
        """Turns one complete state, int64 `[S]`, into an object that a person would use.

        Args:
            state: int64 `[S]`.
            context_row: int64 `[C]`.

        Returns:
            The fallback is a tuple of integers.
        """
        return tuple(state.tolist())

    def from_structure(self, structure: Any, context_row: Tensor) -> Tensor:
        """Undoes `to_structure`.

        Args:
            structure: What `to_structure` returned.
            context_row: int64 `[C]`.

        Returns:
            int64 `[S]`.
        """
        return torch.tensor(structure, dtype=torch.int64, device=self.device)

    def render(self, state: Tensor, context_row: Tensor, mode: str) -> str | np.ndarray:
        """Draws one state.

        Args:
            state: int64 `[S]`.
            context_row: int64 `[C]`.
            mode: `"ansi"` for a string, `"rgb_array"` for uint8 `[H, W, 3]`.

        Returns:
            The fallback shows the state's numbers.

        Raises:
            UserError: If the mode is another.
        """
        from gfn_envs.rendering import draw_cells, require_mode

        require_mode(mode)
        cells = [str(value) for value in state.tolist()]
        return " ".join(cells) if mode == "ansi" else draw_cells(cells)


def require_enumerable(what: str, count: int) -> None:
    """Raises a UserError if `count` is past `ENUMERATION_LIMIT`.

    Args:
        what: What would be enumerated, in the plural.
        count: How many there are.
    """
    if count > ENUMERATION_LIMIT:
        raise UserError(
            f"{count:,} {what} are too many to enumerate (limit {ENUMERATION_LIMIT:,}); "
            "use a smaller structure or an estimate by sampling."
        )
