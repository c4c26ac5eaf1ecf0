"""Sampling trajectories from a policy, and scoring trajectories under it."""

from typing import Any

import torch
from torch import Tensor

from algorithms.backward_policy import BackwardPolicy, default_backward_policy
from algorithms.policy import CachedDecoding, Memory, Policy, WholeStructures, supports
from algorithms.softmax import log_softmax, softmax
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.latent_env import LatentEnv

SCORE_AFTERWARDS_BELOW = 100
"""With fewer trajectories the cost is in the number of network calls, not in their size: sampling
without gradient and scoring all steps in one pass is cheaper than keeping the gradient."""

GREEDY = 1e-6
"""A temperature so low that the likeliest action is taken, up to ties."""

_IMPOSSIBLE = torch.tensor(-torch.inf)
"""Made once: `torch.where` would turn a plain number into a tensor at every step."""


def rollout(
    env: LatentEnv,
    policy: Policy,
    x: Tensor,
    *,
    rows: Tensor | None = None,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
    epsilon: float = 0.0,
    temperature: float = 1.0,
    with_grad: bool = False,
    memory: Memory | None = None,
) -> TrajectoryBatch:
    """Samples one complete trajectory for each entry of `rows`.

    Actions are drawn from (1 - epsilon) softmax(logits / temperature) + epsilon * uniform over
    legal actions; `log_pf` is that of the policy itself.

    Args:
        env: The environment.
        policy: The forward policy; x is encoded once.
        x: Observations, `[B, ...]`.
        rows: int64 `[N]`, the observation of each trajectory; one each by default.
        context: int64 `[B, C]`, the observations' contexts; may be left out where C = 0.
        generator: Source of randomness.
        epsilon: Weight of the uniform distribution, in 0 .. 1.
        temperature: Above 1 flattens the policy; `GREEDY` takes the likeliest action always.
        with_grad: Whether `log_pf` and `memory` carry gradient.
        memory: What `policy.encode(x)` returned, if x has been encoded already.

    Returns:
        The trajectories, with `log_pf`.
    """
    if rows is None:
        rows = torch.arange(len(x), device=x.device)
    if context is None:
        context = env.empty_context(len(x))
    if memory is None:
        with torch.set_grad_enabled(with_grad):
            memory = policy.encode(x)
    if supports(type(policy), WholeStructures):
        whole: Any = policy
        z, log_pf = whole.draw_structures(memory, rows, generator, epsilon, temperature)
        if with_grad:
            log_pf = whole.score_structures(z, memory, rows)
        return _along(env, z, log_pf, x, rows, context, memory)
    score_afterwards = with_grad and policy.scores_in_parallel
    if not supports(type(policy), CachedDecoding):
        score_afterwards |= with_grad and len(rows) < SCORE_AFTERWARDS_BELOW
    with torch.set_grad_enabled(with_grad and not score_afterwards):
        batch = _sample(
            env, policy, x, memory, rows, _of_rows(context, rows), generator, epsilon, temperature,
            keep_log_pf=not score_afterwards,
        )  # fmt: skip
    return _score(env, policy, batch, memory) if score_afterwards else batch


def _along(
    env: LatentEnv,
    z: Tensor,
    log_pf: Tensor,
    x: Tensor,
    rows: Tensor,
    context: Tensor,
    memory: Memory,
) -> TrajectoryBatch:
    """Makes the trajectories to structures that were drawn and scored as a whole."""
    actions, lengths = env.sample_trajectory_to(z, _of_rows(context, rows))
    actions = actions[: int(lengths.max()) if len(lengths) else 0]
    batch = replay(env, actions, lengths, x, rows, context, z)
    batch.log_pf, batch.memory = log_pf[: len(actions)], memory
    return batch


def _sample(
    env: LatentEnv,
    policy: Policy,
    x: Tensor,
    memory: Memory,
    rows: Tensor,
    context: Tensor,
    generator: torch.Generator | None,
    epsilon: float,
    temperature: float,
    keep_log_pf: bool,
) -> TrajectoryBatch:
    """Takes all steps of a rollout, in the caller's gradient mode; context is `[N, C]`."""
    num, horizon = len(rows), env.max_steps
    steps = env.num_steps(context)
    exit_forced, same_length = steps is not None, False
    if steps is not None and num:
        # Without a context all structures are of one length.
        ends = torch.stack(steps.aminmax()) if env.context_size else steps[:1]
        horizon = int(ends[-1])
        same_length = int(ends[0]) == horizon
    # Scaled a little below 1, so that a draw never lands past the last legal action.
    uniforms = torch.rand(horizon, num, 1, generator=generator, device=x.device)
    uniforms *= 1 - 2.0**-22

    cached: Any = policy if supports(type(policy), CachedDecoding) else None
    carry, choice = None, rows  # of no meaning before the first step
    state = env.initial_states(num)
    active = None if same_length else torch.ones(num, dtype=torch.bool, device=x.device)
    states, choices, moves, scored = [state], [], [], []
    for t, uniform in enumerate(uniforms.unbind(0)):
        if steps is not None and not same_length:
            active = t < steps
        if cached is not None:
            carry, logits = cached.advance(carry, choice) if t else cached.begin(memory, rows)
        elif t == 0 and len(x) < num:  # all trajectories of one x begin alike
            each = torch.arange(len(x), device=x.device)
            logits = policy.logits(env.initial_states(len(x)), memory, each).index_select(0, rows)
        else:
            logits = policy.logits(state, memory, rows)
        masked = mask_illegal(env, logits, state, context, exit_forced, active)
        if keep_log_pf:
            scored.append(masked)
            masked = masked.detach()
        probability = softmax(masked)
        if epsilon > 0.0 or temperature != 1.0:
            probability = _explore(masked, probability, epsilon, temperature)
        choice = _draw(probability, uniform)
        choices.append(choice)
        if active is not None and not exit_forced:
            active = active & (choice != env.num_actions)
            if not active.any():
                break
            choice = choice.clamp_max(env.num_actions - 1)
        following = env.step(state, choice, context)
        if active is not None:
            following = torch.where(active[:, None], following, state)
            moves.append(active)
        states.append(following)
        state = following

    actions = torch.stack(choices) if choices else rows.new_empty(0, num)
    log_pf = torch.zeros(0, num, device=x.device)
    if scored:  # all steps at once: a step in the loop costs few operations
        log_prob = log_softmax(torch.cat(scored))
        log_pf = log_prob.gather(1, actions.view(-1, 1)).view(actions.shape)
    batch = TrajectoryBatch(
        x=x,
        rows=rows,
        context=context,
        states=torch.stack(states),
        actions=actions,
        lengths=rows.new_zeros(num) if steps is None else steps,
        log_pf=log_pf,
        memory=memory,
    )
    return batch if same_length else _pad(batch, moves, exit_forced)


def _of_rows(context: Tensor, rows: Tensor) -> Tensor:
    """Picks the context `[N, C]` of each row; where C = 0 there is nothing to pick."""
    return context[rows] if context.shape[1] else context.new_empty(len(rows), 0)


def _pad(batch: TrajectoryBatch, moves: list[Tensor], exit_forced: bool) -> TrajectoryBatch:
    """Tells the exits and what was drawn after them from the actions of a rollout.

    Args:
        batch: As drawn: `actions` and `log_pf` hold a draw for each row at every step.
        moves: For each state after the first, the rows that were moved to it, bool `[N]`.
        exit_forced: Whether exits are not among the actions.

    Returns:
        The same batch.
    """
    num, taken, log_chosen = len(batch), len(moves), batch.log_pf
    moved = torch.stack(moves) if moves else batch.rows.new_zeros(0, num, dtype=torch.bool)
    batch.actions = torch.where(moved, batch.actions[:taken], -1)
    if not exit_forced:
        batch.lengths = moved.sum(0)
    if log_chosen is None or len(log_chosen) < taken:  # to be scored afterwards
        return batch
    batch.log_pf = torch.where(moved, log_chosen[:taken], 0.0)
    if not exit_forced:
        # Rows that took max_steps actions had no choice but to exit.
        padded = torch.cat([log_chosen, log_chosen.new_zeros(1, num)])
        batch.log_pf_exit = padded.gather(0, batch.lengths[None]).squeeze(0)
    return batch


def score(env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> TrajectoryBatch:
    """Fills in `log_pf` of trajectories that came from elsewhere, with gradient, in one pass.

    Args:
        env: The environment.
        policy: The forward policy.
        batch: The trajectories; `log_pf`, `log_pf_exit` and `memory` are replaced.

    Returns:
        The same batch.
    """
    return _score(env, policy, batch, policy.encode(batch.x))


def _score(
    env: LatentEnv, policy: Policy, batch: TrajectoryBatch, memory: Memory
) -> TrajectoryBatch:
    """Fills in `log_pf` given what `policy.encode` returned."""
    horizon, num = batch.actions.shape
    if supports(type(policy), WholeStructures):
        whole: Any = policy
        batch.log_pf = whole.score_structures(batch.z, memory, batch.rows)[:horizon]
        batch.memory = memory
        return batch
    exit_forced = env.num_steps(batch.context[:1]) is not None
    actions = batch.actions
    if not exit_forced and horizon < env.max_steps:  # after max_steps actions exit is no choice
        actions = torch.cat([actions, actions.new_full((1, num), -1)])
    steps = len(actions)
    state, rows = batch.states[:steps].flatten(0, 1), batch.rows.repeat(steps)
    # A row exits where its first -1 stands, and an exit is the last action of all.
    chosen = actions.remainder(env.num_actions + 1).reshape(-1, 1)
    kept = None
    if not exit_forced or env.context_size:  # only the steps that were taken are scored
        time = torch.arange(steps, device=rows.device)[:, None]
        taken = time < batch.lengths if exit_forced else time <= batch.lengths
        kept = taken.flatten().nonzero().squeeze(1)
        state, rows, chosen = (part.index_select(0, kept) for part in (state, rows, chosen))
    if supports(type(policy), CachedDecoding):
        cached: Any = policy
        logits = cached.trajectory_logits(actions.clamp_min(0), memory, batch.rows).flatten(0, 1)
        logits = logits if kept is None else logits.index_select(0, kept)
    else:
        logits = policy.logits(state, memory, rows)
    context = _of_rows(batch.context, rows if kept is None else kept % num)
    log_prob = log_softmax(mask_illegal(env, logits, state, context, exit_forced))
    log_chosen = log_prob.gather(1, chosen).squeeze(1)
    if kept is not None:
        log_chosen = log_chosen.new_zeros(steps * num).index_copy(0, kept, log_chosen)
    log_chosen = log_chosen.view(steps, num)
    if not exit_forced:
        exits = actions < 0
        batch.log_pf_exit = torch.where(exits, log_chosen, 0.0).sum(0)
        log_chosen = torch.where(exits, 0.0, log_chosen)[:horizon]
    batch.log_pf = log_chosen
    batch.memory = memory
    return batch


def replay(
    env: LatentEnv,
    actions: Tensor,
    lengths: Tensor,
    x: Tensor,
    rows: Tensor,
    context: Tensor | None = None,
    z: Tensor | None = None,
) -> TrajectoryBatch:
    """Takes given actions from the initial state.

    Args:
        env: The environment.
        actions: int64 `[T, N]`, padded with -1.
        lengths: int64 `[N]`.
        x: Observations, `[B, ...]`.
        rows: int64 `[N]`, the observation of each trajectory.
        context: int64 `[B, C]`; may be left out where C = 0.
        z: The structures that they lead to, int64 `[N, S]`, if known; it may save time.

    Returns:
        The trajectories, not scored.
    """
    context = _of_rows(env.empty_context(len(x)) if context is None else context, rows)
    states = env.states_along(actions, context, z)
    # Environments that find all actions of a row at once give them transposed.
    return TrajectoryBatch(x, rows, context, states, actions.contiguous(), lengths)


def backward_rollout(
    env: LatentEnv,
    policy: Policy,
    z: Tensor,
    x: Tensor,
    rows: Tensor,
    backward: BackwardPolicy | None = None,
    *,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> TrajectoryBatch:
    """Draws one trajectory to each given structure from P_B(tau | z).

    Args:
        env: The environment.
        policy: The forward policy, which may share its networks with P_B.
        z: Complete states, int64 `[N, S]`.
        x: Observations, `[B, ...]`.
        rows: int64 `[N]`, the observation of each structure.
        backward: P_B; P_B = 1 on trees and uniform over legal backward actions elsewhere by
            default.
        context: int64 `[B, C]`; may be left out where C = 0.
        generator: Source of randomness.

    Returns:
        The trajectories, not scored.
    """
    backward = backward or default_backward_policy(env)
    row_context = _of_rows(env.empty_context(len(x)) if context is None else context, rows)
    with torch.no_grad():
        memory = policy.encode(x)
    actions, lengths = backward.sample(env, policy, memory, rows, row_context, z, generator)
    return replay(env, actions, lengths, x, rows, context, z)


def mask_illegal(
    env: LatentEnv,
    logits: Tensor,
    state: Tensor,
    context: Tensor,
    exit_forced: bool,
    active: Tensor | None = None,
) -> Tensor:
    """Puts -inf in place of the logits of illegal actions.

    Args:
        env: The environment.
        logits: float `[N, A + 1]`.
        state: int64 `[N, S]`.
        context: int64 `[N, C]`.
        exit_forced: Whether `env.num_steps` is declared, so that an exit has no choice to score.
        active: bool `[N]`; elsewhere nothing need be legal where exit is forced, and the result
            means nothing. All rows by default.

    Returns:
        float `[N, A]` where exits are forced, else float `[N, A + 1]`, exit last.
    """
    if not exit_forced:
        return torch.where(env.legal_actions(state, context), logits, _IMPOSSIBLE)
    logits = logits[:, :-1]
    if env.trivial_mask:
        return logits
    legal = env.forward_mask(state, context)
    if active is not None:
        legal = legal | ~active[:, None]
    return torch.where(legal, logits, _IMPOSSIBLE)


def action_log_probs(
    env: LatentEnv,
    policy: Policy,
    state: Tensor,
    memory: Memory,
    rows: Tensor,
    context: Tensor,
    active: Tensor | None = None,
) -> Tensor:
    """Computes log P_F of every action in nats, -inf for illegal ones.

    Args:
        env: The environment.
        policy: The forward policy.
        state: int64 `[N, S]`.
        memory: What `policy.encode` returned.
        rows: int64 `[N]`.
        context: int64 `[N, C]`.
        active: bool `[N]`; elsewhere nothing need be legal and the result means nothing. All
            rows by default.

    Returns:
        float `[N, A]` where exits are forced (so that an exit has no choice to score), else
        float `[N, A + 1]`, exit last.
    """
    exit_forced = env.num_steps(context[:1]) is not None
    logits = policy.logits(state, memory, rows)
    return log_softmax(mask_illegal(env, logits, state, context, exit_forced, active))


def _explore(masked: Tensor, probability: Tensor, epsilon: float, temperature: float) -> Tensor:
    """Turns the policy's probabilities, softmax(masked), `[N, A]` into those to draw from."""
    if temperature != 1.0:
        probability = (masked / temperature).softmax(-1)
    if epsilon > 0.0:
        legal = (masked > -torch.inf).to(probability.dtype)
        probability = torch.lerp(probability, legal / legal.sum(-1, keepdim=True), epsilon)
    return probability


def _draw(probability: Tensor, uniform: Tensor) -> Tensor:
    """Draws one action a row by inverse CDF, int64 `[N]`; uniform is `[N, 1]`."""
    cumulative = probability.cumsum(-1).contiguous()
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    # Only where training has diverged, and probabilities are no numbers, is it past the end.
    return drawn.clamp_max_(probability.shape[-1] - 1).squeeze(1)
