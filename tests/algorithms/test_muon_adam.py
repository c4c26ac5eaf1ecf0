import math

import pytest
import torch
from torch import nn

from algorithms.muon_adam import MuonAdam
from gfn_envs import UserError

RATE = 1e-2


class Network(nn.Module):
    """A matrix that Muon moves, and an embedding, biases and a layer without gradient."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 6)
        self.layer = nn.Linear(6, 24)
        self.unused = nn.Linear(3, 3)

    def loss(self):
        return (self.layer(self.embedding.weight) - 1).square().mean()


def step_of(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = MuonAdam(network, RATE)
    network.loss().backward()
    optimizer.step()
    return {name: value - before[name] for name, value in network.state_dict().items()}


def test_muon_moves_matrices_of_linear_layers_in_all_directions_alike():
    """Within what its five iterations reach, and scaled to the length of Adam's steps."""
    step = step_of(Network())["layer.weight"]
    rate = 0.2 * math.sqrt(24) * RATE
    values = torch.linalg.svdvals(step)[:5]  # the gradient has the rank of 5 embeddings
    assert (values > 0.5 * rate).all()
    assert (values < 1.3 * rate).all()


def test_adam_moves_all_else():
    """Its first step is the rate, against the sign of the gradient, wherever there is one."""
    network = Network()
    twin = Network()
    twin.loss().backward()
    step = step_of(network)
    for name in ("embedding.weight", "layer.bias"):
        gradient = twin.get_parameter(name).grad
        assert torch.allclose(step[name], -RATE * gradient.sign(), atol=RATE / 100)
    assert not step["unused.weight"].any()
    assert not step["unused.bias"].any()


def test_gradients_are_forgotten():
    network = Network()
    optimizer = MuonAdam(network, RATE)
    network.loss().backward()
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_linear_layers_is_refused():
    with pytest.raises(UserError, match="Embedding has no linear layer"):
        MuonAdam(nn.Embedding(2, 2), RATE)
