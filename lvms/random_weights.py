"""Weights of networks drawn from a generator, so that a seed decides where learning starts."""

import math

import torch
from torch import nn


@torch.no_grad()
def draw_weights(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws every parameter of a network anew; none keeps its value.

    Weights are normal with variance 2 over the number of inputs that a unit sums (He et al.
    2015), embeddings standard normal, biases zero.

    Args:
        network: Made of linear layers, convolutions, embeddings and layer norms.
        generator: Source of randomness, on the network's device.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Embedding):
            layer.weight.normal_(generator=generator)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
        elif isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.normal_(std=math.sqrt(2 / _num_inputs(layer)), generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()


def _num_inputs(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """How many inputs a unit of the layer sums."""
    if isinstance(layer, nn.ConvTranspose2d):
        # A stride spreads an input's kernel over more outputs.
        return layer.weight[:, 0].numel() / math.prod(layer.stride)
    return layer.weight[0].numel()
