"""GFlowNet-EM on grammars: what its methods are made of, and how their policies are measured."""

import math
from copy import deepcopy

import pytest
import torch

from algorithms.backward_policy import LearnedBackward
from algorithms.chart_policy import ChartPolicy
from algorithms.forward_looking import ForwardLookingSubTrajectoryBalance
from algorithms.minibatch_em import MinibatchEM
from algorithms.mlp_policy import MLPPolicy
from algorithms.sleep_phase import SleepPhase
from algorithms.tree_policies import tree_policies
from algorithms.vargrad import VarGrad
from benchmarks.grammar.gflownet_methods import ALTERNATIONS, KERNELS, gflownet_em, paper
from benchmarks.grammar.judgement import KL_TREES, posterior_kl
from benchmarks.grammar.methods import grammar_methods
from benchmarks.grammar.problem import Problem
from benchmarks.run_folder import RunFolder
from benchmarks.runner import run_task
from gfn_envs.bottom_up_tree import BottomUpTree
from gfn_envs.errors import UserError
from gfn_envs.top_down_tree import TopDownTree
from tests.benchmarks.grammar_runs import start, tables, tiny_task, write_treebank

METHODS = tuple(name for name in grammar_methods if "gflownet" in name)
BOTTOM_UP = ("gflownet-em-paper",)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_treebank(tmp_path_factory.mktemp("data") / "animals")


def make(data, method="gflownet-em", **changes):
    task = tiny_task(data, methods=(method,), **changes)
    return task, task.make_learner(task.cells[0])


def problem(x, max_words=4, num_updates=40):
    return Problem(
        x=x, num_updates=num_updates, rounds=2, batch_size=4,
        generator=torch.Generator().manual_seed(0), vocabulary=5, max_words=max_words, min_words=2,
        nonterminals=2, preterminals=3, dim=4, rate=5e-3, tree="bottom-up", start=0,
    )  # fmt: skip


def sentences():
    return torch.tensor([[0, 1, 2, 3], [4, 2, -1, -1], [1, 1, 0, -1]])


def weights(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


# -- what methods are made of ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tree", ["top-down", "bottom-up"])
def test_a_method_chooses_how_trees_are_built(data, method, tree):
    _, learner = make(data, method, tree=tree)
    env = TopDownTree if method not in BOTTOM_UP else BottomUpTree
    assert isinstance(learner.model.env, env)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_go_where_they_should(data, method):
    task, learner = make(data, method)
    own, x = learner.learner, task.corpus.train.words[:8]
    assert isinstance(own, MinibatchEM)
    shared = {id(p) for p in own.policy.parameters()} & {id(p) for p in own.model.parameters()}
    assert not shared
    for _ in range(2):  # the first moves the zero heads, the second all that stands before them
        before, model_before = weights(own.policy), weights(own.model)
        own.policy_update(x, torch.arange(8))
    after = weights(own.policy)
    for name, value in before.items():
        if name.startswith("flow") and isinstance(own.objective, VarGrad):
            continue  # flows of their own, which VarGrad does without
        assert not torch.equal(value, after[name]), name
    assert all(torch.equal(value, weights(own.model)[n]) for n, value in model_before.items())
    own.model_update(x)
    assert all(torch.equal(value, weights(own.policy)[n]) for n, value in after.items())
    assert any(not torch.equal(v, weights(own.model)[n]) for n, v in model_before.items())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("alternation", ALTERNATIONS)
def test_every_m_step_and_alternation_goes_together(kernel, alternation):
    x = sentences()
    learner = gflownet_em(
        problem(x), m_step="improved", kernel=kernel, alternation=alternation, m_samples_per_x=2
    )
    metrics = learner.update(x.repeat(4, 1))
    assert all(math.isfinite(value) for value in metrics.values())
    assert learner.model.version > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alternation": "turn"}, "There is no alternation 'turn'. Did you mean turns"),
        ({"m_step": "improved", "kernel": "gibs"}, "There is no kernel 'gibs'. Did you mean gibbs"),
        ({"objective": "span-bd"}, "There is no objective 'span-bd'. Did you mean span-db"),
        ({"policy": "charts"}, "There is no tree policy 'charts'. Did you mean chart"),
        ({"exploration": "on-polcy"}, "There is no exploration 'on-polcy'"),
        ({"m_step": "some"}, "There is no M-step 'some'"),
    ],
)
def test_wrong_settings_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        gflownet_em(problem(sentences()), **settings)


class LittleForestPolicy(MLPPolicy):
    """Stands in for a large network: anything that flows and goes back and forth."""

    def __init__(self, model):
        super().__init__(model.env, x_size=model.max_words)

    def encode(self, x):
        return super().encode(x.float())


def test_the_papers_devices_work_together(monkeypatch):
    x = sentences()
    monkeypatch.setattr(tree_policies, "_entries", dict(tree_policies._entries))
    name = f"{__name__}:LittleForestPolicy"
    tree_policies._entries.pop("forest", None)
    tree_policies.register("forest", name)
    learner = paper(problem(x, num_updates=80))
    assert isinstance(learner.model.env, BottomUpTree)
    assert isinstance(learner.objective, ForwardLookingSubTrajectoryBalance)
    assert learner.objective.lambda_ == 1.0
    assert isinstance(learner.objective.backward, LearnedBackward)
    assert learner.exploration.temperature.at(0) == 1.1
    assert learner.sleep == SleepPhase(1.0, 10.0)
    assert (learner.m_step, learner.m_samples_per_x) == ("improved", 1)
    assert (learner.kernel.policy, learner.kernel.moves) == (learner.policy, 10)
    assert [learner.alternation.bound.at(step) for step in (0, 20, 40, 99)] == [6, 4.5, 3, 3]
    assert learner.policy_optimizer._rates[0].at(0) == 1e-4
    for _ in range(2):
        metrics = learner.update(x.repeat(4, 1))
    assert all(math.isfinite(value) for value in metrics.values())
    # An E-step has at most a twentieth of the updates.
    assert learner.model.version >= 80 // 5


# -- how policies are measured --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pcfg", "ncfg"])
def test_the_kl_is_that_of_all_trees(kind):
    x = sentences()
    learner = gflownet_em(problem(x), kind)
    learner.update(x.repeat(4, 1))
    model, policy = learner.model, learner.policy
    with torch.no_grad():  # a policy that is not nearly right
        generator = torch.Generator().manual_seed(0)
        policy.head.weight.normal_(0, 0.3, generator=generator)
    for row in x.split(1):
        context = model.context(row)
        z = model.env.enumerate(context[0])
        many = row.expand(len(z), -1)
        with torch.no_grad():
            memory = policy.encode(row)
            rows = torch.zeros(len(z), dtype=torch.int64)
            log_q = policy.score_structures(z, memory, rows).sum(0).double()
            log_p = model.posterior_log_prob(many, z).double()
            exact = (log_q.exp() * (log_q - log_p)).sum()
            spread = ((log_q.exp() * (log_q - log_p).square()).sum() - exact**2).sqrt()
            log_partition = model.log_marginal(row).double()
        assert log_q.exp().sum() == pytest.approx(1, abs=1e-5)
        times = 500
        found = posterior_kl(
            learner, model, policy, row.expand(times, -1), log_partition.expand(times)
        )
        assert found.shape == (times,)
        error = spread.item() / (times * KL_TREES) ** 0.5
        assert found.mean().item() == pytest.approx(exact.item(), abs=4 * error + 1e-5)


def test_the_policy_of_the_best_weights_belongs_to_their_grammar(data):
    task, learner = make(data)
    x = task.corpus.train.words
    learner.update(x)
    learner.validate()
    best = learner.copy_of_best()
    model, policy = best["model"], best["policy"]
    assert isinstance(policy, ChartPolicy)
    assert policy.rules.grammar is model
    assert policy.rules.grammar is not learner.model
    assert learner.learner.policy.rules.grammar is learner.model
    # It follows the copy's rules, and nothing that becomes of the original.
    test = task.judges.test.words[:6]
    memory = policy.encode(test)
    learner.update(x)
    torch.testing.assert_close(
        policy.log_partition(policy.encode(test)), policy.log_partition(memory)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model.mark_updated()
    assert (
        policy.log_partition(policy.encode(test)) - policy.log_partition(memory)
    ).abs().max() > 0.01


def test_the_best_weights_are_judged_with_their_policy(data):
    task, learner = make(data)
    x = task.corpus.train.words
    learner.update(x)
    learner.validate()
    expected = learner.judge()
    learner._best["nll"] = -math.inf  # none will be better
    learner.update(x)
    learner.validate()
    saved = deepcopy(learner.state_dict())
    for one in (learner, task.make_learner(task.cells[0])):
        one.load_state_dict(saved)
        for name, values in one.judge().items():
            assert torch.equal(values, expected[name]), name


def test_the_kl_is_in_the_log_the_summary_and_the_table(tmp_path, data):
    methods = ("gflownet-em", "marginalisation")
    task, folder = start(tmp_path / "run", data, methods=methods)
    run_task(task, folder)
    (rows, _) = tables(folder.path)
    for cell in task.cells:
        cell_folder = RunFolder(folder.path / cell.folder)
        measured = [line.get("kl") for line in cell_folder.read_metrics()]
        metrics = cell_folder.read_json("summary.json")["metrics"]
        each = cell_folder.read_json("per-sentence.json")
        shown = rows[cell.method]["posterior KL"]
        if cell.method == "marginalisation":
            assert measured == [None, None]
            assert "kl" not in metrics
            assert "kl" not in each
            assert shown == "-"
            continue
        kl = metrics["kl"]
        assert kl["n"] == len(each["kl"]) == len(task.judges.test)
        # At least 0, but for the error of the trees drawn.
        for mean in (*measured, kl["mean"]):
            assert -0.3 < mean < 20
        assert shown == f"{kl['mean']:.2f}"


# -- learning -------------------------------------------------------------------------------------


def test_its_grammar_learns_phrases_from_words_alone(data):
    task, learner = make(data, updates=(300,), rounds=2, preterminals=6)
    for _ in range(2):
        learner.update(task.corpus.train.words)
    found = learner.validate()
    train, validation = (
        part.words[part.words >= 0] for part in (task.corpus.train, task.judges.validation)
    )
    unigram = -(train.bincount() / len(train))[validation].log().mean().item()
    assert found["nll"] < unigram - 0.5
    assert found["kl"] < 1
