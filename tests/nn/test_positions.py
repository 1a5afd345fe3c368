import math
from functools import partial

import pytest
import torch

from melpatch.nn.positions import resize, sequence, sincos


def numbered(rows, columns):
    """Return a table whose two channels are row and column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([row, column], dim=-1).flatten(0, 1).double()


def random_table(rows, columns):
    return torch.randn(
        rows * columns, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


def linear_taps(x):
    return {0: 1 - x, 1: x}


def cubic_taps(x, a=-0.75):
    def near(t):
        return (a + 2) * t**3 - (a + 3) * t**2 + 1

    def far(t):
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a

    return {-1: far(x + 1), 0: near(x), 1: near(1 - x), 2: far(2 - x)}


def slow_line(values, size, taps):
    """Interpolate along the first axis with half-pixel centres and repeated edges."""
    old = len(values)
    out = torch.zeros(size, *values.shape[1:], dtype=values.dtype)
    for i in range(size):
        centre = (i + 0.5) * old / size - 0.5
        centre = max(centre, 0.0) if taps is linear_taps else centre
        start = math.floor(centre)
        for offset, share in taps(centre - start).items():
            out[i] += share * values[min(max(start + offset, 0), old - 1)]
    return out


def slow_stretch(table, old, new, taps):
    along_rows = slow_line(table.view(*old, -1), new[0], taps)
    return slow_line(along_rows.transpose(0, 1), new[1], taps).transpose(0, 1).flatten(0, 1)


def test_sincos_equals_a_slow_loop():
    rows = 3
    columns = 5
    dim = 16
    table = sincos(rows, columns, dim)
    for row in range(rows):
        for column in range(columns):
            expected = []
            for place in (row, column):
                angles = [place / 10000 ** (i / (dim // 4)) for i in range(dim // 4)]
                expected += [math.sin(angle) for angle in angles] + [
                    math.cos(angle) for angle in angles
                ]
            torch.testing.assert_close(table[row * columns + column], torch.tensor(expected))


def test_sincos_of_mae_has_the_same_halves_in_the_other_order():
    row_first = sincos(3, 5, 16)
    assert torch.equal(sincos(3, 5, 16, first="column"), row_first.roll(8, dims=1))


def test_interleaved_sequences_have_the_same_waves_in_turn():
    halves = sequence(3, 5, 10)
    turns = sequence(3, 5, 10, interleaved=True)
    assert torch.equal(turns[:, ::2], halves[:, :5])
    assert torch.equal(turns[:, 1::2], halves[:, 5:])


def test_sequence_equals_a_slow_loop():
    rows = 3
    columns = 5
    dim = 10
    table = sequence(rows, columns, dim)
    for place in range(rows * columns):
        column, row = divmod(place, rows)  # numbered in time order
        angles = [place / 10000 ** (i / (dim // 2)) for i in range(dim // 2)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        torch.testing.assert_close(table[row * columns + column], torch.tensor(expected))


@pytest.mark.parametrize("fixed", [sincos, sequence])
def test_fixed_positions_of_a_longer_grid_begin_with_the_shorter_one(fixed):
    longer = fixed(8, 100, 48).view(8, 100, 48)
    assert torch.equal(longer[:, :37].flatten(0, 1), fixed(8, 37, 48))


@pytest.mark.parametrize("fixed", [sincos, sequence])
def test_fixed_positions_differ_at_every_place(fixed):
    table = fixed(8, 1000, 96)
    nearest = torch.cdist(table, table).fill_diagonal_(torch.inf).min()
    assert nearest > 0.05


@pytest.mark.parametrize("how", ["bilinear", "bicubic", "crop", "legacy"])
def test_the_same_grid_keeps_the_table(how):
    torch.testing.assert_close(resize(random_table(4, 7), (4, 7), (4, 7), how), random_table(4, 7))


@pytest.mark.parametrize("new", [(8, 20), (3, 5), (4, 12), (9, 2), (1, 1)])
@pytest.mark.parametrize(("how", "taps"), [("bilinear", linear_taps), ("bicubic", cubic_taps)])
def test_interpolation_equals_a_slow_version(how, taps, new):
    table = random_table(4, 7)
    torch.testing.assert_close(
        resize(table, (4, 7), new, how), slow_stretch(table, (4, 7), new, taps)
    )


def test_crop_keeps_the_first_rows_and_columns():
    assert torch.equal(resize(numbered(8, 64), (8, 64), (5, 50), "crop"), numbered(5, 50))


@pytest.mark.parametrize(("columns", "start"), [(50, 7), (12, 26), (63, 1), (9, 28)])
def test_legacy_keeps_the_centre_columns(columns, start):
    kept = resize(numbered(8, 64), (8, 64), (8, columns), "legacy").view(8, columns, 2)
    assert kept[0, :, 1].tolist() == list(range(start, start + columns))


def test_legacy_keeps_the_centre_rows_where_the_published_code_raises():
    kept = resize(numbered(8, 64), (8, 64), (4, 50), "legacy").view(4, 50, 2)
    assert kept[:, 0, 0].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(("how", "start"), [("crop", 0), ("legacy", 2)])
def test_a_longer_axis_is_interpolated_and_a_shorter_one_cropped(how, start):
    table = random_table(4, 7)
    kept = table.view(4, 7, 3)[:, start : start + 3].flatten(0, 1)
    torch.testing.assert_close(
        resize(table, (4, 7), (6, 3), how), slow_stretch(kept, (4, 3), (6, 3), linear_taps)
    )


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("fixed", [sincos, partial(sequence, height=3)])
def test_with_a_smaller_stride_a_place_keeps_its_vector(fixed, parts):
    rows = 2 * parts + 1
    columns = 3 * parts + 1
    step = (1 / parts, 1 / parts)
    fine = fixed(rows, columns, 16, step=step).view(rows, columns, 16)[::parts, ::parts]
    torch.testing.assert_close(fine.flatten(0, 1), fixed(3, 4, 16))
