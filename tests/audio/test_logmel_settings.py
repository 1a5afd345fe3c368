"""Every combination of settings means what it says, for clips of any length, beside any others."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.audio.logmel import LogMel
from melpatch.audio.mel import mel_filters
from melpatch.errors import ConfigError

RATE = 8000
settings = st.builds(
    partial(LogMel.Config, sample_rate=RATE, n_mels=12, mean=-3.0),
    window_ms=st.integers(20, 250).map(lambda samples: 1000 * (samples + 0.5) / RATE),
    hop_ms=st.integers(10, 120).map(lambda samples: 1000 * (samples + 0.5) / RATE),
    fft_length=st.sampled_from([None, 250, 256, 300]),
    unit_norm=st.booleans(),
    preemphasis=st.sampled_from([0.0, 0.5, 0.97]),
    preemphasis_over=st.sampled_from(["frame", "wave"]),
    centred=st.booleans(),
    remove_offset=st.booleans(),
    window=st.sampled_from(["hann", "hann_periodic", "povey"]),
    spectrum=st.sampled_from(["power", "magnitude"]),
    mel=st.sampled_from(["kaldi", "htk", "slaney"]),
    floor=st.sampled_from([1e-10, 1e-5]),
    floor_added=st.booleans(),
    range_db=st.sampled_from([None, 20.0, 80.0]),
)
lengths = st.one_of(st.integers(0, 20), st.integers(20, 1500))


def sound(samples, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


def features(config, wave):
    """The spectrogram of one clip, (mel, frame)."""
    wave = torch.as_tensor(wave)[None]
    return LogMel(config)(wave, torch.tensor([wave.shape[1]]))[0][0]


def window_of(config):
    if config.window == "povey":
        return scipy.signal.get_window("hann", config.win_length, fftbins=False) ** 0.85
    return scipy.signal.get_window(
        "hann", config.win_length, fftbins=config.window == "hann_periodic"
    )


def filters_of(config):
    """Tested in test_mel.py."""
    return mel_filters(
        config.mel,
        sample_rate=RATE,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        low_hz=config.low_hz,
        high_hz=config.top_hz,
    )


def slow(config, wave):
    """One step after the other, frame by frame, (mel, frame)."""
    size = config.win_length
    if config.unit_norm:
        wave = wave / max(math.sqrt((wave**2).sum()), math.sqrt(1e-9))
    if config.preemphasis_over == "wave":
        wave = np.array([wave[i] - config.preemphasis * wave[i - 1] for i in range(1, len(wave))])
    if config.centred:
        wave = np.pad(
            wave if len(wave) else np.zeros(1), (math.ceil(size / 2), size // 2), mode="reflect"
        )
    else:
        wave = np.pad(wave, (0, max(0, size - len(wave))))
    columns = []
    for start in range(0, len(wave) - size + 1, config.hop_length):
        frame = wave[start : start + size]
        if config.remove_offset:
            frame = frame - frame.mean()
        if config.preemphasis_over == "frame":
            frame = frame - config.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        magnitude = np.abs(np.fft.rfft(frame * window_of(config), config.n_fft))
        mel = filters_of(config) @ (magnitude**2 if config.spectrum == "power" else magnitude)
        columns.append(
            np.log(mel + config.floor if config.floor_added else np.maximum(mel, config.floor))
        )
    log_mel = np.array(columns).T
    if config.range_db is not None:
        log_mel = np.maximum(log_mel, log_mel.max() - config.range_db * math.log(10) / 10)
    return (log_mel - config.mean) / (config.scale * config.std)


@given(settings, lengths, st.sampled_from([1.0, 1e-6]))
def test_equals_the_slow_version(config, length, level):
    wave, front = level * sound(length), LogMel(config)
    ours, expected = features(config, wave), slow(config, wave)
    assert ours.dtype == torch.float64
    assert ours.shape == expected.shape == (12, front.frames(length))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        front.denormalise(ours),
        expected * config.scale * config.std + config.mean,
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("path", ["_clip_by_clip", "_batched"])
@given(
    config=settings,
    lengths=st.lists(lengths, min_size=1, max_size=4),
    extra=st.integers(0, 400),
    garbage=st.sampled_from([0.0, 1e6, math.inf, math.nan]),
)
def test_padding_has_no_effect(path, config, lengths, extra, garbage):
    """The second path is what other devices run."""
    front, counts = LogMel(config), torch.tensor(lengths)
    wave = torch.full((len(lengths), max(lengths) + extra), garbage, dtype=torch.float64)
    for i, length in enumerate(lengths):
        wave[i, :length] = torch.from_numpy(sound(length, seed=i))
    batch, valid = getattr(front, path)(wave, counts), front.frames(counts)
    assert batch.shape == (len(lengths), 12, front.frames(wave.shape[1]))
    for i, length in enumerate(lengths):
        alone, frames = front(wave[i : i + 1, :length], counts[i : i + 1])
        assert alone.shape[2] == frames[0] == valid[i]
        assert batch[i, :, valid[i] :].eq(0).all()
        atol = 0 if path == "_clip_by_clip" else 1e-6
        torch.testing.assert_close(batch[i, :, : valid[i]], alone[0], rtol=0, atol=atol)


@given(settings, st.integers(0, 5000))
def test_frames_agrees_for_numbers_and_tensors(config, samples):
    front = LogMel(config)
    assert front.frames(torch.tensor([[samples]])).tolist() == [[front.frames(samples)]]


@given(settings)
def test_overhead_and_whole_hops_make_one_frame_more(config):
    front = LogMel(config)
    for hops in (0, 1, 7):
        samples = config.overhead + hops * config.hop_length
        assert front.frames(samples) == hops + 1
        assert front.frames(samples - 1) == max(hops, 1)


@given(settings, lengths)
def test_silence_is_finite_and_the_lowest_value(config, length):
    silent = features(config, np.zeros(length))
    assert math.isfinite(LogMel(config).silence)
    assert silent.numpy() == pytest.approx(LogMel(config).silence, abs=1e-9)
    assert features(config, sound(length)).min() >= LogMel(config).silence - 1e-9


def test_silence_of_the_least_floor_is_finite_in_single_precision():
    config = LogMel.Config(floor=2.0**-126)
    silent = features(config, np.zeros(4000, np.float32))
    assert silent.numpy() == pytest.approx(LogMel(config).silence, abs=1e-5)


@pytest.mark.parametrize("size", [255, 256, 300, 399])
def test_centred_frames_lie_as_in_torch_stft(size):
    config = LogMel.Config(
        sample_rate=RATE,
        n_mels=12,
        window_ms=1000 * (size + 0.5) / RATE,
        centred=True,
        remove_offset=False,
        preemphasis=0.0,
        fft_length=400,
    )
    wave, window = torch.from_numpy(sound(3000)), torch.from_numpy(np.hanning(size))
    spectrum = (
        torch.stft(wave, 400, config.hop_length, size, window, return_complex=True).abs().square()
    )
    mel = torch.from_numpy(filters_of(config)) @ spectrum
    ours = LogMel(config).denormalise(features(config, wave))
    torch.testing.assert_close(ours, mel.clamp(min=2.0**-23).log(), rtol=0, atol=1e-9)


def test_unit_norm_removes_the_level():
    config = LogMel.Config(unit_norm=True)
    loud, soft = features(config, sound(4000)), features(config, 1e-3 * sound(4000))
    torch.testing.assert_close(loud, soft, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"spectrum": "magnitude"},
        {"centred": True, "preemphasis_over": "wave"},
        {"unit_norm": True},
    ],
)
def test_gradients_are_finite_in_silence_too(chosen):
    wave = torch.from_numpy(np.stack([sound(3000), np.zeros(3000)])).requires_grad_()
    LogMel(LogMel.Config(floor_added=True, **chosen))(wave, torch.tensor([3000, 3000]))[
        0
    ].sum().backward()
    assert wave.grad.isfinite().all()
    assert wave.grad[0].ne(0).any()


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("fft_length", {"fft_length": 398}),
        ("fft_length", {"fft_length": 401}),
        ("fft_length", {"fft_length": 0}),
        ("n_mels", {"fft_length": 400, "n_mels": 201}),
        ("floor", {"floor": 0.0}),
        ("floor", {"floor": 1e-39}),
        ("floor", {"floor": math.nan}),
        ("floor", {"floor": math.inf}),
    ],
)
def test_invalid_settings_are_rejected(field, wrong):
    with pytest.raises(ConfigError, match=f"^{field} = .*; allowed: "):
        LogMel.Config(**wrong)


@pytest.mark.parametrize("field", ["window", "preemphasis_over", "spectrum", "mel", "padding"])
def test_a_wrong_choice_is_rejected_without_a_type_checker(field):
    config = LogMel.Config()
    object.__setattr__(config, field, "other")
    with pytest.raises(ConfigError, match=f"^{field} = 'other'; allowed: '.*' or '.*'"):
        config.__post_init__()
