import math

import pytest
import torch
from float64_on_device import Float64OnDevice
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from melpatch.audio.augment import (
    Augment,
    beta_gain,
    gain,
    mixup,
    noise,
    pixel_noise,
    roll,
    spec_augment,
)
from melpatch.config import from_dict, to_dict
from melpatch.errors import ConfigError
from melpatch.rng import stream

LENGTHS = torch.tensor([900, 1000, 1, 640])
FRAMES = torch.tensor([50, 60, 1, 33])
KEYS = torch.tensor([11, -7, 3, 2**40])
STATE = stream(0, "test", KEYS)
PARTNERS = torch.tensor([3, 2, 1, 0])
GARBAGE = [0.0, 7.0, math.nan]


def waves(garbage=0.0, samples=1000):
    wave = torch.randn(4, samples, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.02
    wave[torch.arange(samples) >= LENGTHS[:, None]] = garbage
    return wave


def spectrograms(garbage=0.0):
    spectrogram = torch.rand(4, 20, 60, generator=torch.Generator().manual_seed(2)) + 1.0  # never 0
    return torch.where(torch.arange(60) < FRAMES[:, None, None], spectrogram, garbage)


# What each does to one clip at a time: (function of the inputs, their valid lengths and the states; the inputs).
SINGLE = {
    "gain": (lambda x, n, state: gain(x, n, state, 6.0), waves, LENGTHS),
    "beta_gain": (lambda x, n, state: beta_gain(x, n, state, 10), waves, LENGTHS),
    "noise": (lambda x, n, state: noise(x, n, state, (0.0, 20.0)), waves, LENGTHS),
    "roll": (lambda x, n, state: roll(x, n, state, 0.5), waves, LENGTHS),
    "spec_augment": (lambda x, n, state: spec_augment(x, n, state, 8, 16, 2), spectrograms, FRAMES),
    "pixel_noise": (lambda x, n, state: pixel_noise(x, n, state, 0.1), spectrograms, FRAMES),
}
single = pytest.mark.parametrize(("change", "inputs", "lengths"), SINGLE.values(), ids=SINGLE)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@single
def test_the_state_determines_the_change(change, inputs, lengths):
    before = inputs()
    after = change(before, lengths, STATE)
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    changed = (after != before).flatten(1).any(1)
    assert changed[[0, 1, 3]].all()  # a clip of one sample has nothing to roll
    same(before, inputs())
    same(after, change(before, lengths, STATE))
    assert (
        (after != change(before, lengths, stream(0, "test", KEYS, step=1)))
        .flatten(1)
        .any(1)[[0, 1, 3]]
        .all()
    )


@single
@pytest.mark.parametrize("garbage", GARBAGE)
def test_padding_is_unchanged_and_has_no_effect(change, inputs, lengths, garbage):
    before = inputs(garbage)
    after, clean = change(before, lengths, STATE), change(inputs(), lengths, STATE)
    for i, length in enumerate(lengths.tolist()):
        same(after[i, ..., length:], before[i, ..., length:])
        same(after[i, ..., :length], clean[i, ..., :length])


@single
def test_a_clip_gives_the_same_alone_and_in_a_batch(change, inputs, lengths):
    batch = change(inputs(), lengths, STATE)
    for i, length in enumerate(lengths.tolist()):
        alone = change(inputs()[i : i + 1, ..., :length], lengths[i : i + 1], STATE[i : i + 1])[0]
        torch.testing.assert_close(alone, batch[i, ..., :length], rtol=0, atol=1e-6)


def many(clips, samples=400):
    wave = torch.randn(clips, samples, generator=torch.Generator().manual_seed(3))
    return wave, torch.full((clips,), samples), stream(0, "test", torch.arange(clips))


def test_gain_is_one_factor_per_clip_uniform_in_db():
    wave, lengths, state = many(4000, 10)
    decibels = 20 * (gain(wave, lengths, state, 6.0) / wave).log10()
    assert decibels.std(dim=1).max() < 1e-4
    drawn = decibels[:, 0]
    assert drawn.abs().max() <= 6.0 + 1e-4
    torch.testing.assert_close(
        drawn.quantile(torch.tensor([0.25, 0.5, 0.75])),
        torch.tensor([-3.0, 0.0, 3.0]),
        rtol=0,
        atol=0.3,
    )


@pytest.mark.parametrize("alpha", [1, 10])
def test_beta_gain_is_one_factor_per_clip_of_beta_and_a_half(alpha):
    wave, lengths, state = many(4000, 10)
    factor = beta_gain(wave, lengths, state, alpha) / wave
    assert factor.std(dim=1).max() < 1e-4
    drawn = factor[:, 0].double().numpy() - 0.5
    # 0.1 % of correct draws would fail.
    assert kstest(drawn, beta(alpha, alpha).cdf).pvalue > 1e-3


def test_noise_is_white_and_has_the_requested_ratio():
    wave, lengths, state = many(50, 20000)
    added = noise(wave, lengths, state, (5.0, 15.0)) - wave
    ratio = 10 * (wave.square().mean(1) / added.square().mean(1)).log10()
    assert 4.8 < ratio.min() < 6.5
    assert 13.5 < ratio.max() < 15.2
    neighbours = (added[:, 1:] * added[:, :-1]).mean(1) / added.square().mean(1)
    assert neighbours.abs().max() < 5 / math.sqrt(20000)


def test_noise_is_independent_of_its_ratio():
    wave, lengths, state = many(1000, 200)
    added = noise(wave, lengths, state, (0.0, 20.0)) - wave
    deviation = added.std(dim=1)
    assert (
        torch.corrcoef(torch.stack([deviation.log(), (added[:, 0] / deviation).abs()]))[0, 1].abs()
        < 0.15
    )


def test_silence_gets_no_noise():
    wave, lengths, state = torch.zeros(2, 100), torch.tensor([100, 0]), STATE[:2]
    same(noise(wave, lengths, state, (0.0, 0.0)), wave)


def test_roll_is_a_rotation_by_at_most_its_share():
    wave, lengths, state = many(500, 100)
    ramp = torch.arange(100.0).expand_as(wave)
    shifts = (ramp - roll(ramp, lengths, state, 0.2)) % 100
    assert (shifts == shifts[:, :1]).all()
    signed = (shifts[:, 0] + 50) % 100 - 50
    assert signed.min() == -20
    assert signed.max() == 20


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(0.0, 1.0),
)
def test_roll_keeps_the_samples_of_every_clip(lengths, key, share):
    wave = torch.arange(40.0).expand(len(lengths), 40)
    rolled = roll(
        wave, torch.tensor(lengths), stream(0, "test", key + torch.arange(len(lengths))), share
    )
    for i, length in enumerate(lengths):
        assert rolled[i, :length].sort().values.tolist() == list(range(length))


def test_mixup_of_waves_is_a_weighted_sum_of_centred_clips_with_the_weights_of_the_targets():
    wave, targets = mixup(waves(), LENGTHS, torch.eye(4), PARTNERS, STATE, 1.0, 10)
    centred = [clip[:n] - clip[:n].mean() for clip, n in zip(waves(), LENGTHS, strict=True)]
    for i, n in enumerate(LENGTHS.tolist()):
        weight = targets[i, i]
        partner = PARTNERS[i]
        assert targets[i, partner] > 0
        assert targets[i].sum().item() == pytest.approx(1.0)
        assert (targets[i] > 0).sum() == 2
        cut = torch.zeros(n)
        cut[: min(n, LENGTHS[partner])] = centred[partner][:n]
        torch.testing.assert_close(
            wave[i, :n], weight * centred[i] + (1 - weight) * cut, rtol=0, atol=1e-6
        )


def test_mixup_of_spectrograms_is_a_weighted_sum_with_the_weights_of_the_targets():
    mixed, targets = mixup(spectrograms(), FRAMES, torch.eye(4), PARTNERS, STATE, 1.0, 1)
    for i, n in enumerate(FRAMES.tolist()):
        weight = targets[i, i]
        partner = PARTNERS[i]
        cut = torch.zeros(20, n)
        shared = min(n, FRAMES[partner])
        cut[:, :shared] = spectrograms()[partner, :, :shared]
        expected = weight * spectrograms()[i, :, :n] + (1 - weight) * cut
        torch.testing.assert_close(mixed[i, :, :n], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    ("inputs", "sizes"), [(waves, LENGTHS), (spectrograms, FRAMES)], ids=["wave", "spectrogram"]
)
def test_mixup_neither_changes_padding_nor_depends_on_it(inputs, sizes, garbage):
    before = inputs(garbage)
    after, clean = (
        mixup(one, sizes, None, PARTNERS, STATE, 1.0, 10)[0] for one in (before, inputs())
    )
    for i, size in enumerate(sizes.tolist()):
        same(after[i, ..., size:], before[i, ..., size:])
        same(after[i, ..., :size], clean[i, ..., :size])


def test_mixup_is_the_same_for_a_state_and_changes_with_the_step():
    states = (stream(0, "test", KEYS, step) for step in (0, 0, 1))
    first, again, other = (
        mixup(waves(), LENGTHS, None, PARTNERS, state, 1.0, 10) for state in states
    )
    assert first[1] is None
    same(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_mixup_mixes_only_the_given_share_of_clips():
    wave, lengths, state = many(2000, 2)
    mixed_wave, targets = mixup(
        wave, lengths, torch.eye(2000), torch.arange(2000) ^ 1, state, 0.3, 10
    )
    untouched = targets.diagonal() == 1.0
    same(mixed_wave[untouched], wave[untouched])
    assert 0.27 < 1 - untouched.float().mean() < 0.33


@pytest.mark.parametrize("alpha", [1, 2, 10])
def test_mixup_weights_follow_the_beta_distribution(alpha):
    wave, lengths, state = many(3000, 2)
    weight = mixup(wave, lengths, torch.eye(3000), torch.arange(3000) ^ 1, state, 1.0, alpha)[
        1
    ].diagonal()
    variance = 1 / (4 * (2 * alpha + 1))
    assert weight.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(variance / 3000))
    assert weight.var().item() == pytest.approx(variance, rel=0.12)


def test_mixup_does_not_change_a_clip_without_partner():
    partners = torch.tensor([1, 0, 2, 3])
    wave, targets = mixup(waves(), LENGTHS, torch.eye(4), partners, STATE, 1.0, 10)
    same(wave[2:], waves()[2:])
    same(targets[2:], torch.eye(4)[2:])
    assert not torch.equal(wave[:2], waves()[:2])


@settings(max_examples=50, deadline=None)
@given(
    frames=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    key=st.integers(-(2**63), 2**63 - 1),
    freq_mask=st.integers(0, 15),
    time_mask=st.integers(0, 40),
)
def test_one_mask_of_each_kind_is_one_band_narrower_than_its_limit(
    frames, key, freq_mask, time_mask
):
    state = stream(0, "test", key + torch.arange(len(frames)))
    masked = spec_augment(
        torch.ones(len(frames), 10, 30), torch.tensor(frames), state, freq_mask, time_mask
    )
    for clip, count in zip(masked, frames, strict=True):
        assert clip[:, count:].eq(1).all()
        rows, columns = (
            (clip[:, :count] == 0).all(1).nonzero()[:, 0],
            (clip[:, :count] == 0).all(0).nonzero()[:, 0],
        )
        for band, limit, size in ((rows, freq_mask, 10), (columns, time_mask, count)):
            assert len(band) < max(1, min(limit, size))
            assert len(band) == 0 or band[-1] - band[0] + 1 == len(band)
        expected = torch.ones(10, count)
        expected[rows], expected[:, columns] = 0, 0
        same(clip[:, :count], expected)


def test_masks_reach_every_width_below_the_limit_and_every_place():
    clips = 3000
    state, frames = stream(0, "test", torch.arange(clips)), torch.full((clips,), 30)
    hidden = spec_augment(torch.ones(clips, 10, 30), frames, state, 4, 6) == 0
    heights, widths = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert heights.unique().tolist() == [0, 1, 2, 3]
    assert widths.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.corrcoef(torch.stack([heights, widths]).float())[0, 1].abs() < 0.1
    assert hidden.all(2).any(0).all()
    assert hidden.all(1).any(0).all()


def test_several_masks_hide_more_than_one():
    clips = 500
    state, frames = stream(0, "test", torch.arange(clips)), torch.full((clips,), 200)
    one, three = (
        spec_augment(torch.ones(clips, 64, 200), frames, state, 8, 20, n).eq(0).float().mean()
        for n in (1, 3)
    )
    assert 2.0 < three / one < 3.0


def through(config, permute=None, step=0):
    """Wave, targets and spectrogram of a batch after ``Augment``, its clips in the given order."""
    order = torch.arange(4) if permute is None else permute
    augment = Augment(config)
    whose = KEYS[order], PARTNERS, 5, step
    wave, targets = augment.wave(waves()[order], LENGTHS[order], torch.eye(4)[order], *whose)
    spectrogram, targets = augment.spectrogram(
        spectrograms()[order], FRAMES[order], targets, *whose
    )
    return wave, targets, spectrogram


def test_pixel_noise_is_uniform_up_to_a_strength_that_is_uniform_over_clips():
    quiet = torch.zeros(1000, 8, 30)
    added = pixel_noise(
        quiet, torch.full((1000,), 30), stream(0, "test", torch.arange(1000)), 0.1
    ).flatten(1)
    strength = added.amax(1)  # within 1/240 of it, on average
    assert added.min() >= 0
    assert strength.max() <= 0.1
    assert strength.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx(
        [0.025, 0.05, 0.075], abs=5e-3
    )
    assert (added / strength[:, None]).mean().item() == pytest.approx(0.5, abs=0.01)


def test_masked_values_become_noisy_too():
    """As published."""
    masked, noisy = (
        through(Augment.Config(freq_mask=8, pixel_noise=most))[2] for most in (0.0, 0.1)
    )
    hidden = (masked == 0) & (spectrograms() != 0)
    assert hidden.any()
    assert (noisy[hidden] > 0).all()


def test_nothing_is_changed_by_default():
    for after, before in zip(
        through(Augment.Config()), (waves(), torch.eye(4), spectrograms()), strict=True
    ):
        same(after, before)


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({"mixup_rate": 1.0}, (True, True, False)),
        ({"mixup_rate": 1.0, "mixup_on": "spectrogram"}, (False, True, True)),
        ({"roll": 0.5}, (True, False, False)),
        ({"gain_db": 6.0}, (True, False, False)),
        ({"gain_beta": 10}, (True, False, False)),
        ({"noise_snr_db": (0.0, 10.0)}, (True, False, False)),
        ({"freq_mask": 8}, (False, False, True)),
        ({"time_mask": 8}, (False, False, True)),
        ({"time_mask": 8, "masks": 0}, (False, False, False)),
        ({"pixel_noise": 0.1}, (False, False, True)),
    ],
)
def test_every_setting_changes_its_own_part_differently_at_every_step(config, changed):
    config = Augment.Config(**config)
    before, first, second = (
        (waves(), torch.eye(4), spectrograms()),
        through(config),
        through(config, step=1),
    )
    for part in range(3):
        assert torch.equal(before[part], first[part]) != changed[part]
        assert torch.equal(first[part], second[part]) != changed[part]


def test_spectrograms_are_masked_before_they_are_mixed():
    """So a masked band of one clip holds the other's values, as in the published PANNs."""
    masked = Augment.Config(freq_mask=8, time_mask=8, masks=2)
    mixed = Augment.Config(
        freq_mask=8, time_mask=8, masks=2, mixup_rate=1.0, mixup_on="spectrogram"
    )
    state = stream(5, "augment/mixup", KEYS, 0)
    expected = mixup(through(masked)[2], FRAMES, torch.eye(4), PARTNERS, state, 1.0, 10)
    _, targets, spectrogram = through(mixed)
    same(spectrogram, expected[0])
    same(targets, expected[1])


def test_the_order_of_the_batch_does_not_matter_without_mixup():
    config = Augment.Config(
        roll=0.5, gain_db=6.0, noise_snr_db=(0.0, 10.0), freq_mask=8, time_mask=8
    )
    order = torch.tensor([2, 0, 3, 1])
    for shuffled, straight in zip(through(config, order), through(config), strict=True):
        torch.testing.assert_close(shuffled, straight[order], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("mixup_rate", 1.5),
        ("mixup_alpha", 0),
        ("roll", -0.1),
        ("gain_db", math.inf),
        ("gain_beta", -1),
        ("noise_snr_db", (10.0, 0.0)),
        ("noise_snr_db", (math.nan, 0.0)),
        ("masks", -1),
        ("freq_mask", -1),
        ("time_mask", -1),
        ("pixel_noise", -0.1),
    ],
)
def test_invalid_settings_are_rejected(field, wrong):
    with pytest.raises(ConfigError, match=f"^{field} = "):
        Augment.Config(**{field: wrong})


@single
def test_no_augmentation_needs_float64_on_the_device(change, inputs, lengths):
    with Float64OnDevice() as dtypes:
        change(inputs().to("meta"), lengths.to("meta"), STATE.to("meta"))
    assert dtypes.operators == []


def test_mixup_needs_no_float64_on_the_device():
    inputs = (waves(), LENGTHS, torch.eye(4), PARTNERS, STATE)
    with Float64OnDevice() as dtypes:
        mixup(*(tensor.to("meta") for tensor in inputs), 0.5, 10)
    assert dtypes.operators == []


def test_settings_survive_toml():
    config = Augment.Config(noise_snr_db=(0.0, 10.0), mixup_rate=0.5, time_mask=192)
    assert from_dict(Augment.Config, to_dict(config)) == config
