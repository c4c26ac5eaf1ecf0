"""A policy whose logits are sums over the entries of a state."""

from torch import Tensor, nn
from torch.nn import functional as F

from algorithms.mlp_policy import zero_linear
from algorithms.one_hot_state import OneHotState
from algorithms.policy import Memory, Policy
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv


class AdditivePolicy(Policy):
    """P_F from a table that is read off x once and looked up at every step.

    The logits in state s are sum_i T(x)[i, s_i], where T(x) has a row of A + 1 numbers for each
    possible value of each entry, a linear function of x plus a perceptron's. So what x says of an
    action may differ with each entry of the state, as a perceptron learns only slowly, and a step
    costs S additions, not a network. What two entries say together is left out.

    log Z(x) is a perceptron of its own. All outputs start at zero: P_F uniform over legal actions,
    log Z(x) = 0.
    """

    def __init__(self, env: LatentEnv, x_size: int, hidden: int = 64) -> None:
        """Builds the networks.

        Args:
            env: The environment, for the sizes of its states and actions.
            x_size: How many numbers an observation has.
            hidden: The width of each perceptron's hidden layer.

        Raises:
            UserError: If a size is below 1.
        """
        super().__init__()
        if min(x_size, hidden) < 1:
            raise UserError("An AdditivePolicy needs x_size and hidden of at least 1.")
        self.one_hot = OneHotState(env)
        self.num_logits = env.num_actions + 1
        numbers = self.one_hot.size * self.num_logits
        self.read_x = nn.Linear(x_size, hidden)
        self.linear_head = zero_linear(x_size, numbers)
        self.hidden_head = zero_linear(hidden, numbers)
        self.read_x_for_partition = nn.Linear(x_size, hidden)
        self.partition_head = zero_linear(hidden, 1)

    def encode(self, x: Tensor) -> Memory:
        """Reads x `[B, ...]` into its table `[B, F, A + 1]`; see `Policy.encode`."""
        flat = x.flatten(1)
        table = self.linear_head(flat) + self.hidden_head(F.relu(self.read_x(flat)))
        return table.unflatten(1, (-1, self.num_logits)), flat

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action, float `[N, A + 1]`; see `Policy.logits`."""
        entry = state + self.one_hot.first + rows[:, None] * self.one_hot.size
        return F.embedding_bag(entry, memory[0].flatten(0, 1), mode="sum")

    def log_partition(self, memory: Memory) -> Tensor:
        """Estimates log Z(x), float `[B]`, nats; see `HasLogPartition`."""
        return self.partition_head(F.relu(self.read_x_for_partition(memory[1]))).squeeze(-1)
