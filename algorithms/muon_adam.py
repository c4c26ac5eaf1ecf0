"""Muon for the matrices of a network, Adam for the rest."""

from typing import Any

import torch
from torch import nn

from gfn_envs.errors import UserError


class MuonAdam:
    """Muon of the weights of linear layers and Adam of the rest, one optimiser to whoever trains.

    Muon's step is the momentum with all singular values brought to about 1 (Jordan et al. 2024,
    "Muon: an optimizer for hidden layers in neural networks"). It is scaled to the length of Adam's
    (Liu et al. 2025, "Muon is scalable for LLM training"), so that one learning rate serves both.
    An update costs a little more than Adam's, and fewer of them are needed where a policy has to
    come very close to a posterior.

    Attributes:
        param_groups: Of both; each has its `lr`.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        """Takes the parameters.

        Args:
            network: What is trained; it has linear layers, and parameters that are none of theirs
                (biases will do).
            rate: The learning rate of both.

        Raises:
            UserError: If there is no linear layer.
        """
        layers = (part for part in network.modules() if isinstance(part, nn.Linear))
        matrices = list(dict.fromkeys(layer.weight for layer in layers))
        if not matrices:
            raise UserError(f"{type(network).__name__} has no linear layer for Muon; use Adam.")
        of_muon = set(matrices)
        others = [parameter for parameter in network.parameters() if parameter not in of_muon]
        self._muon = torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        self._adam = torch.optim.Adam(others, lr=rate, fused=True)
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self._muon.zero_grad()
        self._adam.zero_grad()

    def step(self) -> None:
        """Moves all parameters that have a gradient."""
        self._muon.step()
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of both; see `torch.optim.Optimizer.state_dict`."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])
        # Loading puts new groups in the place of the old ones.
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]
