"""Energies of shapes against recursion, and contrastive divergence against every shape."""

import torch

from gfn_envs.binary_tree import children, tree_nodes
from lvms.grammars.shape_chains import ShapeChains
from lvms.grammars.tree_energy import TreeEnergy
from lvms.grammars.tree_moves import num_nodes
from tests.algorithms.statistics import structure_counts
from tests.lvms.grammars.tree_cases import all_trees


def random_energy(size=8, spread=1.0, seed=0):
    energy = TreeEnergy(size)
    generator = torch.Generator().manual_seed(seed)
    energy.start(generator)
    with torch.no_grad():
        energy.contribution.weight.normal_(std=spread, generator=generator)
    return energy


def recursive_energy(energy, z):
    """E of one tree, by recursion from its root."""
    nodes = tree_nodes(z[None])
    left, right = (child[0].tolist() for child in children(nodes))
    parts = []

    def vector(gap):
        if gap < 0:
            return energy.word
        both = torch.cat([vector(left[gap]), vector(right[gap])])
        composed = energy.compose(both)
        parts.append(energy.contribution(composed))
        return composed

    vector((nodes.right - nodes.left).argmax().item())
    return torch.stack(parts).sum()


def exact_log_prob(energy, trees):
    return (-energy(trees)).log_softmax(0)


def gradient(energy, loss):
    energy.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in energy.parameters()])


def test_levels_are_recursion():
    energy = random_energy()
    trees = torch.cat([all_trees(n, 1, max_words=7)[::3] for n in (2, 3, 4, 5, 7)])
    trees = trees[torch.randperm(len(trees), generator=torch.Generator().manual_seed(0))]
    expected = torch.stack([recursive_energy(energy, z) for z in trees])
    torch.testing.assert_close(energy(trees), expected)
    ours = gradient(energy, energy(trees).square().sum())
    theirs = gradient(energy, expected.square().sum())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_only_the_shape_counts():
    energy = random_energy()
    plain, labelled = all_trees(4, 1, max_words=6), all_trees(4, 2)
    same = torch.isclose(energy(plain)[:, None], energy(labelled)).sum(1)
    assert (same == 2**3).all()


def test_a_new_network_knows_nothing():
    assert (TreeEnergy()(all_trees(5, 1)) == 0).all()


def test_chains_begin_as_any_shapes():
    chains = ShapeChains(5, chains=3000, generator=torch.Generator().manual_seed(0))
    for words in (2, 3, 4, 5):
        z = chains.z[words - 2]
        assert (num_nodes(z) == words - 1).all()
        shapes = all_trees(words, 1, max_words=5)
        count = structure_counts(z, shapes)
        # Rotations lead to the uniform distribution: 5 standard deviations of a binomial count.
        expected = 3000 / len(shapes)
        assert (count - expected).abs().max() <= (5 * expected**0.5 if words > 2 else 0)


def test_the_contrast_has_the_exact_gradient():
    energy = random_energy(spread=1.0)
    data = torch.cat([all_trees(6, 1)[5:8], all_trees(4, 1, max_words=6)[:2]])
    weight = torch.tensor([0.3, 0.1, 0.2, 0.15, 0.25])
    exact = 0
    for words, rows in ((6, slice(0, 3)), (4, slice(3, 5))):
        shapes = all_trees(words, 1, max_words=6)
        log_prob = exact_log_prob(energy, shapes)
        which = (data[rows, None] == shapes).all(-1).long().argmax(1)
        exact = exact - weight[rows] @ log_prob[which]
    exact = gradient(energy, exact)
    chains = ShapeChains(6, chains=4000, moves=60, generator=torch.Generator().manual_seed(1))
    before = chains.z.clone()
    generator = torch.Generator().manual_seed(2)
    estimate = gradient(energy, chains.contrast(energy, data, weight, generator))
    # 4000 chains, each a fresh sample after 60 moves: 1.6 % of the spread of a gradient.
    assert (estimate - exact).norm() < 0.05 * exact.norm()
    moved = (chains.z != before).flatten(1).any(1)
    assert moved.tolist() == [False, False, True, False, True]


def test_two_words_have_one_shape_and_nothing_to_learn():
    energy = random_energy()
    chains = ShapeChains(4, generator=torch.Generator().manual_seed(0))
    data = all_trees(2, 1, max_words=4).repeat(3, 1)
    loss = chains.contrast(energy, data, torch.full((3,), 1 / 3))
    assert gradient(energy, loss).abs().max() < 1e-6


def test_three_words_do_not_take_turns():
    chains = ShapeChains(3, chains=3000, moves=10, generator=torch.Generator().manual_seed(0))
    before = chains.z.clone()
    data = all_trees(3, 1)
    generator = torch.Generator().manual_seed(1)
    chains.contrast(TreeEnergy(), data, torch.full((2,), 0.5), generator)
    changed = (chains.z[1] != before[1]).any(1).float().mean()
    # Each chain has forgotten its start: 5 standard deviations of 3000 tosses of a coin.
    assert abs(changed - 0.5) < 5 * (0.25 / 3000) ** 0.5


def test_a_distribution_of_shapes_is_learned():
    shapes = all_trees(5, 1)
    generator = torch.Generator().manual_seed(5)
    target = (2 * torch.randn(len(shapes), generator=generator)).softmax(0)
    energy = TreeEnergy(24)
    energy.start(generator)
    chains = ShapeChains(5, chains=64, moves=8, generator=generator)
    optimizer = torch.optim.Adam(energy.parameters(), 1e-2)
    apart = 0.5 * (exact_log_prob(energy, shapes).exp() - target).abs().sum()
    for step in range(400):
        if step == 250:
            optimizer.param_groups[0]["lr"] = 1e-3
        data = shapes[torch.multinomial(target, 64, replacement=True, generator=generator)]
        loss = chains.contrast(energy, data, torch.full((64,), 1 / 64), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = exact_log_prob(energy, shapes).exp()
    distance = 0.5 * (learned - target).abs().sum()
    assert apart > 0.25
    assert distance < 0.05
