"""An ensemble of policies that stands for what is not known yet about the right one."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.backward_policy import default_backward_policy
from algorithms.exploration import Exploration, TrainingStep
from algorithms.policy import CachedDecoding, Memory, Policy, supports
from algorithms.rollout import rollout, score
from algorithms.trajectory_batch import TrajectoryBatch, concatenate, select
from algorithms.vargrad import VarGrad
from gfn_envs.errors import UserError


class Thompson(Exploration):
    """Each trajectory comes from one of K policy heads, which agree where much has been seen.

    Rector-Brooks, Madan, Jain, Korablyov, Liu, Chandar, Malkin, Bengio: "Thompson sampling for
    improved exploration in GFlowNets", 2023. A head is drawn uniformly for each trajectory, and
    draws the whole of it. Each head learns, by `VarGrad`, from a random subset of the batch's
    trajectories that takes each in with probability `bootstrap`; to its logits those of a random
    network are added that never learns (`ThompsonHead`). So heads differ where few trajectories
    have been, and are alike, at the posterior, where many have.

    In the paper the heads share all but their last layer and are themselves what is learned.
    Here the policy may be any `Policy`, so each head is a whole network of its own, a copy of the
    policy initialised anew, and an update costs about K more of them; and the heads only draw
    trajectories: the policy learns from these by an objective of its own.
    """

    def __init__(
        self,
        heads: int = 4,
        bootstrap: float = 0.5,
        prior_scale: float = 1.0,
        learning_rate: float = 1e-2,
    ) -> None:
        """Sets up without heads; the first update makes them.

        Args:
            heads: K, at least 1.
            bootstrap: The probability that a head learns from a trajectory, above 0 and at most 1.
            prior_scale: At least 0; what the logits of the random networks are multiplied by.
            learning_rate: Adam's, of the heads.

        Raises:
            UserError: If a number is out of its range.
        """
        if heads < 1 or not 0.0 < bootstrap <= 1.0:
            raise UserError(
                "Thompson needs at least 1 head and a bootstrap above 0 and at most 1; got "
                f"{heads} and {bootstrap}."
            )
        if not 0.0 <= prior_scale < float("inf") or not 0.0 < learning_rate < float("inf"):
            raise UserError(
                "Thompson needs a prior_scale of at least 0 and a positive learning_rate; got "
                f"{prior_scale} and {learning_rate}."
            )
        self.num_heads = heads
        self.bootstrap = bootstrap
        self.prior_scale = prior_scale
        self.learning_rate = learning_rate
        self.heads: list[ThompsonHead] | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._resumed: dict[str, Any] = {}

    def sample(self, step: TrainingStep) -> TrajectoryBatch:
        """Draws from the heads and teaches them; see `Exploration.sample`.

        Raises:
            UserError: If an observation has only one trajectory, or the policy has no layer that
                can be initialised anew.
        """
        if (torch.bincount(step.rows) == 1).any():
            raise UserError("Thompson needs at least two trajectories for each observation.")
        heads, optimizer = self._made(step)
        head_of = torch.randint(
            self.num_heads, step.rows.shape, generator=step.generator, device=step.rows.device
        )
        drawn = []
        for index, head in enumerate(heads):
            rows = step.rows[head_of == index]
            if len(rows):
                with torch.no_grad():
                    batch = rollout(
                        step.env, head, step.x, rows=rows, context=step.context,
                        generator=step.generator,
                    )  # fmt: skip
                drawn.append(batch)
        batch = score(step.env, step.policy, concatenate(drawn))
        batch.ensure_log_reward(step.reward)

        # The heads' P_B is fixed, even where the policy learns one.
        objective = VarGrad(default_backward_policy(step.env))
        optimizer.zero_grad()
        for head in heads:
            lesson = select(batch, bootstrapped(batch, self.bootstrap, step.generator))
            if len(lesson):
                score(step.env, head, lesson)
                objective.loss(step.env, head, lesson).loss.backward()
        optimizer.step()
        return batch

    def _made(self, step: TrainingStep) -> tuple[list["ThompsonHead"], torch.optim.Optimizer]:
        """Returns the heads and their optimizer, making them the first time."""
        if self.heads is None or self.optimizer is None:
            self.heads = [make_head(step.policy, self.prior_scale) for _ in range(self.num_heads)]
            learned = [p for head in self.heads for p in head.learned.parameters()]
            self.optimizer = torch.optim.Adam(learned, lr=self.learning_rate, fused=True)
            if self._resumed:
                for head, state in zip(self.heads, self._resumed["heads"], strict=True):
                    head.load_state_dict(state)
                self.optimizer.load_state_dict(self._resumed["optimizer"])
            else:
                for head in self.heads:
                    initialise(head, step.generator)
        return self.heads, self.optimizer

    def state_dict(self) -> dict[str, Any]:
        """Returns the heads and their training, if it has begun; see `Exploration.state_dict`."""
        if self.heads is None or self.optimizer is None:
            return self._resumed
        heads = [head.state_dict() for head in self.heads]
        return copy.deepcopy({"heads": heads, "optimizer": self.optimizer.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned; the next update makes the heads of it."""
        self._resumed = copy.deepcopy(state)
        self.heads = self.optimizer = None


class ThompsonHead(Policy):
    """A policy that learns, plus a fixed one: logits of the first + scale * logits of the second.

    Osband, Aslanides, Cassirer: "Randomized prior functions for deep reinforcement learning",
    NeurIPS 2018. The fixed one is the prior: what it says holds until data say otherwise.

    Attributes:
        learned: The policy that learns.
        prior: The one that does not; of the same kind.
        prior_scale: What its logits are multiplied by.
    """

    def __init__(self, learned: Policy, prior: Policy, prior_scale: float) -> None:
        super().__init__()
        self.learned = learned
        self.prior = prior.requires_grad_(False)
        self.prior_scale = prior_scale

    def encode(self, x: Tensor) -> Memory:
        """Reads x for both; see `Policy.encode`."""
        return self.learned.encode(x), self.prior.encode(x)

    def logits(self, state: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Adds the two policies' logits, float `[N, A + 1]`; see `Policy.logits`."""
        learned = self.learned.logits(state, memory[0], rows)
        return self._added(learned, self.prior.logits(state, memory[1], rows))

    def _added(self, learned: Tensor, prior: Tensor) -> Tensor:
        """Adds the scaled logits of the prior."""
        return learned + self.prior_scale * prior


class CachedThompsonHead(ThompsonHead):
    """A head of policies that decode with a cache (`CachedDecoding`), and so does it."""

    learned: Any
    prior: Any

    def begin(self, memory: Memory, rows: Tensor) -> tuple[Any, Tensor]:
        """Starts N trajectories; the carry is that of both. See `CachedDecoding.begin`."""
        carry, learned = self.learned.begin(memory[0], rows)
        prior_carry, prior = self.prior.begin(memory[1], rows)
        return (carry, prior_carry), self._added(learned, prior)

    def advance(self, carry: Any, action: Tensor) -> tuple[Any, Tensor]:
        """Takes one action `[N]` in each; see `CachedDecoding.advance`."""
        following, learned = self.learned.advance(carry[0], action)
        prior_following, prior = self.prior.advance(carry[1], action)
        return (following, prior_following), self._added(learned, prior)

    def trajectory_logits(self, actions: Tensor, memory: Memory, rows: Tensor) -> Tensor:
        """Scores actions `[T, N]` in one pass; see `CachedDecoding.trajectory_logits`."""
        learned = self.learned.trajectory_logits(actions, memory[0], rows)
        return self._added(learned, self.prior.trajectory_logits(actions, memory[1], rows))


def make_head(policy: Policy, prior_scale: float) -> ThompsonHead:
    """Makes a head of two copies of a policy, which `initialise` then makes different."""
    kind = CachedThompsonHead if supports(type(policy), CachedDecoding) else ThompsonHead
    return kind(copy.deepcopy(policy), copy.deepcopy(policy), prior_scale)


def initialise(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draws the parameters of every layer anew, by its `reset_parameters` as PyTorch's have it.

    Output layers that the policy starts at zero become random too. Parameters that belong to no
    such layer stay as they are.

    Args:
        module: What to initialise.
        generator: Source of randomness; the global one is left as it is, unless this is None.

    Raises:
        UserError: If no layer can be initialised.
    """
    layers: list[Any] = [part for part in module.modules() if hasattr(part, "reset_parameters")]
    if not layers:
        raise UserError(
            "Thompson needs a policy whose layers can be initialised anew: none of this one's has "
            "reset_parameters."
        )
    device = "cpu" if generator is None else generator.device
    seed = torch.randint(2**62, (), generator=generator, device=device)
    # `reset_parameters` takes no generator.
    with torch.random.fork_rng():
        torch.manual_seed(int(seed))
        for layer in layers:
            layer.reset_parameters()


def bootstrapped(
    batch: TrajectoryBatch, probability: float, generator: torch.Generator | None
) -> Tensor:
    """Draws the trajectories that one head learns from.

    Args:
        batch: The trajectories.
        probability: That of each to be taken in.
        generator: Source of randomness.

    Returns:
        bool `[N]`. An observation's only trajectory is left out: it has no other to be compared
        with.
    """
    chance = torch.rand(len(batch), generator=generator, device=batch.rows.device)
    included = chance < probability
    number = torch.bincount(batch.rows[included], minlength=len(batch.x))
    return included & (number > 1)[batch.rows]
