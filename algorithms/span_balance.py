"""Detailed balance over the nodes of a tree instead of over the states of its construction."""

from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.objective import LossOutput, Objective
from algorithms.policy import Policy
from algorithms.residual_loss import ResidualLoss
from algorithms.span_policy import SpanPolicy
from algorithms.trajectory_batch import TrajectoryBatch
from gfn_envs.binary_tree import children, tree_nodes
from gfn_envs.errors import UserError
from gfn_envs.latent_env import LatentEnv

NodeScores = Callable[[Tensor, Tensor], Tensor]
"""A model's `node_scores`: x `[N, ...]`, z `[N, S]` -> `[N, G + 1]`; see `Grammar.node_scores`."""

LEAST_SCORE = -100.0
"""Lower scores of nodes, nats, are raised to this: impossible rules would make a loss infinite."""


class SpanBalance(Objective):
    """Squared residual of every expanded node, where p(x, z) is a product over nodes.

    Let the flow of a state be the product of the rules that are there and of a flow F of each open
    span. Then detailed balance of the steps that expand a span labelled A under Q to parts B and C
    is, whatever else the state holds,

        log F(A, i, j | Q) + log P_F(k, B, C | A, i, j, Q)
            = log R[Q: A -> B C] + log F(B, i, k | A) + log F(C, k, j | A),

    F of a word being 1: one residual a node, so credit is as local as the rules are. One more,
    of the root's label, ties log Z(x) to the flows of the whole sentence. Bengio, Lahlou, Deleu,
    Hu, Tiwari, Bengio: "GFlowNet foundations", JMLR 2023, section 3.2, with flows of that form; at
    the exact posterior F is the inside weight and all residuals are 0.

    Attributes:
        node_scores: What each node's rule adds to log p(x, z); each loss calls it once for each
            trajectory, which counts as so many likelihood evaluations.
    """

    reads_reward = False

    def __init__(self, node_scores: NodeScores, residual_loss: ResidualLoss | None = None) -> None:
        """Takes the model's scores.

        Args:
            node_scores: The model's.
            residual_loss: What a residual costs; see `Objective`.
        """
        super().__init__(None, residual_loss)
        self.node_scores = node_scores

    def require_policy(self, policy: Policy) -> None:
        """Asks for a `SpanPolicy`; see `Objective.require_policy`."""
        _require_spans(policy)

    def loss(self, env: LatentEnv, policy: Policy, batch: TrajectoryBatch) -> LossOutput:
        """Computes the mean loss over all nodes of the batch; see `Objective.loss`.

        `per_trajectory` is the mean over each tree's own nodes.

        Raises:
            UserError: If the policy does not expand spans.
            ValueError: If the batch has not been scored.
        """
        residual, count = self.residuals(_require_spans(policy), batch)
        cost = self.residual_loss(residual).sum(-1)
        return LossOutput(
            cost.sum() / count.sum().clamp_min(1),
            cost.detach() / count,
            likelihood_evaluations=len(batch),
        )

    def residuals(self, policy: SpanPolicy, batch: TrajectoryBatch) -> tuple[Tensor, Tensor]:
        """Computes the residuals.

        Args:
            policy: The policy being trained.
            batch: Trajectories with `log_pf`, with gradient.

        Returns:
            float `[N, G + 1]`, nats: at gap g its node's, 0 where there is none, last the root's;
            and how many each tree has, int64 `[N]`.

        Raises:
            ValueError: If the batch has not been scored.
        """
        if batch.log_pf is None or batch.memory is None:
            raise ValueError("This batch has no log_pf: score it first (algorithms.rollout.score).")
        z, nodes = batch.z, tree_nodes(batch.z)
        gaps = nodes.label.shape[1]
        with torch.no_grad():
            score = self.node_scores(batch.x.index_select(0, batch.rows), z).clamp_min(LEAST_SCORE)
        flow = policy.node_flows(z, batch.memory, batch.rows)
        order, _ = policy.env.order_of_actions(z)
        taken = order[:, : len(batch.log_pf)]
        log_pf = flow.new_zeros(len(z), 2 * gaps).scatter_add(1, taken, batch.log_pf.T)
        log_split, log_label = log_pf.split(gaps, 1)
        # A part's label is chosen when what it is a part of is expanded.
        of_part = log_label - flow
        residual = flow + log_split - score[:, :-1]
        for child in children(nodes):
            residual = residual + of_part.gather(1, child.clamp_min(0)).where(child >= 0, 0.0)
        is_root = nodes.right - nodes.left == batch.context
        log_z = policy.log_partition(batch.memory).index_select(0, batch.rows)
        root = log_z + of_part.where(is_root, 0.0).sum(-1) - score[:, -1]
        is_node = nodes.label >= 0
        residual = torch.cat([residual.where(is_node, 0.0), root[:, None]], 1)
        return residual, is_node.sum(-1) + 1


def _require_spans(policy: Policy) -> SpanPolicy:
    """Returns a policy as one that expands spans, or raises a UserError."""
    if not isinstance(policy, SpanPolicy):
        raise UserError(
            f"SpanBalance needs a policy that expands spans, a SpanPolicy; "
            f"{type(policy).__name__} is none. Use TrajectoryBalance or VarGrad."
        )
    return policy
