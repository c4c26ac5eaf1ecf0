"""Coordinate ascent on a table."""

import itertools
import math

import pytest
import torch

from lvms.mean_field import ascend_on_table

SIZES = (3, 2, 4)


def random_table(seed, sizes=SIZES):
    return 2 * torch.randn(5, *sizes, generator=torch.Generator().manual_seed(seed)).double()


def product(log_q):
    """log q(z) of every structure, `[B, K_1, ..., K_V]`."""
    total = torch.zeros(len(log_q[0]), dtype=torch.float64)
    for factor in log_q:
        total = total[..., None] + factor.view(len(factor), *[1] * (total.dim() - 1), -1)
    return total


def elbo(log_q, table):
    log_product = product(log_q)
    return (log_product.exp() * (table - log_product)).flatten(1).sum(-1)


def test_it_starts_from_uniform_factors():
    for factor, size in zip(ascend_on_table(random_table(0), 0), SIZES, strict=True):
        torch.testing.assert_close(factor, torch.full_like(factor, -math.log(size)))


def test_a_product_of_factors_is_found_in_one_sweep():
    factors = [random_table(v, (size,)).log_softmax(-1) for v, size in enumerate(SIZES)]
    for got, expected in zip(ascend_on_table(product(factors) + 3, 1), factors, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_elbo_rises_to_a_point_where_no_factor_can_be_improved(seed):
    table = random_table(seed)
    bounds = [elbo(ascend_on_table(table, sweeps), table) for sweeps in range(6)]
    for earlier, later in itertools.pairwise(bounds):
        assert (later >= earlier - 1e-9).all()
    assert (bounds[-1] <= table.flatten(1).logsumexp(-1)).all()

    log_q = ascend_on_table(table, 500)
    best = elbo(log_q, table)
    generator = torch.Generator().manual_seed(seed)
    for v, size in enumerate(SIZES):
        noise = 0.3 * torch.randn(len(table), size, generator=generator)
        other = [*log_q]
        other[v] = (log_q[v] + noise).log_softmax(-1)
        assert (elbo(other, table) < best).all()
