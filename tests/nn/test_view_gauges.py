import pytest
import torch

from melpatch.nn.view_gauges import view_gauges


def made(rows, dim):
    return torch.randn(rows, 2, dim, generator=torch.Generator().manual_seed(0))


def test_random_directions():
    gauges = view_gauges(made(2000, 64))
    assert float(gauges["output_std"]) == pytest.approx(1, abs=0.02)
    assert float(gauges["alignment"]) == pytest.approx(2, abs=0.02)
    assert float(gauges["uniformity"]) == pytest.approx(-4 + 0.5 * 16 / 64, abs=0.05)


def test_a_collapse():
    gauges = view_gauges(torch.ones(8, 2, 4))
    assert [float(value) for value in gauges.values()] == pytest.approx([0, 0, 0], abs=1e-5)


def test_equal_views_of_different_clips():
    views = made(50, 16)
    views[:, 1] = 2 * views[:, 0]
    gauges = view_gauges(views)
    assert float(gauges["alignment"]) == pytest.approx(0, abs=1e-6)
    assert float(gauges["output_std"]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_clips_give_numbers(rows):
    assert all(value.isfinite() for value in view_gauges(made(rows, 4)).values())
