"""The energy of a tree's shape: a small network that reads it from the words upwards."""

import torch
from torch import Tensor, nn

from gfn_envs.binary_tree import children, tree_nodes


class TreeEnergy(nn.Module):
    """Energies E of shapes, which say how probable they are among those of as many words.

    p(shape | n) is proportional to exp(-E). Every word has the same vector, a node's is computed
    from its two children's, and E is the sum of what all nodes contribute: a recursive network
    (Goller, Küchler: "Learning task-dependent distributed representations by backpropagation
    through structure", ICNN 1996). Labels and words are not looked at. A new network's energies are
    all zero.

    Attributes:
        word: The vector of a word, a parameter `[D]`.
        compose: From two children's vectors to their parent's.
        contribution: From a node's vector to its part of E.
    """

    def __init__(self, size: int = 32) -> None:
        """Builds the network.

        Args:
            size: D, the length of vectors.
        """
        super().__init__()
        self.word = nn.Parameter(torch.empty(size))
        self.compose = nn.Sequential(
            nn.Linear(2 * size, 2 * size), nn.Tanh(), nn.Linear(2 * size, size), nn.Tanh()
        )
        self.contribution = nn.Linear(size, 1, bias=False)
        self.start()

    @torch.no_grad()
    def start(self, generator: torch.Generator | None = None) -> None:
        """Draws the parameters anew; energies are zero afterwards."""
        self.word.uniform_(-1, 1, generator=generator)
        for layer in self.compose:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                layer.bias.zero_()
        self.contribution.weight.zero_()

    def forward(self, z: Tensor) -> Tensor:
        """Computes E of complete trees, all nodes whose children are ready at once.

        Args:
            z: int64 `[B, 3 G]`.

        Returns:
            float `[B]`, nats.
        """
        nodes = tree_nodes(z)
        waiting = (nodes.label >= 0).flatten()
        # Nodes of all trees are numbered through; the number behind the last stands for words.
        word = waiting.numel()
        first = torch.arange(0, word, nodes.label.shape[1], device=z.device)[:, None]
        left, right = (
            (child + first).where(child >= 0, word).flatten() for child in children(nodes)
        )
        # Where in `vectors` that of each is, -1 as long as it is not known.
        place = torch.full((word + 1,), -1, device=z.device)
        place[word] = 0
        vectors = self.word[None]
        order = [place[:0]]  # no tree may be there
        while len(ready := (waiting & (place[left] >= 0) & (place[right] >= 0)).nonzero()):
            ready = ready.squeeze(1)
            both = vectors[torch.stack([place[left[ready]], place[right[ready]]], -1)]
            place[ready] = torch.arange(len(vectors), len(vectors) + len(ready), device=z.device)
            vectors = torch.cat([vectors, self.compose(both.flatten(1))])
            waiting[ready] = False
            order.append(ready)
        tree = torch.cat(order) // nodes.label.shape[1]
        parts = self.contribution(vectors[1:]).squeeze(1)
        return parts.new_zeros(len(z)).index_add(0, tree, parts)
