"""Trajectories of tiny environments, drawn or all of them, and gradients of losses on them."""

import torch

from algorithms.rollout import replay, rollout, score
from algorithms.trajectory_batch import select
from lvms import LVMReward
from tests.envs import action_sequences


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table_batch(model, policy, samples=50, epsilon=0.0):
    """Draws trajectories for each observation of a TableModel, with gradient and log rewards."""
    x = model.observations()
    rows = torch.arange(len(x)).repeat_interleave(samples)
    batch = rollout(
        model.env, policy, x, rows=rows, generator=generator(), epsilon=epsilon, with_grad=True
    )
    batch.ensure_log_reward(LVMReward(model))
    return batch


def gradients(policy, loss):
    """Returns the gradient of each parameter that the loss reaches."""
    policy.zero_grad()
    loss.backward(retain_graph=True)
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def every_trajectory(model, policy, which_x):
    """Scores every complete trajectory of one observation of a TableModel, with log rewards."""
    env = model.env
    context = env.empty_context(1)
    found = [
        actions
        for actions, state in action_sequences(env, context[0])
        if env.is_complete(torch.tensor([state]), context)
    ]
    lengths = torch.tensor([len(actions) for actions in found])
    padded = torch.full((int(lengths.max()), len(found)), -1)
    for n, actions in enumerate(found):
        padded[: len(actions), n] = torch.tensor(actions, dtype=torch.int64)
    x = model.observations()[which_x][None]
    batch = replay(env, padded, lengths, x, torch.zeros(len(found), dtype=torch.int64))
    batch.ensure_log_reward(LVMReward(model))
    return score(env, policy, batch)


def expected_loss_of_pairs(objective, env, policy, batch):
    """Averages an objective exactly over pairs of trajectories drawn from the policy."""
    probability = batch.total_log_pf().detach().exp()
    return sum(
        probability[i] * probability[j] * objective.loss(env, policy, select(batch, [i, j])).loss
        for i in range(len(batch))
        for j in range(len(batch))
    )
