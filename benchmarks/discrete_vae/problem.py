"""What a method of the discrete-VAE task is given: the same for every method of one seed."""

from dataclasses import dataclass

from algorithms.code_grid_policy import CodeGridPolicy, RasterPolicy
from benchmarks.held_out.problem import HeldOutProblem
from lvms.discrete_vae import DiscreteVAE


@dataclass(frozen=True, kw_only=True)
class Problem(HeldOutProblem):
    """A model at its start, and what there is to learn it with; see `HeldOutProblem`.

    Attributes:
        model: The model, to be learned in place; it has been started at `x`, `[N, C, H, W]`.
        channels: The channels of an image encoder.
        hidden: The width of a policy's other hidden layers.
    """

    model: DiscreteVAE
    channels: int
    hidden: int

    def make_policy(
        self, partition: str = "per-image", autoregressive: bool = True
    ) -> CodeGridPolicy:
        """Makes the policy that all methods but the paper's share, for the order of the model.

        See `RasterPolicy` and, for any order, `CodeGridPolicy`, which always sees other codes.
        """
        if autoregressive and not self.model.env.is_tree:
            return CodeGridPolicy(
                self.model.env, self.model.image_shape, self.channels, self.hidden,
                partition=partition,
            )  # fmt: skip
        return self.make_raster_policy(partition, autoregressive)

    def make_raster_policy(
        self, partition: str = "per-image", autoregressive: bool = True
    ) -> RasterPolicy:
        """Makes the policy of methods that need raster order; see `RasterPolicy`.

        Raises:
            UserError: If the model's order is another.
        """
        return RasterPolicy(
            self.model.env, self.model.image_shape, self.channels, self.hidden,
            partition=partition, autoregressive=autoregressive,
        )  # fmt: skip
