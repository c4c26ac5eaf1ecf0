"""Codes that follow moving averages."""

import pytest
import torch
from torch import nn

from algorithms.moving_codebook import MovingCodebook
from gfn_envs import UserError


def clusters(centres, each=200, spread=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(each, *centres.shape, generator=generator)
    return (centres + spread * noise).flatten(0, 1)


def test_the_nearest_code_is_that_of_least_distance():
    codebook = MovingCodebook(nn.Embedding(7, 3))
    vectors = torch.randn(5, 11, 3, generator=torch.Generator().manual_seed(0))
    found = codebook.nearest(vectors)
    assert torch.equal(found, torch.cdist(vectors, codebook.codes.expand(5, -1, -1)).argmin(-1))


def test_averages_move_as_plain_loops_do():
    embedding = nn.Embedding(3, 2)
    codebook = MovingCodebook(embedding, decay=0.8)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 2, generator=generator)
    codebook.start(vectors, generator)
    count, total = codebook.count.clone(), codebook.total.clone()
    assert count.tolist() == [20, 20, 20]
    assert torch.cdist(codebook.codes, vectors).amin(-1).max() < 1e-2
    for seed in range(4):
        vectors = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed))
        nearest = codebook.nearest(vectors)
        codebook.follow(vectors, nearest, generator)
        for k in range(3):
            ours = vectors[nearest == k]
            count[k] = 0.8 * count[k] + 0.2 * len(ours)
            total[k] = 0.8 * total[k] + 0.2 * ours.sum(0)
    torch.testing.assert_close(codebook.count, count)
    torch.testing.assert_close(embedding.weight.detach(), total / count[:, None])
    assert embedding.weight.requires_grad


def test_codes_find_the_clusters_and_none_stays_dead():
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [3.0, 3.0], [9.0, 9.0]])
    generator = torch.Generator().manual_seed(0)
    embedding = nn.Embedding(5, 2)
    codebook = MovingCodebook(embedding, decay=0.9)
    codebook.start(torch.randn(100, 2, generator=generator), generator)
    with torch.no_grad():
        codebook.total[1:] = -100 * codebook.count[1:, None]  # four codes where no vector is
        embedding.weight[1:] = -100
    for seed in range(300):
        vectors = clusters(centres, each=20, seed=seed)
        codebook.follow(vectors, codebook.nearest(vectors), generator)
    vectors = clusters(centres)
    used = torch.bincount(codebook.nearest(vectors), minlength=5) / len(vectors)
    assert used.min() > 0.02
    assert (vectors - codebook.codes[codebook.nearest(vectors)]).square().sum(-1).mean() < 2.5


def test_one_s_state_says_everything_but_the_codes_themselves():
    one, other = (MovingCodebook(nn.Embedding(4, 2)) for _ in range(2))
    assert set(one.state_dict()) == {"count", "total"}
    assert not list(one.parameters())
    vectors = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    one.start(vectors, torch.Generator().manual_seed(0))
    other.load_state_dict(one.state_dict())
    for codebook in (one, other):
        codebook.follow(vectors, one.nearest(vectors), torch.Generator().manual_seed(1))
    assert torch.equal(one.codes, other.codes)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_wrong_decay_is_a_user_error(decay):
    with pytest.raises(UserError, match="decay must be at least 0 and below 1"):
        MovingCodebook(nn.Embedding(2, 2), decay)
