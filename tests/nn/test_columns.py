"""Columns of two encoders in time: against loops over fine samples, and without padding."""

import pytest
import torch

from melpatch.nn.columns import Columns, Timing, columns_of, in_common, joined_columns

FINE, COARSE = Timing(0.005, 0.16), Timing(-0.02, 0.32)


def columns(timing, count, rows=1, clips=2, valid=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(clips, rows, count, 3, generator=generator, dtype=torch.float64)
    inside = torch.ones(clips, rows, count, dtype=torch.bool)
    for clip, length in enumerate(valid or []):
        inside[clip, :, length:] = False
    return Columns(values, inside, timing)


def slow_average(fine, timing, column, clip):
    """Return the mean over a coarse column of the fine ones under 100,000 points of time."""
    start = timing.start + column * timing.step
    total, seen = torch.zeros(3, dtype=torch.float64), 0
    for point in torch.linspace(start, start + timing.step, 20001, dtype=torch.float64)[:-1]:
        number = int(torch.floor((point - fine.timing.start) / fine.timing.step))
        if 0 <= number < fine.values.shape[2] and fine.valid[clip, 0, number]:
            total += fine.values[clip, 0, number]
            seen += 1
    return total / max(1, seen)


def test_finer_columns_are_averaged_over_coarser_ones_by_the_time_they_share():
    fine = columns(FINE, 7, valid=[7, 4])
    averaged = fine.over(COARSE, 4)
    assert averaged.valid[:, 0].tolist() == [[True] * 4, [True, True, True, False]]
    for clip, column in ((0, 1), (1, 1), (1, 2)):
        expected = slow_average(fine, COARSE, column, clip)
        torch.testing.assert_close(averaged.values[clip, 0, column], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_finer_one_gives_way_and_both_are_valid_in_the_same_columns(swapped):
    pair = [columns(FINE, 7, valid=[7, 2]), columns(COARSE, 4, seed=1, valid=[3, 4])]
    first, second = in_common(*(pair[::-1] if swapped else pair))
    coarse = first if swapped else second
    assert first.timing == second.timing == COARSE
    assert torch.equal(first.valid, second.valid)
    assert torch.equal(coarse.values, pair[1].values)
    assert first.valid[:, 0].tolist() == [[True, True, True, False], [True, True, False, False]]


def test_rows_stay_if_both_have_as_many_and_are_averaged_otherwise():
    four, two = columns(FINE, 5, rows=4), columns(FINE, 5, rows=2, seed=1)
    first, _ = in_common(four, columns(FINE, 6, rows=4, seed=2))
    assert torch.equal(first.values, four.values)
    first, second = in_common(four, two)
    assert first.values.shape == second.values.shape == (2, 1, 5, 3)
    torch.testing.assert_close(first.values[:, 0], four.values.mean(dim=1))


def test_a_mean_over_rows_takes_the_valid_ones():
    some = columns(FINE, 2, rows=3)
    some.valid[0, 1:, 1] = False
    some.valid[1, :, 1] = False
    mean = some.averaged_rows()
    torch.testing.assert_close(mean.values[0, 0, 1], some.values[0, 0, 1])
    assert mean.valid.tolist() == [[[True, True]], [[True, False]]]


def test_tokens_are_numbered_row_by_row():
    patches = torch.arange(12.0).reshape(1, 6, 2)
    grid = columns_of(patches, None, 2, FINE)
    assert torch.equal(grid.values[0, 1, 0], patches[0, 3])
    assert grid.valid.all()


def test_columns_of_clips_are_joined_with_padding_and_taken_apart():
    long, short = columns(FINE, 5, clips=1), columns(FINE, 3, clips=1, seed=1)
    both = joined_columns([long, short])
    assert both.valid[:, 0].sum(dim=1).tolist() == [5, 3]
    again = both._replace(values=both.values[1:], valid=both.valid[1:]).without_padding()
    assert torch.equal(again.values, short.values)
