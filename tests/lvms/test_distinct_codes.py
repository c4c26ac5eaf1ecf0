"""Distinct rows among grids of codes."""

import pytest
import torch

from lvms.distinct_codes import distinct_rows


@pytest.mark.parametrize(("length", "num_codes"), [(4, 3), (16, 8), (16, 30), (1, 2)])
def test_every_row_is_found_among_the_distinct_ones(length, num_codes):
    generator = torch.Generator().manual_seed(0)
    different = torch.randint(-1, num_codes, (20, length), generator=generator)
    z = different[torch.randint(20, (100,), generator=generator)]
    rows, inverse = distinct_rows(z, num_codes)
    assert torch.equal(rows[inverse], z)
    assert len(rows) == len(set(map(tuple, z.tolist())))


def test_codes_too_many_for_one_number_are_told_apart():
    # Base 256, 16 places: 2^128 grids.
    z = torch.zeros(8, 16, dtype=torch.int64)
    z[:, 0] = torch.tensor([0, 1, 2, 3] * 2)
    z[4:, 15] = 254
    z = z.repeat(3, 1)
    rows, inverse = distinct_rows(z, 255)
    assert len(rows) == 8
    assert torch.equal(rows[inverse], z)


def test_rows_that_hardly_repeat_are_left_alone():
    z = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    rows, inverse = distinct_rows(z, 5)
    assert rows is z
    assert inverse is None


def test_elsewhere_than_on_the_cpu_nothing_is_looked_for():
    z = torch.zeros(10, 4, dtype=torch.int64, device="meta")
    rows, inverse = distinct_rows(z, 3)
    assert rows is z
    assert inverse is None
