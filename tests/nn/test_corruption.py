import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.config import from_dict, to_dict
from melpatch.errors import ConfigError
from melpatch.nn.corruption import Corruption

MELS = 32
WIDTH = 60
PATCH = (8, 4)
FRAMES = torch.tensor([60, 41, 7, 1, 60])
KEYS = torch.tensor([11, -7, 3, 2**40, 0])
GARBAGE = [0.0, 7.0, math.nan]
SILENCE = -1.25


def named(frames=FRAMES, garbage=0.0, n_mels=MELS, width=None):
    """Return spectrograms whose pixels encode their clip, mel and frame as 1-based digits."""
    width = int(frames.max()) if width is None else width
    clip, mel, frame = (torch.arange(1.0, size + 1) for size in (len(frames), n_mels, width))
    pixels = clip[:, None, None] * 1e4 + mel[:, None] * 100 + frame
    return torch.where(torch.arange(width) < frames[:, None, None], pixels, garbage)


def neighbours(clips):
    """Return the next clip, in a circle, as the partner of each clip."""
    return (torch.arange(clips) + 1) % clips


def corrupt(
    spectrogram, frames=FRAMES, keys=KEYS, partners=None, seed=0, step=0, purpose="view", **settings
):
    corruption = Corruption(Corruption.Config(**settings), PATCH)
    partners = neighbours(len(keys)) if partners is None else partners
    return corruption(
        spectrogram, frames, keys, partners, seed=seed, step=step, purpose=purpose, silence=SILENCE
    )


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@st.composite
def batches(draw):
    """Draw the frames and the distinct keys of a batch, and settings."""
    count = draw(st.integers(1, 5))
    signed = st.integers(-(2**63), 2**63 - 1)
    low, high = sorted(draw(st.lists(st.floats(0.05, 0.9), min_size=2, max_size=2)))
    return (
        torch.tensor(draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))),
        torch.tensor(draw(st.lists(signed, min_size=count, max_size=count, unique=True))),
        {
            "fill": draw(st.sampled_from(["zeros", "noise", "silence"])),
            "ratio": (low, high),
            "alien_ratio": draw(st.floats(0.05, 0.9)),
            "alien_probability": draw(st.sampled_from([0.0, 0.5, 1.0])),
            "aligned": draw(st.booleans()),
        },
    )


@given(batches(), st.sampled_from(GARBAGE))
def test_only_masked_pixels_change_and_padding_is_ignored(batch, garbage):
    frames, keys, settings = batch
    before = named(frames, garbage, width=55)
    after, hidden = corrupt(before, frames, keys, **settings)
    same(before, named(frames, garbage, width=55))
    same(after[~hidden], before[~hidden])
    assert (after != before)[hidden].all()
    assert hidden.flatten(1).any(1).all()
    assert not hidden[torch.arange(55).expand_as(hidden) >= frames[:, None, None]].any()
    clean = corrupt(named(frames, width=55), frames, keys, **settings).spectrogram
    for dirty, expected, own in zip(after, clean, frames.tolist(), strict=True):
        same(dirty[:, :own], expected[:, :own])


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(batch, chance):
    frames, keys, settings = batch
    order = chance.sample(range(len(keys)), len(keys))
    place = torch.tensor(order).argsort()
    straight = corrupt(named(frames), frames, keys, **settings)
    moved = place[neighbours(len(keys))[order]]
    shuffled = corrupt(named(frames)[order], frames[order], keys[order], moved, **settings)
    for expected, part in zip(straight, shuffled, strict=True):
        same(expected[order], part)


@given(batches())
def test_a_clip_without_a_donor_is_corrupted_the_same_alone_and_in_a_batch(batch):
    frames, keys, settings = batch
    settings |= {"alien_probability": 0.0}
    together = corrupt(named(frames, width=55), frames, keys, **settings)
    for clip, own in enumerate(frames.tolist()):
        only = slice(clip, clip + 1)
        alone = corrupt(named(frames)[only, :, :own], frames[only], keys[only], **settings)
        for part, whole in zip(alone, together, strict=True):
            same(part, whole[only, :, :own])


@given(batches())
def test_alien_pixels_come_from_the_same_place_in_the_partner(batch):
    frames, keys, settings = batch
    if len(keys) == 1:
        return
    before = named(frames)
    after, hidden = corrupt(before, frames, keys, **settings | {"alien_probability": 1.0})
    for clip in range(len(keys)):
        mel, frame = hidden[clip].nonzero().unbind(1)
        shown = after[clip][hidden[clip]]
        donor = (clip + 1) % len(keys)
        same(shown, before[donor, mel, frame % frames[donor]])


@pytest.mark.parametrize(
    "settings", [{}, {"aligned": True}, {"alien_probability": 0.1, "ratio": (0.2, 0.2)}]
)
def test_a_clip_is_filled_or_alien_at_the_given_rate_with_the_given_area(settings):
    clips = 1000
    frames = torch.full((clips,), 40)
    config = Corruption.Config(**settings)
    before = torch.ones(clips, MELS, 40)
    after, hidden = corrupt(before, frames, torch.arange(clips), **settings)
    zeros = (after == 0).flatten(1).sum(1)
    alien = zeros == 0
    area = hidden.double().mean(dim=(1, 2))
    assert torch.equal(zeros[~alien], hidden.flatten(1).sum(1)[~alien])
    error = math.sqrt(config.alien_probability * (1 - config.alien_probability) / clips)
    assert abs(alien.double().mean() - config.alien_probability) < 4 * error
    block = (12 / 40) * (9 / 32) if not settings.get("aligned") else (12 / 40) * (8 / 32)
    for which, low, high in (
        (alien, config.alien_ratio, config.alien_ratio),
        (~alien, *config.ratio),
    ):
        assert area[which].min() >= low - 1e-9
        assert area[which].max() < high + block
    if "ratio" not in settings:
        assert area[~alien].quantile(0.1) < 0.56
        assert area[~alien].quantile(0.9) > 0.66


def test_the_target_area_is_uniform_in_its_range():
    """The clips are long, so that a rectangle is small relative to them."""
    clips = 400
    frames = torch.full((clips,), 100)
    settings = {"ratio": (0.1, 0.9), "alien_probability": 0.0, "max_block_ratio": 0.1}
    area = (
        corrupt(torch.ones(clips, 40, 100), frames, torch.arange(clips), **settings)
        .mask.double()
        .mean(dim=(1, 2))
    )
    torch.testing.assert_close(
        area.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()),
        torch.tensor([0.14, 0.3, 0.5, 0.7, 0.86]).double(),
        rtol=0,
        atol=0.06,
    )


@pytest.mark.parametrize(("fill", "value"), [("zeros", 0.0), ("silence", SILENCE)])
def test_constant_fills(fill, value):
    after, hidden = corrupt(named(), fill=fill, alien_probability=0.0)
    assert after[hidden].eq(value).all()


def test_noise_is_standard_normal_and_differs_by_clip_step_and_purpose():
    frames = torch.full((20,), 60)
    keys = torch.arange(20)
    settings = {"fill": "noise", "alien_probability": 0.0, "ratio": (0.9, 0.9)}
    drawn = []
    for step, purpose in ((0, "view"), (1, "view"), (0, "other")):
        after, hidden = corrupt(named(frames), frames, keys, step=step, purpose=purpose, **settings)
        values = after[hidden]
        assert abs(values.mean()) < 4 / math.sqrt(len(values))
        assert abs(values.std() - 1) < 4 / math.sqrt(2 * len(values))
        drawn += values.tolist()
    assert len(set(drawn)) > 0.99 * len(drawn)


@pytest.mark.parametrize("partnerless", ["itself", "its twin"])
def test_a_clip_without_a_partner_is_filled(partnerless):
    partners = torch.tensor([0, 2, 1, 4, 3])
    keys = KEYS.clone()
    if partnerless == "its twin":
        partners, keys[2] = torch.tensor([2, 3, 0, 1, 3]), keys[0]
    alone, filled = (
        corrupt(named(), keys=keys, partners=partners, alien_probability=rate)
        for rate in (1.0, 0.0)
    )
    for part, expected in zip(alone, filled, strict=True):
        same(part[0], expected[0])
    assert alone.spectrogram[0][alone.mask[0]].eq(0).all()
    assert not alone.spectrogram[1][alone.mask[1]].eq(0).any()


def test_rectangles_are_aligned_to_patches_if_asked():
    for align in (False, True):
        hidden = corrupt(named(), aligned=align).mask[:1].float()
        share = torch.nn.functional.avg_pool2d(hidden, PATCH)
        assert bool((share.eq(0) | share.eq(1)).all()) == align


def test_seed_step_and_purpose_each_change_the_corruption():
    first, *others = (
        corrupt(named(), **where, ratio=(0.5, 0.5), alien_probability=0.0).mask
        for where in (
            {},
            {"seed": 1},
            {"step": 1},
            {"purpose": "second view"},
            {"seed": 1, "step": 1},
        )
    )
    assert all(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("fill", ["zeros", "noise", "silence"])
def test_precision_and_autocast_change_nothing(fill):
    plain = corrupt(named(), fill=fill)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = corrupt(named(), fill=fill)
    double = corrupt(named().double(), fill=fill)
    assert plain.spectrogram.dtype == torch.float32
    assert double.spectrogram.dtype == torch.float64
    same(plain.spectrogram, under.spectrogram)
    same(plain.spectrogram.double(), double.spectrogram)
    assert torch.equal(plain.mask, under.mask)
    assert torch.equal(plain.mask, double.mask)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("ratio", (0.0, 0.5)),
        ("ratio", (0.7, 0.5)),
        ("ratio", (0.5, 0.95)),
        ("ratio", (math.nan, 0.5)),
        ("alien_ratio", 0.0),
        ("alien_ratio", 0.91),
        ("alien_probability", 1.1),
        ("alien_probability", -0.1),
        ("max_block_ratio", 0.0),
        ("max_block_ratio", 1.1),
    ],
)
def test_wrong_settings_are_refused(field, wrong):
    with pytest.raises(ConfigError, match=rf"^{field} = .*; allowed: .*0"):
        Corruption.Config(**{field: wrong})


def test_settings_survive_toml():
    config = Corruption.Config(fill="noise", ratio=(0.5, 0.5), aligned=True)
    assert from_dict(Corruption.Config, to_dict(config)) == config
