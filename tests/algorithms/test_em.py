import io
import itertools

import pytest
import torch

from algorithms.alternation import FixedUpdates, LossThreshold
from algorithms.e_step import ExactEStep, MeanFieldEStep, MetropolisEStep
from algorithms.em import EM
from algorithms.exploration import EpsilonUniform
from algorithms.gflownet_e_step import OPTIMIZERS, GFlowNetEStep
from algorithms.m_step import ClosedForm, GradientAscent
from algorithms.mlp_policy import MLPPolicy
from algorithms.policy_distribution import policy_log_probs
from algorithms.residual_loss import Huber
from algorithms.schedule import Linear
from algorithms.sleep_phase import SleepPhase
from algorithms.trajectory_balance import TrajectoryBalance
from algorithms.vargrad import VarGrad
from gfn_envs import FactoredCategorical, UserError
from lvms import EnumeratedPosterior, HierarchicalGaussianMixture
from lvms.data.points import synthetic_square
from tests.algorithms.models import TableModel

POINTS = synthetic_square(600, seed=0).train


def started_model(seed=0, **settings):
    model = HierarchicalGaussianMixture(**settings)
    model.start_at_data(POINTS, torch.Generator().manual_seed(seed))
    return model


def gflownet(model, generator, **settings):
    torch.manual_seed(0)
    policy = MLPPolicy(model.env, x_size=2, hidden=64)
    defaults = {
        "objective": VarGrad(residual_loss=Huber(5.0)),
        "exploration": EpsilonUniform(0.1),
        "batch_size": 256,
    }
    return GFlowNetEStep(model, policy, generator=generator, **{**defaults, **settings})


def make_em(method, seed=0, m_step="closed-form", **settings):
    model, generator = started_model(seed), torch.Generator().manual_seed(seed)
    e_step = {
        "exact": lambda: ExactEStep(model),
        "mean-field": lambda: MeanFieldEStep(model, sweeps=5),
        "monte-carlo": lambda: MetropolisEStep(model, 5, generator=generator),
        "gflownet": lambda: gflownet(model, generator, **settings),
    }[method]()
    if m_step == "gradient":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
        return EM(model, e_step, GradientAscent(optimizer, model, steps=2), generator=generator)
    return EM(model, e_step, ClosedForm(model), generator=generator)


def mean_log_likelihood(em):
    with torch.no_grad():
        return em.model.log_marginal(POINTS).mean().item()


def textbook_em_iteration(means, model, x):
    """One EM iteration on the super-means, written out with loops over components."""
    table = torch.empty(len(x), 4, 4, dtype=torch.float64)
    offsets = model.offset(torch.stack([torch.zeros(4, dtype=torch.int64), torch.arange(4)], 1))
    for i in range(4):
        for j in range(4):
            distance = (x - means[i] - offsets[j]).square().sum(1)
            table[:, i, j] = -distance / (2 * 0.25**2)
    responsibility = table.flatten(1).softmax(1).view_as(table)
    new = torch.empty_like(means)
    for i in range(4):
        weight = responsibility[:, i, :, None]
        new[i] = (weight * (x[:, None] - offsets)).sum((0, 1)) / weight.sum((0, 1))
    return new


def test_exact_em_is_the_textbook_algorithm():
    em = make_em("exact")
    for _ in range(5):
        expected = textbook_em_iteration(em.model.means.detach().clone(), em.model, POINTS)
        em.update(POINTS)
        torch.testing.assert_close(em.model.means.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("m_step", ["closed-form", "gradient"])
def test_exact_em_never_loses_likelihood(m_step):
    em = make_em("exact", seed=3, m_step=m_step)
    if m_step == "gradient":
        em.m_step.optimizer.param_groups[0].update(lr=0.02, momentum=0.0)
    values = [mean_log_likelihood(em)]
    for _ in range(12):
        em.update(POINTS)
        values.append(mean_log_likelihood(em))
    assert all(after > before - 1e-5 for before, after in itertools.pairwise(values))
    assert values[-1] > values[0] + 0.5


def test_gradient_m_step_reaches_the_closed_form():
    closed, gradient = make_em("exact"), make_em("exact", m_step="gradient")
    gradient.m_step.steps = 200
    closed.update(POINTS)
    gradient.update(POINTS)
    torch.testing.assert_close(closed.model.means, gradient.model.means, atol=1e-3, rtol=0)


def test_gflownet_em_ends_where_exact_em_does():
    exact, ours = make_em("exact", seed=1), make_em("gflownet", seed=1)
    for _ in range(25):
        exact.update(POINTS)
        ours.update(POINTS)
    assert mean_log_likelihood(ours) == pytest.approx(mean_log_likelihood(exact), abs=5e-3)
    log_q = policy_log_probs(ours.model.env, ours.e_step.policy, POINTS)
    log_p = EnumeratedPosterior(ours.model).log_posterior_table(POINTS)
    assert (log_q.exp() - log_p.exp()).abs().sum(-1).mean() / 2 < 0.05


@pytest.mark.parametrize("method", ["mean-field", "monte-carlo"])
def test_other_e_steps_improve_the_model(method):
    em = make_em(method)
    before = mean_log_likelihood(em)
    for _ in range(15):
        em.update(POINTS)
    assert mean_log_likelihood(em) > before + 0.5


VARIANTS = {
    "exact": {},
    "mean-field": {},
    "monte-carlo": {},
    "gflownet": {},
    "gflownet, trajectory balance": {"objective": TrajectoryBalance()},
    "gflownet, adaptive": {"alternation": LossThreshold(Linear(50.0, 1.0, 5), max_updates=30)},
    "gflownet, gradient": {"m_step": "gradient"},
    "gflownet, dreams": {"sleep": SleepPhase(0.5, 2.0)},
    "gflownet, muon": {"optimizer": "muon"},
}


def make_variant(name):
    settings = dict(VARIANTS[name])
    if "adaptive" in name:  # it has state: one for each learner
        settings["alternation"] = LossThreshold(Linear(50.0, 1.0, 5), max_updates=30)
    return make_em(name.partition(",")[0], **settings)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_learner_goes_on_exactly_as_it_would_have(name):
    undisturbed, interrupted, resumed = (make_variant(name) for _ in range(3))
    for _ in range(2):
        undisturbed.update(POINTS)
        interrupted.update(POINTS)
    file = io.BytesIO()
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        assert resumed.update(POINTS) == undisturbed.update(POINTS)
    assert torch.equal(resumed.model.means, undisturbed.model.means)
    assert resumed.likelihood_evaluations == undisturbed.likelihood_evaluations
    assert resumed.model.version == undisturbed.model.version


def test_a_sleep_phase_teaches_observations_that_are_not_in_the_data():
    dreams, _ = started_model().sample(200, torch.Generator().manual_seed(1))
    x, far = POINTS[POINTS[:, 0] > 0], dreams[dreams[:, 0] < 0]
    distance = {}
    for name, sleep in (("awake", None), ("dreaming", SleepPhase(1.0, 10.0))):
        model = started_model()
        e_step = gflownet(
            model, torch.Generator().manual_seed(0), alternation=FixedUpdates(150), sleep=sleep
        )
        e_step.fit(x, 0)
        assert e_step.likelihood_evaluations == 150 * min(256, len(x)) * 4  # dreams need none
        log_q = policy_log_probs(model.env, e_step.policy, far, model.context(far)[0])
        log_p = EnumeratedPosterior(model).log_posterior_table(far)
        distance[name] = (log_q.exp() - log_p.exp()).abs().sum(-1).mean().item() / 2
    assert distance["dreaming"] < 0.6 * distance["awake"]


def test_likelihood_evaluations_are_counted():
    exact, ours = make_em("exact"), make_em("gflownet")
    exact.update(POINTS)
    assert exact.likelihood_evaluations == len(POINTS) * 16
    ours.update(POINTS)
    assert ours.likelihood_evaluations == 20 * 256 * 4


def test_e_step_never_moves_theta_and_m_step_never_moves_the_policy():
    em = make_em("gflownet", m_step="gradient")
    means = em.model.means.detach().clone()
    em.e_step.fit(POINTS, 0)
    assert torch.equal(em.model.means.detach(), means)
    assert em.model.means.grad is None
    policy = [p.detach().clone() for p in em.e_step.policy.parameters()]
    em.m_step.step(POINTS, em.e_step.posterior(POINTS, 1))
    assert not torch.equal(em.model.means.detach(), means)
    for before, after in zip(policy, em.e_step.policy.parameters(), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_learning_rate_follows_its_schedule_over_m_steps(optimizer):
    """However many updates an E-step has; a resumed one has the rate of its own M-step."""
    rates = []
    e_steps = [
        gflownet(
            started_model(),
            torch.Generator().manual_seed(0),
            learning_rate=Linear(1e-2, 1e-3, 9),
            alternation=FixedUpdates(3),
            optimizer=optimizer,
        )
        for _ in range(2)
    ]
    one, resumed = e_steps
    for e_step in e_steps:
        step = e_step.optimizer.step
        e_step.optimizer.step = lambda e_step=e_step, step=step: (
            rates.append(e_step.optimizer.param_groups[0]["lr"]) or step()
        )
    for m_steps in (0, 1, 5):
        one.fit(POINTS, m_steps)
    assert rates == pytest.approx([1e-2] * 3 + [9e-3] * 3 + [5e-3] * 3)
    resumed.load_state_dict(one.state_dict())
    rates.clear()
    resumed.fit(POINTS, 20)
    assert rates == pytest.approx([1e-3] * 3)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), Linear(1e-2, -1e-2, 5)])
def test_learning_rates_are_positive(rate):
    with pytest.raises(UserError, match="learning_rate must be a positive number"):
        gflownet(started_model(), None, learning_rate=rate)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_a_power_of_the_exact_posterior_is_that_of_plain_products(beta):
    model = TableModel(FactoredCategorical((2, 3)))
    x = model.observations()
    e_step = ExactEStep(model, beta)
    found = e_step.posterior(x, 1)
    assert found.z.shape == (2, 6, 2)
    for b in range(2):
        joint = [model.log_joint(x[b : b + 1], z[None]).exp().item() for z in found.z[b]]
        posterior = [p / sum(joint) for p in joint]
        powers = [p**beta for p in posterior]
        expected = torch.tensor([p / sum(powers) for p in powers])
        torch.testing.assert_close(found.log_w[b].exp(), expected)
    assert e_step.likelihood_evaluations == 2 * 6


def test_the_power_of_the_exact_posterior_moves_with_m_steps():
    model = TableModel(FactoredCategorical((2, 3)))
    x = model.observations()
    e_step = ExactEStep(model, Linear(0.2, 1.0, 4))

    def weights_at(beta):
        return (beta * model.log_posterior()).softmax(-1)

    def weights(e_step):
        found = e_step.posterior(x, 1)
        which = (found.z[:, :, None] == model.structures).all(-1).long().argmax(-1)
        return torch.zeros(2, 6).scatter(1, which, found.log_w.exp())

    for m_steps, beta in [(0, 0.2), (1, 0.4), (4, 1.0), (9, 1.0), (2, 0.6)]:
        e_step.fit(x, m_steps)
        torch.testing.assert_close(weights(e_step), weights_at(beta))
    # Saved between an E-step and its M-step, it goes on at the same power.
    resumed = ExactEStep(model, Linear(0.2, 1.0, 4))
    assert (weights(resumed) - weights_at(0.6)).abs().max() > 0.01
    resumed.load_state_dict(e_step.state_dict())
    assert torch.equal(weights(resumed), weights(e_step))
    resumed.fit(x, 3)
    torch.testing.assert_close(weights(resumed), weights_at(0.8))


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan"), Linear(0.5, 0.0, 5)])
def test_powers_of_the_exact_posterior_are_positive(beta):
    with pytest.raises(UserError, match="beta must be a positive number"):
        ExactEStep(TableModel(FactoredCategorical((2, 3))), beta)


def test_choices_that_do_not_fit_are_refused():
    model = TableModel(FactoredCategorical((2, 2)))
    with pytest.raises(UserError, match="closed-form"):
        ClosedForm(model)
    with pytest.raises(UserError, match="mean-field"):
        MeanFieldEStep(model)
    with pytest.raises(UserError, match="at least 2 samples"):
        gflownet(started_model(), None, samples_per_x=1)
    with pytest.raises(UserError, match="Did you mean muon"):
        gflownet(started_model(), None, optimizer="muonn")
    deep = HierarchicalGaussianMixture((4,) * 7)
    with pytest.raises(UserError, match="too many"):
        ExactEStep(deep).posterior(POINTS, 1)


@pytest.mark.slow
def test_a_long_e_step_samples_the_exact_posterior():
    """Issue's figure: total variation below 0.02 after a long E-step at fixed parameters."""
    points = synthetic_square(4000, seed=0).train
    model = HierarchicalGaussianMixture()
    e_step = gflownet(model, torch.Generator().manual_seed(0), batch_size=512)
    for _ in range(50):
        e_step.fit(points, 0)
    log_q = policy_log_probs(model.env, e_step.policy, points)
    log_p = EnumeratedPosterior(model).log_posterior_table(points)
    assert (log_q.exp() - log_p.exp()).abs().sum(-1).mean() / 2 < 0.02


def test_an_m_step_may_see_some_observations_drawn_anew():
    model, generator = started_model(), torch.Generator().manual_seed(0)
    seen = []

    class Recording(ClosedForm):
        def step(self, x, samples):
            assert len(samples.z) == len(x)
            seen.append(x)
            super().step(x, samples)

    em = EM(model, ExactEStep(model), Recording(model), m_step_points=50, generator=generator)
    for _ in range(3):
        em.update(POINTS)
    assert [len(x) for x in seen] == [50, 50, 50]
    assert len(torch.cat(seen).unique(dim=0)) > 100  # of 600, drawn without replacement each time
    assert all(len(x.unique(dim=0)) == 50 for x in seen)
    EM(model, ExactEStep(model), Recording(model), m_step_points=1000).update(POINTS)
    assert torch.equal(seen[-1], POINTS)
