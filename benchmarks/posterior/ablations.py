"""What two mistakes cost: VarGrad centred over the batch, and rewards replayed from before M-steps.

python -m benchmarks.posterior.ablations --seconds 20
"""

import argparse
import copy
from collections.abc import Sequence

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from algorithms.exploration import EpsilonUniform, Exploration, TrainingStep
from algorithms.gflownet_e_step import GFlowNetEStep
from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.replay import Replay
from algorithms.schedule import Constant
from algorithms.trajectory_batch import TrajectoryBatch
from algorithms.vargrad import VarGrad
from benchmarks.posterior.curves import train_posterior
from benchmarks.posterior.training import NUM_X, SAMPLES_PER_X, make_data, make_policy
from gfn_envs.latent_env import LatentEnv
from lvms.enumeration import EnumeratedPosterior
from lvms.model import LatentVariableModel
from lvms.models import models

M_STEPS = 10
LEARNING_RATE = 3e-3


class BatchCentredVarGrad(Objective):
    """VarGrad as torchgfn's `LogPartitionVarianceGFlowNet` has it: one centre for all x.

    It asks for the same log Z(x) everywhere, which no posterior of several observations has.
    """

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the variance over the whole batch; see `Objective.loss`."""
        ratio = self.log_ratio(env, policy, batch)
        loss = self.residual_loss(ratio - ratio.mean())
        return LossOutput(loss.mean(), loss.detach())


class StaleReplay(Replay):
    """A replay that keeps each structure's log reward from when it was first found."""

    def __init__(self, source: Exploration, structures: Tensor) -> None:
        """Takes the new trajectories' source and all structures, int64 `[Z, S]`."""
        super().__init__(source, capacity=len(structures))
        self.structures = structures
        self.first = torch.full((NUM_X, len(structures)), torch.nan)

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Draws trajectories with rewards that may be stale; see `Exploration.sample`."""
        batch = super().sample(step)
        z = (batch.z[:, None] == self.structures).all(-1).long().argmax(1)
        ids = step.ids[batch.rows]
        found = self.first[ids, z]
        self.first[ids, z] = torch.where(found.isnan(), batch.ensure_log_reward(step.reward), found)
        batch.log_reward = self.first[ids, z]
        return batch


def final_total_variation(
    model: LatentVariableModel,
    x: Tensor,
    objective: Objective,
    exploration: Exploration,
    seconds: float,
    seed: int,
    later: LatentVariableModel | None = None,
) -> tuple[float, float]:
    """Trains a policy and returns its total variation, mean and standard error over x.

    Args:
        model: The model; its parameters are moved.
        x: The observations, `[B, ...]`.
        objective: The loss.
        exploration: Where trajectories come from.
        seconds: CPU seconds of training.
        seed: Of everything random.
        later: A model whose parameters are reached in equal M-steps over the first half.
    """
    e_step = GFlowNetEStep(
        model, make_policy(model, x, seed), objective, exploration=exploration, batch_size=NUM_X,
        samples_per_x=SAMPLES_PER_X, learning_rate=LEARNING_RATE,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    stages = M_STEPS if later is not None else 1
    first = copy.deepcopy(dict(model.named_parameters()))
    for stage in range(stages):
        train_posterior(e_step, x, names=(), every=10, cpu_seconds=seconds / 2 / stages)
        if later is not None:
            for name, end in later.named_parameters():
                share = (stage + 1) / stages
                model.get_parameter(name).data.copy_(torch.lerp(first[name], end, share))
            model.mark_updated()
    e_step.learning_rate = Constant(LEARNING_RATE / 10)
    train_posterior(e_step, x, names=(), every=10, cpu_seconds=seconds / 2)
    final = train_posterior(e_step, x, names=("total_variation",), every=1, updates=0)[-1]
    found = final.metrics["total_variation"]
    return found["mean"], found["standard_error"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs both comparisons and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["mixture-tiny", "hmm-tiny", "sbn-tiny"])
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of each training")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for task in tqdm(options.tasks, unit="task"):
        x = make_data(task)
        structures = EnumeratedPosterior(models.make(task)).structures(x)
        later = models.make(task, seed=1)
        new = EpsilonUniform(0.05)
        for label, objective, exploration, end in (
            ("VarGrad, centred for each x", VarGrad(), new, None),
            ("VarGrad, centred over the batch", BatchCentredVarGrad(), new, None),
            ("replay, fresh rewards", VarGrad(), Replay(new, capacity=len(structures)), later),
            ("replay, stale rewards", VarGrad(), StaleReplay(new, structures), later),
        ):
            mean, error = final_total_variation(
                models.make(task), x, objective, exploration, options.seconds, options.seed, end
            )
            rows.append([task, label, f"{mean:.4f} ± {error:.4f}"])
    print(tabulate(rows, ["task", "training", "total variation"], tablefmt="github"))


if __name__ == "__main__":
    main()
