"""torchgfn's own samplers, estimators and losses on TorchGFNEnv."""

import logging

import gymnasium
import pytest
import torch
from gfn.estimators import (
    ConditionalDiscretePolicyEstimator,
    ConditionalLogZEstimator,
    ConditionalScalarEstimator,
)
from gfn.gflownet import DBGFlowNet, FMGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.preprocessors import IdentityPreprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import MLP
from torch import nn

from gfn_envs import BottomUpTree, FactoredCategorical, TopDownTree, UserError
from gfn_envs.torchgfn import CONDITION_LIMIT, StaleBatchError, TorchGFNEnv
from lvms.hierarchical_mixture import HierarchicalGaussianMixture
from lvms.reward import LVMReward
from tests.envs import Sequences, SequencesOfLength

pytestmark = pytest.mark.xdist_group("torchgfn")

X = torch.tensor([[1.0, 0.3], [3.0, -0.5], [2.0, 0.8], [0.0, 0.1]])
LATENT_ENVS = {
    "fixed": lambda: FactoredCategorical([2, 3]),
    "any": lambda: FactoredCategorical([2, 3], order="any"),
    "optional exit": lambda: Sequences(3, 2),
    "context": lambda: SequencesOfLength(3, 2),
    "bottom-up": lambda: BottomUpTree(4, 2),
    "top-down": lambda: TopDownTree(4, 2),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors here are tiny: more threads made the training tests ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def length_of(x):
    return x[:, :1].long()


def words_of(x):
    return 2 + length_of(x) % 3


CONTEXT_OF = {"context": length_of, "bottom-up": words_of, "top-down": words_of}


def log_reward(x, z):
    return -0.3 * (z - x[:, 1:]).square().sum(-1)


def make_env(name, conditions="rows", **kwargs):
    latent = LATENT_ENVS[name]()
    kwargs = {"log_reward": log_reward, "context_of": CONTEXT_OF.get(name), **kwargs}
    return TorchGFNEnv(latent, conditions=conditions, **kwargs)


class LookUp(nn.Module):
    """What a user writes for torchgfn's conditional estimators in mode `rows`."""

    def __init__(self, env, module):
        super().__init__()
        self.env = env
        self.module = module

    def forward(self, conditions):
        x, rows, _ = self.env.observations(conditions)
        return self.module(x)[rows]


def stock_estimators(env, x_size=2):
    """P_F, P_B, log F and log Z, of torchgfn's classes alone."""

    def read_x(size):
        module = MLP(x_size, size, hidden_dim=16)
        return module if env.condition_mode == "x" else LookUp(env, module)

    def parts(outputs):
        return {
            "state_module": MLP(env.state_shape[0], 16, hidden_dim=16),
            "condition_module": read_x(16),
            "final_module": MLP(32, outputs, hidden_dim=32),
            "preprocessor": IdentityPreprocessor(env.state_shape[0], target_dtype=torch.float),
        }

    pf = ConditionalDiscretePolicyEstimator(**parts(env.n_actions), n_actions=env.n_actions)
    pb = ConditionalDiscretePolicyEstimator(
        **parts(env.n_actions - 1), n_actions=env.n_actions, is_backward=True
    )
    log_z = read_x(1)
    log_z.input_dim = x_size
    return pf, pb, ConditionalScalarEstimator(**parts(1)), ConditionalLogZEstimator(log_z)


LOSSES = {
    "TB": lambda pf, pb, log_f, log_z: TBGFlowNet(pf, pb, logZ=log_z, debug=True),
    "DB": lambda pf, pb, log_f, log_z: DBGFlowNet(pf, pb, log_f, debug=True),
    "forward-looking DB": lambda pf, pb, log_f, log_z: DBGFlowNet(
        pf, pb, log_f, forward_looking=True
    ),
    "SubTB": lambda pf, pb, log_f, log_z: SubTBGFlowNet(pf, pb, log_f),
    "forward-looking SubTB": lambda pf, pb, log_f, log_z: SubTBGFlowNet(
        pf, pb, log_f, forward_looking=True
    ),
}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("mode", ["rows", "x"])
@pytest.mark.parametrize("name", LATENT_ENVS)
def test_stock_samplers_and_losses_run(name, mode, debug, caplog):
    torch.manual_seed(0)
    env = make_env(name, mode, debug=debug)
    conditions = env.bind(X).repeat(4, 1)
    estimators = stock_estimators(env)
    with caplog.at_level(logging.WARNING):
        trajectories = Sampler(estimators[0]).sample_trajectories(
            env, n=16, conditions=conditions, save_logprobs=True
        )
        z = trajectories.terminating_states
        context = CONTEXT_OF[name](X).repeat(4, 1) if name in CONTEXT_OF else torch.zeros(16, 0)
        assert env.latent_env.is_complete(z.tensor, context).all()
        assert torch.equal(trajectories.log_rewards, log_reward(X.repeat(4, 1), z.tensor))
        back = Sampler(estimators[1]).sample_trajectories(env, states=z, conditions=conditions)
        there = back.reverse_backward_trajectories()
        assert torch.equal(there.terminating_states.tensor, z.tensor)
        for make_loss in LOSSES.values():
            loss = make_loss(*estimators)
            for sample in (trajectories, there):
                value = loss.loss_from_trajectories(env, sample, recalculate_all_logprobs=True)
                assert value.isfinite()
                value.backward()
    spam = [r for r in caplog.records if "Inconsistent conditions" in r.getMessage()]
    assert not spam


@pytest.mark.parametrize("name", ["fixed", "any"])
def test_flow_matching_runs(name):
    torch.manual_seed(0)
    env = make_env(name, "x")
    pf = stock_estimators(env)[0]
    trajectories = Sampler(pf).sample_trajectories(env, conditions=env.bind(X), n=4)
    assert FMGFlowNet(pf).loss_from_trajectories(env, trajectories).isfinite()


@pytest.mark.parametrize("mode", ["rows", "x"])
@pytest.mark.parametrize("name", LATENT_ENVS)
def test_masks_are_the_latent_environments(name, mode):
    env = make_env(name, mode)
    latent = env.latent_env
    conditions = env.bind(X)
    for row, condition in enumerate(conditions):
        context_row = CONTEXT_OF[name](X)[row] if name in CONTEXT_OF else torch.zeros(0)
        z = latent.enumerate_states(context_row)
        context = context_row.repeat(len(z), 1)
        states = env.states_from_tensor(z, condition.repeat(len(z), 1))
        forward = states.forward_masks
        assert torch.equal(forward[:, :-1], latent.forward_mask(z, context))
        assert torch.equal(forward[:, -1], latent.is_complete(z, context))
        assert torch.equal(states.backward_masks, latent.backward_mask(z, context))


@pytest.mark.parametrize("mode", ["rows", "x"])
@pytest.mark.parametrize("name", LATENT_ENVS)
def test_sink_states_have_empty_masks(name, mode):
    env = make_env(name, mode)
    conditions = env.bind(X)
    sinks = env.reset((4,), sink=True, conditions=conditions)
    assert sinks.forward_masks.shape == (4, env.n_actions)
    assert not sinks.forward_masks.any()
    assert not sinks.backward_masks.any()
    # Trajectories of unequal length that torchgfn joins: their padding is conditioned on -inf.
    states = env.reset((1, 4), conditions=conditions[None])
    states.pad_dim0_with_sf(3)
    assert states.forward_masks.shape == (3, 4, env.n_actions)
    assert states.forward_masks[0].any(-1).all()
    assert not states.forward_masks[1:].any()
    assert not states.backward_masks.any()


@pytest.mark.parametrize("mode", ["rows", "x"])
def test_joined_trajectories_of_unequal_length_are_scored(mode):
    torch.manual_seed(0)
    env = make_env("context", mode)
    conditions = env.bind(X)
    pf, pb, _, log_z = stock_estimators(env)
    sampler = Sampler(pf)
    short = sampler.sample_trajectories(env, n=1, conditions=conditions[:1])
    long = sampler.sample_trajectories(env, n=1, conditions=conditions[1:2])
    loss = TBGFlowNet(pf, pb, logZ=log_z)
    apart = [loss.loss(env, t).item() for t in (short, long)]
    short.extend(long)
    assert short.terminating_idx.tolist() == [2, 4]
    assert loss.loss(env, short).item() == pytest.approx(sum(apart) / 2, rel=1e-5)


def test_conditions_name_rows_of_the_current_batch():
    env = make_env("fixed")
    first, second = env.bind(X), env.bind(X[:2])
    assert first.dtype == torch.get_default_dtype()
    assert first.shape == (4, 1)
    assert not set(first.flatten().tolist()) & set(second.flatten().tolist())
    assert env.rows_of(second.flip(0)[:, None]).tolist() == [[1], [0]]
    x, rows, context = env.observations(second)
    assert torch.equal(x, X[:2])
    assert rows.tolist() == [0, 1]
    assert context.shape == (2, 0)


def test_stale_conditions_raise():
    env = make_env("context")
    stale = env.bind(X)
    states = env.states_from_tensor(torch.tensor([[0, -1, -1]]), stale[:1])
    assert states.forward_masks.tolist() == [[False, False, True]]
    env.bind(X.flip(0))
    states = env.states_from_tensor(states.tensor, stale[:1])
    for use in (
        lambda: env.rows_of(stale),
        lambda: env.log_reward(states),
        lambda: env.log_reward(env.reset((1,)), stale[:1]),
        lambda: states.forward_masks,
        lambda: states.backward_masks,
        lambda: env._step(states, env.actions_from_tensor(torch.tensor([[0]]))),
    ):
        with pytest.raises(StaleBatchError, match="since they were made"):
            use()


def test_stale_conditions_raise_for_a_sink_free_batch_only():
    env = make_env("context")
    stale = env.bind(X)
    env.bind(X)
    assert not env.reset((4,), sink=True, conditions=stale).forward_masks.any()


def test_condition_numbers_stay_exact_and_wrap_round():
    env = make_env("fixed")
    env._next_number = CONDITION_LIMIT - 5
    last = env.bind(X)
    assert last.flatten().tolist() == [CONDITION_LIMIT - 5 + i for i in range(4)]
    assert env.rows_of(last).tolist() == [0, 1, 2, 3]
    wrapped = env.bind(X)
    assert wrapped.flatten().tolist() == [0, 1, 2, 3]
    with pytest.raises(StaleBatchError):
        env.rows_of(last)


def test_x_mode_gives_x_back_in_its_own_shape_and_type():
    env = TorchGFNEnv(Sequences(3, 2), lambda x, z: x[:, 0, 1].float(), conditions="x")
    x = torch.arange(12).view(2, 3, 2)
    conditions = env.bind(x)
    assert conditions.shape == (2, 6)
    assert torch.equal(env.observations(conditions.flip(0)).x, x.flip(0))
    assert env.log_reward(env.reset((2,), conditions=conditions)).tolist() == [1.0, 7.0]
    env.bind(x[:1])  # nothing to go stale
    assert env.log_reward(env.reset((2,), conditions=conditions)).tolist() == [1.0, 7.0]
    with pytest.raises(UserError, match="name no rows"):
        env.rows_of(conditions)


@pytest.mark.parametrize("mode", ["rows", "x"])
def test_conditions_are_drawn_from_the_current_batch(mode):
    env = make_env("fixed", mode)
    with pytest.raises(UserError, match="bind"):
        env.reset((3,))
    env.bind(X)
    conditions = env.bind(X[:3])
    drawn = env.reset((200,)).conditions
    assert drawn.unique(dim=0).tolist() == conditions.unique(dim=0).tolist()
    again = [env.sample_conditions(50, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*again)


def test_what_cannot_be_shown_is_refused():
    assert TorchGFNEnv("gfn_envs/FactoredCategorical-v0").n_actions == 5
    for foreign in ("CartPole-v1", gymnasium.make("CartPole-v1")):
        with pytest.raises(UserError, match="backward"):
            TorchGFNEnv(foreign)
    with pytest.raises(UserError, match="no latent environment"):
        TorchGFNEnv("gfn_envs/NoSuch-v0")
    with pytest.raises(UserError, match="LatentEnv"):
        TorchGFNEnv(3)
    with pytest.raises(UserError, match="Known: rows, x"):
        TorchGFNEnv(Sequences(), conditions="y")
    with pytest.raises(UserError, match="context_of"):
        TorchGFNEnv(SequencesOfLength())
    env = TorchGFNEnv(Sequences())
    with pytest.raises(UserError, match="got 0"):
        env.bind(X[:0])
    states = env.reset((4,), conditions=env.bind(X))
    with pytest.raises(UserError, match="log_reward="):
        env.log_reward(states)
    bare = make_env("context")
    bare.bind(X)
    with pytest.raises(UserError, match="no conditions"):
        _ = bare.states_from_tensor(torch.full((1, 3), -1)).forward_masks


@pytest.mark.parametrize("wrap", [LVMReward, lambda model: model.log_joint])
def test_the_e_step_does_not_reach_the_model(wrap):
    torch.manual_seed(0)
    model = HierarchicalGaussianMixture([2, 2])
    env = TorchGFNEnv(model.env, wrap(model), context_of=model.context)
    pf, _, _, log_z = stock_estimators(env)
    conditions = env.bind(model.sample(8)[0])
    trajectories = Sampler(pf).sample_trajectories(env, n=8, conditions=conditions)
    TBGFlowNet(pf, None, logZ=log_z, constant_pb=True).loss(env, trajectories).backward()
    assert not trajectories.log_rewards.requires_grad
    assert model.means.grad is None
    assert all(p.grad is not None for p in pf.parameters())


def test_stock_training_reaches_the_posterior():
    torch.manual_seed(0)
    model = HierarchicalGaussianMixture([2, 2], scale=1.0)
    env = TorchGFNEnv(model.env, LVMReward(model), conditions="x")
    x = torch.tensor([[0.5, 1.0], [-0.5, 0.3], [0.1, -2.0]])
    z = model.env.enumerate(torch.zeros(0))
    posterior = model.log_leaf_joint(x).softmax(-1).detach()
    pf, _, _, log_z = stock_estimators(env)
    gflownet = TBGFlowNet(pf, None, logZ=log_z, constant_pb=True)
    optimizer = torch.optim.Adam(
        [
            {"params": gflownet.pf_pb_parameters(), "lr": 1e-2},
            {"params": gflownet.logz_parameters(), "lr": 3e-2},
        ]
    )
    conditions = env.bind(x)

    def next_probs(state):
        states = env.states_from_tensor(torch.tensor([state]).repeat(3, 1), conditions)
        return pf.to_probability_distribution(states, pf(states, conditions)).probs

    def total_variation():
        first = next_probs([-1, -1])
        q = torch.stack([first[:, a] * next_probs([a, -1])[:, b] for a, b in z.tolist()], -1)
        return 0.5 * (q - posterior).abs().sum(-1).mean().item()

    before = total_variation()
    batch = conditions.repeat(8, 1)
    for _ in range(200):
        trajectories = gflownet.sample_trajectories(
            env, n=len(batch), conditions=batch, save_logprobs=True, epsilon=0.1
        )
        loss = gflownet.loss(env, trajectories)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before > 0.2
    assert total_variation() < 0.05
