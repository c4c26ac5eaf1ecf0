"""A policy that sees an image as a turtle on it does."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.one_hot_state import OneHotState
from algorithms.policy import Memory, Policy
from gfn_envs.errors import UserError
from gfn_envs.factored_categorical import UNSET
from gfn_envs.turtle_path import NORTH, TurtlePath


class TurtlePolicy(Policy):
    """P_F over paths from the image around the turtle, turned as it is.

    The pixels of each cell become a few numbers, by a linear map that all cells share. A perceptron
    reads these in the order in which the turtle sees the cells, which of them it has visited, and
    its turns, and scores the next turn: what it learns at one place holds everywhere. Another one
    scores each cell as the start from what is seen there. log Z(x) is a perceptron of the whole
    image. All outputs start at zero: P_F uniform over legal actions, log Z(x) = 0.
    """

    view: Tensor

    def __init__(self, env: TurtlePath, x_size: int, hidden: int = 64, channels: int = 2) -> None:
        """Builds the networks.

        Args:
            env: The environment, of fixed order.
            x_size: How many pixels an image has, in square cells as `PathDrawing` has them.
            hidden: The width of each perceptron's hidden layer.
            channels: How many numbers the pixels of a cell become.

        Raises:
            UserError: If the environment is another, the pixels do not make square cells, or a
                size is below 1.
        """
        super().__init__()
        if not isinstance(env, TurtlePath) or env.order != "fixed":
            raise UserError("A TurtlePolicy needs a TurtlePath of fixed order; use an MLPPolicy.")
        self.side = math.isqrt(x_size // env.num_cells)
        if min(self.side, hidden, channels) < 1 or self.side**2 * env.num_cells != x_size:
            raise UserError(
                "A TurtlePolicy needs hidden and channels of at least 1 and an image of square "
                f"cells; {x_size} pixels are no such image of {env.num_cells} cells."
            )
        self.env, self.num_logits = env, env.num_actions + 1
        self.register_buffer("view", env.views(), persistent=False)
        seen = self.view.shape[-1]
        self.one_hot = OneHotState(env)
        # The start cell is what the view is of; only turns are read off the state.
        self.turns_from = env.num_cells + 1
        self.look = nn.Linear(self.side**2, channels)
        self.read_x = nn.Linear(seen * channels, hidden)
        self.read_visited = nn.Linear(seen, hidden, bias=False)
        self.read_turns = nn.Linear(self.one_hot.size - self.turns_from, hidden, bias=False)
        self.turn_head = zero_linear(hidden, 4)
        self.read_x_for_start = nn.Linear(seen * channels, hidden)
        self.start_head = zero_linear(hidden, 1)
        self.read_x_for_partition = nn.Linear(x_size, hidden)
        self.partition_head = zero_linear(hidden, 1)

    def encode(self, x: Tensor) -> Memory:
        """Cuts x into cells and scores each as the start; see `Policy.encode`."""
        flat = x.flatten(1)
        rows, columns = self.env.grid
        squares = flat.view(len(x), rows, self.side, columns, self.side).transpose(2, 3)
        cells = self.look(squares.reshape(len(x), self.env.num_cells, -1))
        seen = cells[:, self.view[:, NORTH]].flatten(2)
        start = self.start_head(F.relu(self.read_x_for_start(seen))).squeeze(-1)
        return cells, start, flat

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores starts or turns, float `[N, A + 1]`; see `Policy.logits`."""
        cells, start, _ = memory
        start = F.pad(start.index_select(0, rows), (0, self.num_logits - start.shape[1]))
        path, heading = self.env.walk(state)
        last = (path != UNSET).sum(1, keepdim=True).sub(1).clamp_min(0)
        at, facing = (steps.gather(1, last).squeeze(1).clamp_min(0) for steps in (path, heading))
        view = self.view[at, facing]
        cell = rows[:, None] * self.env.num_cells + view
        seen = cells.flatten(0, 1).index_select(0, cell.flatten())
        hidden = (
            self.read_x(seen.view(len(rows), -1))
            + self.read_visited(self.env.visited(path).gather(1, view))
            + self.read_turns(self.one_hot(state)[:, self.turns_from :])
        )
        turns = F.pad(self.turn_head(F.relu(hidden)), (0, self.num_logits - 4))
        return torch.where(state[:, :1] == UNSET, start, turns)

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x), float `[B]`, nats; see `HasLogPartition`."""
        return self.partition_head(F.relu(self.read_x_for_partition(memory[2]))).squeeze(-1)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves the environment along with the parameters."""
        moved = super()._apply(fn, recurse)
        moved.env = moved.env.to(moved.view.device)
        return moved
