"""The paper's policy for grids of codes: an image encoder and a perceptron on the state."""

from collections.abc import Sequence

from torch import Tensor, nn

from algorithms.image_policy import ImagePolicy
from algorithms.mlp_policy import trunk, zero_linear
from algorithms.one_hot_state import OneHotState
from algorithms.policy import Memory
from gfn_envs.code_grid import CodeGrid


class ImageMLPPolicy(ImagePolicy):
    """P_F from a perceptron that reads the encoded image and the one-hot state at every step.

    Hu et al.: "GFlowNet-EM", ICML 2023, section 5.3. As in `MLPPolicy` the first layer's part in
    the image is computed once for each image, and P_F is uniform at first. It serves any order.
    """

    def __init__(
        self,
        env: CodeGrid,
        image_shape: Sequence[int],
        channels: int = 128,
        hidden: int = 256,
        layers: int = 2,
        partition: str = "per-image",
    ) -> None:
        """Builds the networks.

        Args:
            env: The environment.
            image_shape: `(image channels, H, W)`.
            channels: The channels of the image encoder.
            hidden: The width of each hidden layer.
            layers: The number of hidden layers, at least 1.
            partition: `per-image` or `global`; see `ImagePolicy`.

        Raises:
            UserError: See `ImagePolicy`.
        """
        super().__init__(env, image_shape, channels, partition)
        self.one_hot = OneHotState(env)
        self.read_image = nn.Linear(env.max_steps * channels, hidden)
        self.read_state = nn.Linear(self.one_hot.size, hidden, bias=False)
        self.trunk = trunk(hidden, layers)
        self.forward_head = zero_linear(hidden, env.num_actions + 1)

    def encode(self, x: Tensor) -> Memory:
        """Reads images `[B, C, H, W]` into their part of the first layer; see `Policy.encode`."""
        return self.read_image(self.encoder(x).flatten(1)), x

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores every action, float `[N, A + 1]`; see `Policy.logits`."""
        part_in_state = self.read_state(self.one_hot(state))
        hidden = self.trunk(memory[0].index_select(0, rows) + part_in_state)
        return self.forward_head(hidden)
