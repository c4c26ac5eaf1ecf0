"""Dreams: observations and structures drawn from the model."""

from dataclasses import replace

import torch

from algorithms.backward_trajectories import trajectories_to
from algorithms.exploration import Exploration, TrainingStep
from algorithms.trajectory_batch import TrajectoryBatch


class Sleep(Exploration):
    """Pairs (x, z) drawn from p(x, z), with trajectories to z from P_B.

    Hinton, Dayan, Frey, Neal: "The wake-sleep algorithm for unsupervised neural networks",
    Science 1995; for GFlowNet-EM Hu et al. 2023, section 4.2. The batch's observations are the
    dreams', not the data's: as many as trajectories are wanted, one for each. So an objective
    that compares several trajectories of one x, as VarGrad does, cannot train on it; trajectory
    balance and maximum likelihood can. Each z is an exact sample of p(z | x) of its dream.
    """

    posterior_samples = True
    one_per_x = True

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Dreams and draws a trajectory to each structure; see `Exploration.sample`."""
        with torch.no_grad():
            x, z = step.model.sample(len(step.rows), step.generator)
        rows = torch.arange(len(x), device=x.device)
        dream = replace(step, x=x, context=step.model.context(x), rows=rows)
        return trajectories_to(dream, rows, z)
