import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nn.slow_blocks import slow_blocks

from melpatch.nn.rectangles import pixel_targets, rectangles
from melpatch.rng import stream, uniform_bits


def keys(count, first=0):
    return torch.arange(first, first + count)


@st.composite
def clips_of_pixels(draw):
    """Draw mels, the frames of clips that may be shorter than the batch, and mask settings."""
    n_mels = draw(st.integers(1, 40))
    frames = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    shares = draw(st.lists(st.floats(0.01, 0.9), min_size=len(frames), max_size=len(frames)))
    settings = {
        "max_block_ratio": draw(st.sampled_from([0.1, 0.3, 0.5, 1.0])),
        "align": draw(st.sampled_from([(1, 1), (4, 4), (16, 16), (5, 2), (40, 1)])),
    }
    return n_mels, torch.tensor(frames), torch.tensor(shares, dtype=torch.float64), settings


def targets(shares, frames, n_mels):
    """Return the number of pixels to mask, computed in float64."""
    return (shares.double() * frames * n_mels - 1e-9).ceil().long()


def hide(n_mels, frames, shares, settings, first=0, extra=0):
    """Return masks of clips with consecutive keys, a few frames wider than the longest clip."""
    state = stream(0, "blocks", keys(len(frames), first))
    wanted = targets(shares, frames, n_mels)
    return rectangles(state, frames, n_mels, int(frames.max()) + extra, wanted, **settings)


def largest(size, unit, max_block_ratio):
    """Return the longest side of a rectangle."""
    whole = -(-size // unit) * unit
    return round((max(int(max_block_ratio * whole), unit + 1) - 1) / unit) * unit


@given(clips_of_pixels(), st.integers(0, 10**6))
def test_rectangles_equal_the_slow_loop(case, first):
    n_mels, frames, shares, settings = case
    masks = hide(n_mels, frames, shares, settings, first)
    for clip, (own, share) in enumerate(zip(frames.tolist(), shares.tolist(), strict=True)):
        slow, _ = slow_blocks(
            stream(0, "blocks", keys(1, first + clip)), own, n_mels, share, **settings
        )
        assert torch.equal(masks[clip, :, :own], torch.from_numpy(slow))


@given(clips_of_pixels())
def test_rectangles_exceed_their_share_by_less_than_one_and_stay_in_the_clip(case):
    n_mels, frames, shares, settings = case
    masks = hide(n_mels, frames, shares, settings, extra=3)
    for mask, own, share in zip(masks, frames.tolist(), shares.tolist(), strict=True):
        unit = settings["align"]
        block = largest(n_mels, unit[0], settings["max_block_ratio"]) * largest(
            own, unit[1], settings["max_block_ratio"]
        )
        beyond = int(mask.sum()) - share * own * n_mels
        assert -1e-6 < beyond < block
        assert not mask[:, own:].any()


@given(clips_of_pixels())
def test_a_clip_has_the_same_rectangles_alone_and_beside_a_longer_clip(case):
    n_mels, frames, shares, settings = case
    together = hide(n_mels, frames, shares, settings, extra=5)
    for clip, own in enumerate(frames.tolist()):
        only = slice(clip, clip + 1)
        alone = hide(n_mels, frames[only], shares[only], settings, first=clip)
        assert torch.equal(together[only, :, :own], alone)


@given(clips_of_pixels())
def test_aligned_rectangles_mask_whole_units(case):
    n_mels, frames, shares, settings = case
    high, long = settings["align"]
    for mask, own in zip(hide(n_mels, frames, shares, settings), frames.tolist(), strict=True):
        units = [cell for row in mask[:, :own].split(high) for cell in row.split(long, dim=1)]
        assert all(unit.all() or not unit.any() for unit in units)


@pytest.mark.parametrize("align", [(1, 1), (4, 4)])
@pytest.mark.parametrize("size", range(1, 14))
def test_rectangles_reach_every_pixel_of_the_smallest_clips(size, align):
    frames = torch.full((600,), size)
    shares = torch.full((600,), 0.3)
    assert hide(size, frames, shares, {"align": align}).any(dim=0).all()


@pytest.mark.parametrize("share", [0.9995, 1.0])
@pytest.mark.parametrize(("n_mels", "own", "align"), [(40, 100, (1, 1)), (128, 590, (8, 8))])
def test_a_shortfall_of_all_rectangles_is_masked_from_the_start(n_mels, own, align, share):
    slow, used = slow_blocks(stream(0, "blocks", keys(1)), own, n_mels, share, align=align)
    assert len(used) == 384
    mask = hide(
        n_mels, torch.tensor([own]), torch.tensor([share]).double(), {"align": align}, extra=2
    )
    assert torch.equal(mask[0, :, :own], torch.from_numpy(slow))
    assert share < 1 or mask[0, :, :own].all()
    assert not mask[0, :, own:].any()


def test_autocast_does_not_change_rectangles():
    frames = torch.tensor([592, 300])
    shares = torch.tensor([0.7, 0.5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = hide(128, frames, shares, {})
    assert torch.equal(under, hide(128, frames, shares, {}))


def test_key_and_step_each_change_the_rectangles():
    frames = torch.full((20,), 20)
    shares = torch.full((20,), 0.5)
    seen = set()
    for step in range(20):
        seen |= {
            tuple(mask.flatten().tolist())
            for mask in rectangles(
                stream(0, "mask", keys(20), step), frames, 8, 20, targets(shares, frames, 8)
            )
        }
    assert len(seen) == 400


@pytest.mark.parametrize(
    "ratio", [(0.5, 0.7), (0.5, 0.5), (0.3, 0.3), (0.1, 0.1), (0.05, 0.9), (0.1, 0.9), (0.7, 0.7)]
)
@pytest.mark.parametrize("n_mels", [1, 16, 30, 64, 128])
def test_targets_equal_those_computed_in_float64(ratio, n_mels):
    """Targets are computed without float64, which Apple's GPUs lack; the masks stay bit-equal."""
    low, high = ratio
    frames = torch.arange(20_000) % 1200
    position = uniform_bits(stream(0, "choice", keys(20_000)), 1)[:, 0]
    position[:2400] = (position[:2400] >> 18) << 18  # many of these shares are whole pixels
    shares = low + (high - low) * (position.double() * 2.0**-24)
    expected = targets(shares, frames, n_mels)
    assert torch.equal(pixel_targets(frames, n_mels, 1199, ratio, position), expected)
