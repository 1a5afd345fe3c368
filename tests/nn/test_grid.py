import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from melpatch.errors import ConfigError
from melpatch.nn.grid import PatchGrid, Places


@st.composite
def grids(draw, partial=None):
    """Draw a grid, and a number of frames that it accepts."""
    partial = partial or draw(st.sampled_from(["pad", "drop"]))
    patch = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    stride = tuple(draw(st.integers(1, size)) for size in patch)
    n_mels = draw(st.integers(patch[0] if partial == "drop" else 1, 25))
    frames = draw(st.integers(1, 25))
    return PatchGrid(n_mels=n_mels, patch=patch, stride=stride, partial=partial), frames


def slow_starts(size, patch, stride, partial):
    """Return where patches start along one axis, found step by step."""
    starts = [0]
    if partial == "pad":
        while starts[-1] + patch < size:
            starts.append(starts[-1] + stride)
    else:
        while starts[-1] + stride + patch <= size:
            starts.append(starts[-1] + stride)
    return starts


def slow_corners(grid, frames):
    rows = slow_starts(grid.n_mels, grid.patch[0], grid.stride[0], grid.partial)
    columns = slow_starts(frames, grid.patch[1], grid.stride[1], grid.partial)
    return [(mel, frame) for mel in rows for frame in columns]


def slow_split(grid, spectrogram):
    clips, n_mels, frames = spectrogram.shape
    corners = slow_corners(grid, frames)
    patches = torch.zeros(clips, len(corners), grid.pixels, dtype=spectrogram.dtype)
    for token, (mel, frame) in enumerate(corners):
        for pixel in range(grid.pixels):
            m = mel + pixel // grid.patch[1]
            f = frame + pixel % grid.patch[1]
            if m < n_mels and f < frames:
                patches[:, token, pixel] = spectrogram[:, m, f]
    return patches


def slow_join(grid, patches, frames):
    total, times = torch.zeros(2, len(patches), grid.n_mels, frames, dtype=patches.dtype)
    for token, (mel, frame) in enumerate(slow_corners(grid, frames)):
        for pixel in range(grid.pixels):
            m = mel + pixel // grid.patch[1]
            f = frame + pixel % grid.patch[1]
            if m < grid.n_mels and f < frames:
                total[:, m, f] += patches[:, token, pixel]
                times[:, m, f] += 1
    return total / times.clamp(min=1)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(grids())
def test_statistics_are_those_of_each_mel_bin_of_a_patch(drawn):
    grid, frames = drawn
    spectrogram = torch.randn(2, grid.n_mels, frames, dtype=torch.float64)
    found = grid.statistics(spectrogram)
    height, width = grid.patch
    expected = torch.zeros_like(found)
    for token, pixels in enumerate(slow_split(grid, spectrogram).unbind(dim=1)):
        for mel in range(height):
            own = pixels[:, mel * width : (mel + 1) * width]
            expected[:, token, mel] = own.mean(dim=1)
            expected[:, token, height + mel] = own.std(dim=1, correction=0)
    assert found.shape == (2, grid.count(frames), 2 * height)
    torch.testing.assert_close(found, expected)


@given(grids())
def test_counts_equal_a_walk_along_the_axes(case):
    grid, frames = case
    assert grid.rows == len(slow_starts(grid.n_mels, grid.patch[0], grid.stride[0], grid.partial))
    assert grid.columns(frames) == len(
        slow_starts(frames, grid.patch[1], grid.stride[1], grid.partial)
    )
    assert grid.count(frames) == len(slow_corners(grid, frames))


@settings(max_examples=60, deadline=None)
@given(grids())
def test_split_equals_a_loop_over_pixels(case):
    grid, frames = case
    spectrogram = noise(2, grid.n_mels, frames)
    assert torch.equal(grid.split(spectrogram), slow_split(grid, spectrogram))


@settings(max_examples=60, deadline=None)
@given(grids())
def test_join_averages_overlapping_patches(case):
    grid, frames = case
    patches = noise(2, grid.count(frames), grid.pixels)
    torch.testing.assert_close(grid.join(patches, frames), slow_join(grid, patches, frames))


@settings(max_examples=60, deadline=None)
@given(grids(partial="pad"))
def test_join_inverts_split(case):
    grid, frames = case
    spectrogram = noise(2, grid.n_mels, frames)
    torch.testing.assert_close(grid.join(grid.split(spectrogram), frames), spectrogram)


def test_join_is_zero_where_frames_were_dropped():
    grid = PatchGrid(n_mels=10, patch=(4, 4), stride=(4, 4), partial="drop")
    joined = grid.join(grid.split(torch.ones(1, 10, 15)), 15)
    assert joined[:, :8, :12].eq(1).all()
    assert joined.sum() == 8 * 12


def test_patches_have_the_order_of_unfold():
    spectrogram = noise(2, 128, 100)
    grid = PatchGrid(n_mels=128, stride=(10, 10), partial="drop")
    expected = F.unfold(spectrogram[:, None], 16, stride=10).transpose(1, 2)
    assert torch.equal(grid.split(spectrogram), expected)


@settings(max_examples=60, deadline=None)
@given(grids(), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_valid_columns_are_those_of_the_clip_alone(case, lengths):
    grid, frames = case
    columns = grid.columns(max(frames, *lengths))
    valid = grid.valid(torch.tensor(lengths), columns).view(len(lengths), grid.rows, columns)
    for own, of_clip in zip(lengths, valid, strict=True):
        alone = 1 if own < grid.patch[1] else grid.columns(own)
        assert of_clip[:, :alone].all()
        assert not of_clip[:, alone:].any()


@pytest.mark.parametrize(
    ("patch", "stride", "frames", "rows", "columns"),
    [
        ((16, 16), (16, 16), 1024, 8, 64),
        ((16, 16), (10, 10), 1024, 12, 101),
        ((16, 16), (10, 10), 512, 12, 50),
        ((16, 16), (10, 10), 128, 12, 12),
        ((128, 2), (128, 2), 1024, 1, 512),
        ((128, 2), (128, 1), 512, 1, 511),
        ((16, 16), (10, 10), 100, 12, 9),
    ],
)
def test_published_grids(patch, stride, frames, rows, columns):
    grid = PatchGrid(n_mels=128, patch=patch, stride=stride, partial="drop")
    assert (grid.rows, grid.columns(frames)) == (rows, columns)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n_mels": 0}, "n_mels = 0"),
        ({"n_mels": 128, "patch": (0, 16)}, r"patch = \(0, 16\)"),
        ({"n_mels": 128, "stride": (16, 17)}, r"stride = \(16, 17\)"),
        ({"n_mels": 128, "stride": (0, 16)}, r"stride = \(0, 16\)"),
        ({"n_mels": 8, "partial": "drop"}, "n_mels = 8"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        PatchGrid(**settings)


def test_a_wrong_choice_is_named_where_no_type_checker_runs():
    grid = PatchGrid(n_mels=128)
    object.__setattr__(grid, "partial", "cut")
    with pytest.raises(ConfigError, match="partial = 'cut'; allowed: 'pad' or 'drop'"):
        grid.__post_init__()


def test_a_spectrogram_shorter_than_a_patch_is_padded_with_drop_too():
    grid = PatchGrid(n_mels=16, partial="drop")
    spectrogram = torch.randn(2, 16, 7)
    assert grid.columns(7) == 1
    patches = grid.split(spectrogram)
    assert patches.shape == (2, 1, 256)
    assert torch.equal(grid.join(patches, 7), spectrogram)
    assert torch.equal(patches.view(2, 16, 16)[:, :, 7:], torch.zeros(2, 16, 9))


def test_a_spectrogram_with_other_mels_is_refused():
    with pytest.raises(ConfigError, match="n_mels = 64; allowed: 128"):
        PatchGrid(n_mels=128).split(torch.zeros(1, 64, 100))


@pytest.mark.parametrize("columns", [4, 9])
def test_places_in_time_do_not_depend_on_the_length_of_the_grid(columns):
    """Of three rows, the second one's tokens are 1, 4, 7 and so on."""
    numbers = torch.arange(3 * columns).view(3, columns)
    in_time = Places(numbers[1][None], columns).in_time(3)
    assert in_time.tolist() == [[3 * column + 1 for column in range(columns)]]


@pytest.mark.parametrize(("partial", "frames"), [("drop", 57), ("drop", 3), ("pad", 57)])
def test_a_graph_of_one_length_has_no_negative_padding(partial, frames):
    """Runtimes such as ExecuTorch do not have it."""
    grid = PatchGrid(n_mels=13, patch=(6, 6), stride=(5, 5), partial=partial)

    class Split(torch.nn.Module):
        def forward(self, spectrogram):
            return grid.split(spectrogram)

    program = torch.export.export(Split(), (torch.zeros(1, 13, frames),))
    pads = [node.args[1] for node in program.graph.nodes if "pad" in str(node.target)]
    assert all(size >= 0 for sizes in pads for size in sizes)
