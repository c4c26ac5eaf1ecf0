import pytest

from algorithms.exploration import EpsilonUniform
from algorithms.explorations import explorations
from algorithms.metropolis import UniformPolicy
from algorithms.objectives import objectives
from algorithms.policies import policies
from gfn_envs import FactoredCategorical, TurtlePath, UserError
from gfn_envs.catalogue import Catalogue

# What some parts cannot do without: a model's scores, or a prior policy.
PRIOR = UniformPolicy(FactoredCategorical((2, 3)))
NEEDED = {
    "rtb": [PRIOR],
    "rtb-vargrad": [PRIOR],
    "fl-db": [lambda x, state: state.sum(-1).float()],
    "fl-subtb": [lambda x, state: state.sum(-1).float()],
    "span-db": [lambda x, z: z.float()],
}


def test_parts_are_made_with_their_defaults_and_overrides():
    assert explorations.make("epsilon-uniform").epsilon.at(0) == 0.1
    assert explorations.make("epsilon-uniform", epsilon=0.3).epsilon.at(0) == 0.3
    assert isinstance(explorations.make("epsilon-uniform"), EpsilonUniform)


@pytest.mark.parametrize("catalogue", [objectives, explorations], ids=lambda c: c.kind)
def test_every_part_can_be_made_and_describes_itself(catalogue):
    for name, entry in catalogue.items():
        assert catalogue.make(name, *NEEDED.get(name, [])) is not None
        assert entry.description.endswith(".")


def test_every_policy_can_be_made_with_a_hidden_width():
    for name, entry in policies.items():
        env = TurtlePath((2, 2), 2) if name == "turtle" else FactoredCategorical((2, 3))
        policy = policies.make(name, env, x_size=4, hidden=8)
        assert policy.read_x.out_features == 8
        assert entry.description.endswith(".")


def test_what_cannot_be_made_gets_a_clear_line():
    with pytest.raises(UserError, match=r"no objective 'vargra'. Did you mean vargrad"):
        objectives.make("vargra")
    with pytest.raises(UserError, match=r"The exploration 'on-policy' cannot be made: .*epsilon"):
        explorations.make("on-policy", epsilon=0.1)
    with pytest.raises(UserError, match=r"'fl-db' cannot be made: .*log_partial"):
        objectives.make("fl-db")
    with pytest.raises(UserError, match="must be a string 'module:attribute'"):
        Catalogue("thing").register("a", "b")
    assert "vargra" not in objectives
