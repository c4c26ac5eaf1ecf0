"""A multilayer perceptron over the observation and the one-hot state."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.one_hot_state import OneHotState
from algorithms.policy import Memory, Policy
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class MLPPolicy(Policy):
    """P_F, P_B, log Z(x) and log F(s; x) as small perceptrons for observations that are vectors.

    The first layer is linear in [x, one-hot state], so its part in x is computed once per
    observation by `encode`. P_F and P_B are heads on the same hidden layers. log F(s; x) has layers
    of its own: its large values, learned first, would drown what P_F needs of shared ones (on
    `hmm-small` detailed balance then ends twice as far from the posterior in the same time). All
    outputs start at zero: P_F and P_B uniform over legal actions, log Z(x) = log F(s; x) = 0.
    """

    def __init__(self, env: LatentEnv, x_size: int, hidden: int = 64, layers: int = 1) -> None:
        """Builds the networks.

        Args:
            env: The environment, for the sizes of its states and actions.
            x_size: How many numbers an observation has.
            hidden: The width of each hidden layer.
            layers: The number of hidden layers, at least 1.

        Raises:
            UserError: If a size is below 1.
        """
        super().__init__()
        if min(x_size, hidden, layers) < 1:
            raise UserError("An MLPPolicy needs x_size, hidden and layers of at least 1.")
        self.one_hot = OneHotState(env)
        self.read_x = nn.Linear(x_size, hidden)
        self.read_state = nn.Linear(self.one_hot.size, hidden, bias=False)
        self.trunk = trunk(hidden, layers)
        self.forward_head = zero_linear(hidden, env.num_actions + 1)
        self.backward_head = zero_linear(hidden, env.num_actions)
        self.read_x_for_partition = nn.Linear(x_size, hidden)
        self.partition_head = zero_linear(hidden, 1)
        # Last, so that they leave what the others draw from a seed as it was.
        self.flow_read_x = nn.Linear(x_size, hidden)
        self.flow_read_state = nn.Linear(self.one_hot.size, hidden, bias=False)
        self.flow_trunk = trunk(hidden, layers)
        self.flow_head = zero_linear(hidden, 1)

    def encode(self, x: Tensor) -> Memory:
        """Reads x `[B, ...]` into its part of the first layer; see `Policy.encode`."""
        flat = x.flatten(1)
        return self.read_x(flat), flat

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action, float `[N, A + 1]`; see `Policy.logits`."""
        return self.forward_head(self._hidden(state, memory, rows))

    def backward_logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action as the last one, float `[N, A]`; see `HasBackwardPolicy`."""
        return self.backward_head(self._hidden(state, memory, rows))

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x), float `[B]`, nats; see `HasLogPartition`."""
        return self.partition_head(F.relu(self.read_x_for_partition(memory[1]))).squeeze(-1)

    def state_flow(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Estimates log F(s; x), float `[N]`, nats; see `HasStateFlow`."""
        # x is read here, not in `encode`, which serves objectives without flows too.
        part_in_x = self.flow_read_x(memory[1]).index_select(0, rows)
        hidden = self.flow_trunk(part_in_x + self.flow_read_state(self.one_hot(state)))
        return self.flow_head(hidden).squeeze(-1)

    def _hidden(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Computes the last hidden layer, float `[N, H]`."""
        part_in_state = self.read_state(self.one_hot(state))
        # Unlike indexing, index_select has a gradient that does not sort the rows.
        return self.trunk(memory[0].index_select(0, rows) + part_in_state)


def trunk(hidden: int, layers: int) -> nn.Sequential:
    """Makes what follows the first layer: its activation, and the other hidden layers."""
    deeper = [(nn.Linear(hidden, hidden), nn.ReLU()) for _ in range(layers - 1)]
    return nn.Sequential(nn.ReLU(), *(module for pair in deeper for module in pair))


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """Makes a linear layer whose output is zero until it is trained."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    return layer
