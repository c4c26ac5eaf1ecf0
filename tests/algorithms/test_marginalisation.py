import copy

import pytest
import torch

from algorithms.e_step import ExactEStep
from algorithms.em import EM
from algorithms.m_step import GradientAscent
from algorithms.marginalisation import Marginalisation
from gfn_envs import FactoredCategorical, UserError
from lvms import HiddenMarkovModel, SigmoidBeliefNet
from tests.algorithms.models import TableModel


def started(model_type, seed=0):
    """A model at its start and data from another one of its kind."""
    truth = {
        "hmm": lambda: HiddenMarkovModel(3, 3, scale=0.5),
        "sbn": lambda: SigmoidBeliefNet(3, 6, scale=2.0, seed=1),
    }[model_type]
    x = truth().sample(200, torch.Generator().manual_seed(seed))[0]
    model = truth()
    model.start_at_data(x, torch.Generator().manual_seed(seed))
    return model, x


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("model_type", ["hmm", "sbn"])
def test_it_is_exact_em_with_one_gradient_step_an_e_step(model_type):
    (ours, x), (theirs, _) = started(model_type), started(model_type)
    marginalisation = Marginalisation(ours, sgd(ours), x, steps=5)
    em = EM(theirs, ExactEStep(theirs), GradientAscent(sgd(theirs), theirs))
    for _ in range(3):
        marginalisation.update(x)
        for _ in range(5):
            em.update(x)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=0, atol=1e-4)
    assert marginalisation.likelihood_evaluations == em.likelihood_evaluations
    assert ours.version == 1 + 3  # the start is one


def test_a_model_without_inference_of_its_own_is_enumerated():
    model = TableModel(FactoredCategorical((2, 3)))
    x = model.observations()
    learner = Marginalisation(model, torch.optim.SGD(model.parameters(), lr=0.1), x, steps=2)
    losses = [learner.update(x)["loss"] for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_it_goes_on_where_it_was_saved():
    (model, x), (again, _) = started("sbn"), started("sbn")
    whole = Marginalisation(model, torch.optim.Adam(model.parameters()), x)
    whole.update(x)
    resumed = Marginalisation(again, torch.optim.Adam(again.parameters()), x)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert resumed.update(x) == whole.update(x)
    assert resumed.likelihood_evaluations == whole.likelihood_evaluations == 2 * 20 * 200 * 8
    assert torch.equal(model.weight, again.weight)


def test_too_many_structures_are_refused():
    model = HiddenMarkovModel(8, 3)
    with pytest.raises(UserError, match="6,561 structures are too many"):
        Marginalisation(model, sgd(model), torch.zeros(2, 8))
