"""The legacy sampler of square masks, against statistics of 20,000 draws of the official one."""

import functools

import pytest
import torch
from golden.official import golden

from melpatch.nn.mask_samplers import cluster_legacy
from melpatch.nn.masking import first_patches
from melpatch.rng import stream

DRAWS = 4000
ROWS, COLUMNS = 8, 64


@functools.cache
def masks(number):
    """Whether each patch is hidden, (draw, row, column), from a fixed seed."""
    drawn = []
    for keys in torch.arange(DRAWS).split(20):
        priority = cluster_legacy(stream(0, "mask", keys), ROWS, COLUMNS, number, sides=(3, 4, 5))
        drawn.append(
            first_patches(priority, torch.full_like(keys, number), number).as_mask(ROWS * COLUMNS)
        )
    return torch.cat(drawn).view(DRAWS, ROWS, COLUMNS)


@pytest.fixture(params=["T1024_N400", "T1024_N250", "T1024_N100"])
def case(request):
    """What is stated of one number of hidden patches, and our draws."""
    stated = golden("legacy_mask")["grids"][request.param]
    return stated, masks(stated["N"]).double()


def error(stated, values):
    """Standard error of the difference between the mean over our draws and a stated mean."""
    return (values.var(dim=0) * (1 / DRAWS + 1 / stated["draws"])).sqrt()


def test_the_stated_number_is_hidden_and_never_patch_0(case):
    stated, hidden = case
    assert hidden.sum(dim=(1, 2)).eq(stated["N"]).all()
    assert not hidden[:, 0, 0].any()
    assert stated["patch0_count"] == 0


def test_rows(case):
    stated, hidden = case
    difference = hidden.mean(dim=(0, 2)) - torch.tensor(stated["p_row"], dtype=torch.float64)
    covariance = torch.tensor(stated["row_covariance_per_draw"], dtype=torch.float64)
    spread = covariance[:7, :7] * (1 / DRAWS + 1 / stated["draws"])
    assert (
        difference[:7] @ torch.linalg.solve(spread, difference[:7]) < 24.3
    )  # chi-square, 7 degrees: p = 0.001


def test_columns(case):
    stated, hidden = case
    by_column = hidden.mean(dim=1)
    difference = by_column.mean(dim=0) - torch.tensor(stated["p_column"], dtype=torch.float64)
    assert (
        difference / error(stated, by_column)
    ).abs().max() < 4.2  # of 64 normal numbers: p = 0.002


def test_patches(case):
    stated, hidden = case
    share = torch.tensor(stated["counts_per_patch"], dtype=torch.float64) / stated["draws"]
    deviation = (hidden.mean(dim=0) - share) / error(stated, hidden).clamp(min=1e-9)
    assert deviation.abs().max() < 4.6  # of 511 normal numbers: p = 0.002


@pytest.mark.parametrize(("axis", "name"), [(2, "adjacent_pairs_time"), (1, "adjacent_pairs_freq")])
def test_neighbours(case, axis, name):
    stated, hidden = case
    size = hidden.shape[axis] - 1
    pairs = (hidden.narrow(axis, 0, size) * hidden.narrow(axis, 1, size)).sum(dim=(1, 2))
    assert abs(pairs.mean() - stated[name]["mean"]) < 3.3 * error(stated, pairs)  # p = 0.001
    assert float(pairs.std()) == pytest.approx(
        stated[name]["std"], rel=0.05
    )  # four standard errors
