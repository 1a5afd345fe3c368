import math

import pytest
import torch
from float64_on_device import Float64OnDevice

from benchmarks.view_augment import ON_SPECTROGRAMS, ON_WAVES
from melpatch.audio import view_augment
from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import from_dict, to_dict
from melpatch.errors import ConfigError

FRONT_END = LogMel(n_mels=20)
LENGTHS = torch.tensor([4000, 8000, 1, 5001])
FRAMES = torch.tensor([50, 60, 1, 33])
KEYS = torch.tensor([11, -7, 3, 2**40])
PARTNERS = torch.tensor([3, 2, 1, 0])
ALL_WAVES = {name: value for settings in ON_WAVES.values() for name, value in settings.items()}
ALL_SPECTROGRAMS = {
    name: value for settings in ON_SPECTROGRAMS.values() for name, value in settings.items()
}
of_waves = pytest.mark.parametrize(
    "settings", [*ON_WAVES.values(), ALL_WAVES], ids=[*ON_WAVES, "all"]
)
of_spectrograms = pytest.mark.parametrize(
    "settings", [*ON_SPECTROGRAMS.values(), ALL_SPECTROGRAMS], ids=[*ON_SPECTROGRAMS, "all"]
)


def waves(garbage=0.0):
    wave = torch.randn(4, 8000, generator=torch.Generator().manual_seed(1)) * 0.1
    return wave.where(torch.arange(8000) < LENGTHS[:, None], garbage)


def spectrograms(garbage=0.0):
    spectrogram = torch.randn(4, 20, 60, generator=torch.Generator().manual_seed(2))
    return spectrogram.where(torch.arange(60) < FRAMES[:, None, None], garbage)


def view_of_waves(settings, wave, rows=slice(None), **draw):
    draw = {"seed": 0, "step": 0, "view": 0} | draw
    augment = ViewAugment(ViewAugment.Config(**settings), FRONT_END)
    return augment.wave(wave, LENGTHS[rows], KEYS[rows], **draw)


def view_of_spectrograms(settings, spectrogram, **draw):
    draw = {"seed": 0, "step": 0, "view": 0} | draw
    augment = ViewAugment(ViewAugment.Config(**settings), FRONT_END)
    return augment.spectrogram(spectrogram, FRAMES, PARTNERS, KEYS, **draw)


def test_by_default_nothing_is_changed():
    assert torch.equal(view_of_waves({}, waves()), waves())
    assert torch.equal(view_of_spectrograms({}, spectrograms()), spectrograms())


@of_waves
def test_waves_are_repeatable_and_differ_between_views_and_steps(settings):
    wave = waves()
    view = view_of_waves(settings, wave)
    assert torch.equal(wave, waves())
    assert torch.equal(view, view_of_waves(settings, wave))
    assert view.isfinite().all()
    assert (view != wave).any(dim=1)[[0, 1, 3]].all()
    if settings != {"polarity": 1.0}:
        for other in ({"view": 1}, {"step": 1}, {"seed": 1}):
            differs = (view != view_of_waves(settings, wave, **other)).any(dim=1)
            assert differs[[0, 1, 3]].all()


@of_spectrograms
def test_spectrograms_are_repeatable_and_differ_between_views_and_steps(settings):
    before = spectrograms()
    view = view_of_spectrograms(settings, before)
    assert torch.equal(before, spectrograms())
    assert torch.equal(view, view_of_spectrograms(settings, before))
    assert view.isfinite().all()
    for other in ({"view": 1}, {"step": 1}, {"seed": 1}):
        again = view_of_spectrograms(settings, before, **other)
        differs = (view != again).flatten(1).any(dim=1)
        # Half of all rectangles have all mels.
        assert differs.any() if "crop_mels" in settings else differs[[0, 1, 3]].all()


@of_waves
@pytest.mark.parametrize("garbage", [7.0, math.nan])
def test_waves_are_the_same_alone_and_padded(settings, garbage):
    padded = waves(garbage)
    batch = view_of_waves(settings, padded)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = view_of_waves(settings, waves()[i : i + 1, :length], slice(i, i + 1))
        torch.testing.assert_close(batch[i, :length], alone[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            batch[i, length:], padded[i, length:], rtol=0, atol=0, equal_nan=True
        )


@of_waves
@pytest.mark.parametrize("garbage", [0.0, math.nan])
def test_a_batch_at_once_is_what_one_clip_after_the_other_is(settings, garbage, monkeypatch):
    """Of which devices other than a CPU take the first."""
    one_by_one = view_of_waves(settings, waves(garbage))
    monkeypatch.setattr(view_augment, "_one_by_one", view_augment._batched)
    at_once = view_of_waves(settings, waves(garbage))
    torch.testing.assert_close(at_once, one_by_one, rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["polarity", "pitch", "high_pass", "fade", "burst"])
def test_a_batch_at_once_changes_the_chosen_clips_only(name, monkeypatch):
    wave = 0.1 * torch.randn(60, 700, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((60,), 700)
    augment = ViewAugment(ViewAugment.Config(**{name: 0.5}), FRONT_END)
    draw = {"seed": 0, "step": 0, "view": 0}
    one_by_one = augment.wave(wave, lengths, torch.arange(60), **draw)
    monkeypatch.setattr(view_augment, "_one_by_one", view_augment._batched)
    at_once = augment.wave(wave, lengths, torch.arange(60), **draw)
    unchanged = (at_once == wave).all(dim=1)
    assert torch.equal(unchanged, (one_by_one == wave).all(dim=1))
    assert 10 < unchanged.sum() < 50


def test_devices_need_no_float64_and_are_not_waited_for():
    # A tensor on the meta device has no value that could be asked for.
    augment = ViewAugment(ViewAugment.Config(**ALL_WAVES, **ALL_SPECTROGRAMS), FRONT_END)
    draw = {"seed": 0, "step": 0, "view": 0}
    lengths, frames, partners, keys = (x.to("meta") for x in (LENGTHS, FRAMES, PARTNERS, KEYS))
    with Float64OnDevice() as dtypes:
        wave = augment.wave(waves().to("meta"), lengths, keys, **draw)
        spectrogram = spectrograms().to("meta")
        spectrogram = augment.spectrogram(spectrogram, frames, partners, keys, **draw)
    assert wave.shape == (4, 8000)
    assert spectrogram.shape == (4, 20, 60)
    assert dtypes.operators == []


@of_spectrograms
@pytest.mark.parametrize("garbage", [7.0, math.nan])
def test_spectrograms_do_not_depend_on_padding(settings, garbage):
    padded = spectrograms(garbage)
    view = view_of_spectrograms(settings, padded)
    wider = torch.nn.functional.pad(spectrograms(), (0, 9))
    clean = view_of_spectrograms(settings, wider)
    for i, frames in enumerate(FRAMES.tolist()):
        torch.testing.assert_close(view[i, :, :frames], clean[i, :, :frames], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            view[i, :, frames:], padded[i, :, frames:], rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("name", ["polarity", "noise", "gain", "fade", "stretch"])
def test_a_share_of_the_clips_is_changed(name):
    clips = 400
    wave = torch.randn(clips, 300, generator=torch.Generator().manual_seed(0))
    augment = ViewAugment(ViewAugment.Config(**{name: 0.3}), FRONT_END)
    lengths = torch.full((clips,), 300)
    view = augment.wave(wave, lengths, torch.arange(clips), seed=0, step=0, view=0)
    # Four standard deviations.
    assert abs((view != wave).any(dim=1).float().mean() - 0.3) < 0.1


def test_whether_and_how_much_are_independent():
    clips = 2000
    wave = torch.randn(clips, 400, generator=torch.Generator().manual_seed(0))
    augment = ViewAugment(ViewAugment.Config(noise=0.3, noise_snr_db=(0.0, 20.0)), FRONT_END)
    lengths = torch.full((clips,), 400)
    added = augment.wave(wave, lengths, torch.arange(clips), seed=0, step=0, view=0) - wave
    chosen = added.abs().amax(dim=1) > 0
    power = wave.square().mean(dim=1) / added.square().mean(dim=1)
    ratio = 10 * power[chosen].log10()
    assert ratio.min() < 1
    assert ratio.max() > 19
    assert abs(float(ratio.mean()) - 10) < 1


def test_rates_and_semitones_are_drawn_in_their_ranges(monkeypatch):
    drawn = []

    def noted(wave, lengths, rate, pitch, sample_rate):
        drawn.append((float(rate), 12 * math.log2(float(pitch)), sample_rate))
        return wave

    monkeypatch.setattr(view_augment, "play", noted)
    augment = ViewAugment(ViewAugment.Config(stretch=0.7, pitch=0.6), FRONT_END)
    lengths = torch.full((1000,), 3)
    augment.wave(torch.ones(1000, 3), lengths, torch.arange(1000), seed=0, step=0, view=0)
    # Clips with neither are left out: 0.3 x 0.4.
    assert 840 < len(drawn) < 920
    rates = torch.tensor([rate for rate, _, _ in drawn if rate != 1])
    semitones = torch.tensor([semitone for _, semitone, _ in drawn if semitone])
    assert 650 < len(rates) < 750
    assert 550 < len(semitones) < 650
    assert 0.7 <= rates.min() < 0.72
    assert 1.28 < rates.max() <= 1.3001
    assert -4.001 < semitones.min() < -3.9
    assert 3.9 < semitones.max() < 4.001
    assert {rate for _, _, rate in drawn} == {16000}
    # Whether and how much are independent of each other.
    assert abs(float(semitones.mean())) < 0.35
    assert abs(float(rates.mean()) - 1) < 0.03


def test_polarity_is_the_sign():
    assert torch.equal(view_of_waves({"polarity": 1.0}, waves()), -waves())


def test_a_change_that_would_leave_silence_is_not_made():
    hum = torch.sin(2 * math.pi * 50 / 16000 * torch.arange(8000)).expand(4, -1).clone()
    lengths = torch.full((4,), 8000)
    settings = {"high_pass": 1.0, "high_pass_hz": (2400.0, 2400.0)}
    augment = ViewAugment(ViewAugment.Config(**settings), FRONT_END)
    view = augment.wave(hum, lengths, KEYS, seed=0, step=0, view=0)
    kept = (view == hum).all(dim=1)
    assert kept.any()  # 24 dB per octave
    assert (view.square().mean(dim=1) > 1e-7).all()
    # A click at the very end is cut off by a slow stretch.
    click = torch.zeros(4, 8000)
    click[:, -10] = 1.0
    augment = ViewAugment(ViewAugment.Config(stretch=1.0, stretch_rates=(0.7, 0.7)), FRONT_END)
    assert torch.equal(augment.wave(click, lengths, KEYS, seed=0, step=0, view=0), click)


def test_silence_stays_silence():
    settings = {name: value for name, value in ALL_WAVES.items() if name != "burst"}
    assert (view_of_waves(settings, torch.zeros(4, 8000)) == 0).all()


def test_an_empty_batch_is_no_fault():
    augment = ViewAugment(ViewAugment.Config(**ALL_WAVES, **ALL_SPECTROGRAMS), FRONT_END)
    none = torch.zeros(0, dtype=torch.int64)
    draw = {"seed": 0, "step": 0, "view": 0}
    assert augment.wave(torch.zeros(0, 800), none, none, **draw).shape == (0, 800)
    shape = (0, 20, 9)
    assert augment.spectrogram(torch.zeros(shape), none, none, none, **draw).shape == shape


def test_autocast_changes_nothing():
    settings = ALL_WAVES | ALL_SPECTROGRAMS
    with torch.autocast("cpu", torch.bfloat16):
        wave = view_of_waves(settings, waves())
        spectrogram = view_of_spectrograms(settings, spectrograms())
    assert torch.equal(wave, view_of_waves(settings, waves()))
    assert torch.equal(spectrogram, view_of_spectrograms(settings, spectrograms()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"polarity": 1.5}, "polarity"),
        ({"stretch_rates": (1.3, 0.7)}, "stretch_rates"),
        ({"high_pass_hz": (5.0, 100.0)}, "20"),
        ({"band_stop_width": (0.5, 2.0)}, "band_stop_width"),
        ({"mix": 1.0}, "mix"),
        ({"crop_frames": (0.1, 1.0)}, "crop_frames"),
        ({"fade_length": 0.6}, "fade_length"),
        ({"noise_snr_db": (math.nan, 3.0)}, "noise_snr_db"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ViewAugment.Config(**settings)


def test_settings_survive_as_plain_values():
    config = ViewAugment.Config(**ALL_WAVES, **ALL_SPECTROGRAMS)
    assert from_dict(ViewAugment.Config, to_dict(config)) == config
