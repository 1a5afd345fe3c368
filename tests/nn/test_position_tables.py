"""Tables of other code: for which grid their sines were written, and in which order."""

import pytest
import torch

from melpatch.errors import ConfigError
from melpatch.nn.position_tables import Geometry, fixed_half, frequency_major, sines
from melpatch.nn.positions import sequence, sincos


@pytest.mark.parametrize("grid", [(8, 64), (25, 12), (1, 9), (9, 1), (4, 4)])
@pytest.mark.parametrize("first", ["row", "column"])
def test_the_grid_of_fixed_sines_is_found_again(grid, first):
    found = sines(sincos(*grid, 48, first=first))
    if 1 in grid:
        # One row of sines first in "column" order is one column of them in "row" order.
        assert {found.rows, found.columns} == set(grid)
    else:
        assert found == (*grid, first)


def test_other_tables_hold_no_sines():
    table = sincos(8, 64, 48)
    shuffled = table[torch.randperm(512, generator=torch.Generator().manual_seed(0))]
    for other in (shuffled, sequence(8, 64, 48), torch.randn(512, 48), table[:, :6], table[:0]):
        assert sines(other) is None


def test_a_time_major_table_is_put_into_our_order():
    table = torch.arange(6.0)[:, None]
    geometry = Geometry(2, 3, (16, 16), 32, True)
    assert frequency_major(table, geometry).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(frequency_major(table, geometry._replace(time_major=False)), table)
    with pytest.raises(ConfigError, match="pos_embed has 5 positions, but 2 x 3 patches"):
        frequency_major(table[:5], geometry)


def test_sines_count_in_patches_not_in_steps():
    """Overlapping patches of an encoder of ours are less than one patch apart."""
    geometry = Geometry(3, 5, (8, 8), 32, False)
    ours = sincos(3, 5, 16, step=(0.5, 0.5))
    assert fixed_half(ours, geometry, (16, 16)) == "row"
    assert fixed_half(sincos(3, 5, 16), geometry, (16, 16)) is None
    assert fixed_half(sincos(3, 5, 16, first="column"), geometry, (8, 8)) == "column"
