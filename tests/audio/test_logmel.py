import math

import numpy as np
import pytest
import torch
from float64_on_device import Float64OnDevice
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldi_features import kaldi_features
from torch.utils._python_dispatch import TorchDispatchMode

from melpatch.audio.logmel import LOG_FLOOR, LogMel
from melpatch.config import from_dict, to_dict
from melpatch.errors import ConfigError

UNSCALED = {"mean": 0.0, "std": 1.0, "scale": 1.0}
"""Settings under which the output is the plain log-mel."""


def sound(samples, seed=0):
    """Noise under a tone that swells, so that frames differ and some bins are near the floor."""
    time = np.arange(samples) / max(samples, 1)
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.05 * noise * time**2 + 0.3 * np.sin(300 * time**2)).astype(np.float32)


def features(config, wave):
    """The spectrogram of one clip, (mel, frame)."""
    wave = torch.as_tensor(wave)[None]
    return LogMel(config)(wave, torch.tensor([wave.shape[1]]))[0][0]


def by_the_book(config, wave):
    """Frame by frame, filter by filter, as Kaldi's documentation tells it; (mel, frame)."""
    size = math.floor(config.sample_rate * config.window_ms / 1000)
    hop = math.floor(config.sample_rate * config.hop_ms / 1000)
    n_fft = next(2**power for power in range(30) if 2**power >= size)
    hz = [k * config.sample_rate / n_fft for k in range(n_fft // 2)]
    mel = lambda f: 1127 * math.log(1 + f / 700)  # noqa: E731
    low, high = mel(config.low_hz), mel(config.high_hz or config.sample_rate / 2)
    step = (high - low) / (config.n_mels + 1)
    columns = []
    for start in range(0, len(wave) - size + 1, hop):
        frame = wave[start : start + size].astype(np.float64)
        frame = frame - frame.mean()
        frame = [x - config.preemphasis * frame[max(i - 1, 0)] for i, x in enumerate(frame)]
        window = [0.5 - 0.5 * math.cos(2 * math.pi * i / (size - 1)) for i in range(size)]
        power = np.abs(np.fft.rfft(np.multiply(frame, window), n_fft)) ** 2
        column = []
        for row in range(config.n_mels):
            left, right = low + row * step, low + (row + 2) * step
            energy = 0.0
            for k, f in enumerate(hz):
                if left < mel(f) < right:
                    energy += power[k] * min((mel(f) - left) / step, (right - mel(f)) / step)
            column.append(math.log(max(energy, 2.0**-23)))
        columns.append(column)
    return np.array(columns).T


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"n_mels": 40, "low_hz": 0.0, "high_hz": 7600.0, "preemphasis": 0.0},
        {"sample_rate": 22050, "n_mels": 64, "window_ms": 46.4, "hop_ms": 5.8},
        {"sample_rate": 4000, "n_mels": 20, "window_ms": 16.0, "hop_ms": 30.0, "preemphasis": 1.0},
    ],
)
def test_equals_the_slow_version(changed):
    config = LogMel.Config(**UNSCALED | changed)
    wave = sound(config.sample_rate // 7)
    np.testing.assert_allclose(
        features(config, wave.astype(np.float64)), by_the_book(config, wave), atol=1e-9
    )


@pytest.mark.parametrize("n_mels", [40, 64, 80, 128])
@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_equals_kaldi(sample_rate, n_mels):
    config = LogMel.Config(sample_rate=sample_rate, n_mels=n_mels, **UNSCALED)
    wave = sound(sample_rate // 2)
    ours = features(config, wave)
    theirs = kaldi_features(config, wave)
    assert ours.shape == theirs.shape
    compared = np.isfinite(theirs)
    assert compared.mean() > 0.98
    np.testing.assert_allclose(ours[compared], theirs[compared], atol=2e-3)


@given(st.integers(0, 5000), st.floats(1.0, 60.0), st.floats(1.0, 60.0))
def test_frames_counts_the_windows_that_fit(samples, window_ms, hop_ms):
    front = LogMel(LogMel.Config(sample_rate=8000, n_mels=4, window_ms=window_ms, hop_ms=hop_ms))
    size, hop = front.config.win_length, front.config.hop_length
    expected = max(1, len(range(0, samples - size + 1, hop)))
    assert front.frames(samples) == expected
    assert front.frames(torch.tensor([[samples]])).tolist() == [[expected]]


@pytest.mark.parametrize("path", ["_clip_by_clip", "_batched"])
@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 2500), min_size=1, max_size=4),
    extra=st.integers(0, 900),
    garbage=st.sampled_from([0.0, 1e6, math.inf, math.nan]),
)
def test_padding_has_no_effect(path, lengths, extra, garbage):
    front = LogMel(LogMel.Config(sample_rate=8000, n_mels=40))
    compute = getattr(front, path)  # the second is what other devices run
    wave = torch.full((len(lengths), max(lengths) + extra), garbage)
    for i, length in enumerate(lengths):
        wave[i, :length] = torch.from_numpy(sound(length, seed=i))
    batch, valid = compute(wave, torch.tensor(lengths)), front.frames(torch.tensor(lengths))
    assert batch.shape == (len(lengths), 40, front.frames(wave.shape[1]))
    for i, length in enumerate(lengths):
        alone, frames = front(wave[i : i + 1, :length], torch.tensor([length]))
        assert frames[0] == valid[i]
        assert batch[i, :, valid[i] :].eq(0).all()
        torch.testing.assert_close(
            batch[i, :, : valid[i]], alone[0], rtol=0, atol=0 if path == "_clip_by_clip" else 1e-5
        )


def test_a_clip_shorter_than_a_window_is_padded_with_zeros():
    wave = sound(250)
    completed = np.concatenate([wave, np.zeros(150, np.float32)])
    assert torch.equal(features(LogMel.Config(), wave), features(LogMel.Config(), completed))


def test_no_clips_give_no_spectrograms():
    spectrogram, frames = LogMel()(torch.zeros(0, 16000), torch.zeros(0, dtype=torch.int64))
    assert spectrogram.shape == (0, 128, 98)
    assert frames.shape == (0,)


def test_silence_is_the_floor_and_the_fourth_bin_is_always_empty():
    config = LogMel.Config(**UNSCALED)
    assert torch.allclose(
        features(config, np.zeros(4000, np.float32)), torch.tensor(math.log(LOG_FLOOR))
    )
    bins_at_floor = (
        features(config, sound(4000)).isclose(torch.tensor(math.log(LOG_FLOOR))).all(dim=1)
    )
    assert bins_at_floor.nonzero().flatten().tolist() == [3]


def test_a_constant_added_to_the_clip_changes_nothing():
    wave = sound(4000).astype(np.float64)
    torch.testing.assert_close(
        features(LogMel.Config(), wave), features(LogMel.Config(), wave + 0.25), rtol=0, atol=1e-9
    )


def test_legacy_padding_is_raw_zero_before_normalisation_and_counts_as_valid():
    wave, lengths = torch.from_numpy(sound(8000)).repeat(2, 1), torch.tensor([8000, 3000])
    masked, valid = LogMel()(wave, lengths)
    for target in (None, 128, 20):
        legacy, frames = LogMel(LogMel.Config(padding="legacy", target_frames=target))(
            wave, lengths
        )
        expected = torch.full((2, 128, target or 48), 4.2677393 / (2 * 4.5689974))
        for i, count in enumerate(valid.clamp(max=target or 48).tolist()):
            expected[i, :, :count] = masked[i, :, :count]
        assert frames.tolist() == [target or 48] * 2
        torch.testing.assert_close(legacy, expected, rtol=0, atol=1e-6)


def test_denormalise_undoes_the_normalisation():
    front, wave = LogMel(), sound(4000)
    undone = front.denormalise(features(front.config, wave))
    torch.testing.assert_close(undone, features(LogMel.Config(**UNSCALED), wave), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_is_never_below_float32(dtype):
    front, lengths = LogMel(), torch.tensor([4000])
    wave = torch.from_numpy(sound(4000))[None].to(dtype)
    expected = front(wave.float(), lengths)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front.to(dtype)(wave, lengths)[0], expected)
    assert front(wave.double(), lengths)[0].dtype == torch.float64


def test_it_has_no_state_and_survives_the_meta_device():
    with torch.device("meta"):
        front = LogMel()
    assert not front.state_dict()
    expected = features(LogMel.Config(), sound(4000))
    assert torch.equal(
        front(torch.from_numpy(sound(4000))[None], torch.tensor([4000]))[0][0], expected
    )


def test_gradients_flow_even_after_inference():
    config = LogMel.Config(n_mels=31)  # settings that nothing else has used
    wave = torch.from_numpy(sound(4000))
    with torch.inference_mode():
        features(config, wave)
    wave.requires_grad_()
    features(config, wave).sum().backward()
    assert wave.grad.isfinite().all()
    assert wave.grad.ne(0).any()


def test_without_lengths_all_samples_are_valid():
    waves = torch.stack([torch.from_numpy(sound(4000, seed)) for seed in range(3)])
    expected, _ = LogMel()(waves, torch.full((3,), 4000))
    assert torch.equal(LogMel()(waves), expected)
    assert torch.equal(LogMel()(waves[1]), expected[1])
    assert LogMel()(torch.zeros(0, 16000)).shape == (0, 128, 98)
    assert LogMel()(torch.zeros(0)).shape == (128, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_are_taken_as_float32(dtype):
    wave = sound(4000).astype(dtype)
    spectrogram = LogMel()(wave)
    assert spectrogram.dtype == torch.float32
    assert torch.equal(spectrogram, LogMel()(torch.from_numpy(wave.astype(np.float32))))


def test_legacy_padding_needs_no_lengths_either():
    front = LogMel(padding="legacy", target_frames=50)
    wave = torch.from_numpy(sound(4000))
    assert torch.equal(front(wave), front(wave[None], torch.tensor([4000]))[0][0])


@pytest.mark.parametrize(
    ("wave", "allowed"),
    [
        (np.zeros(400, np.int16), "floating point in .-1, 1.; divide 16-bit samples by 32768"),
        (torch.zeros(400, dtype=torch.int64), "floating point"),
        (np.zeros((2, 1, 400), np.float32), r"\(sample,\) or \(clip, sample\)"),
        (32768 * np.ones(400, np.float32), "floats in .-1, 1.; divide them by the full scale"),
        (torch.full((2, 400), -32768.0), "floats in .-1, 1.; divide them by the full scale"),
        (torch.tensor(0.5), r"\(sample,\) or \(clip, sample\)"),
    ],
)
def test_anything_but_a_wave_is_rejected(wave, allowed):
    with pytest.raises(ConfigError, match=f"^wave = .*; allowed: {allowed}"):
        LogMel()(wave)


def test_settings_can_be_given_as_keywords():
    assert LogMel(sample_rate=8000, n_mels=40).config == LogMel.Config(sample_rate=8000, n_mels=40)
    povey = LogMel.Config(window="povey")
    assert LogMel(povey, n_mels=40).config == LogMel.Config(window="povey", n_mels=40)
    with pytest.raises(ConfigError, match="n_mels"):
        LogMel(n_mels=0)


class _Dtypes(TorchDispatchMode):
    """Records the dtypes of all tensors on the meta device that operations return."""

    def __init__(self):
        super().__init__()
        self.on_device = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            self.on_device.add(result.dtype)
        return result


@pytest.mark.parametrize("config", [LogMel.Config(), LogMel.Config(centred=True, unit_norm=True)])
def test_no_float64_reaches_the_device(config):
    """Apple's GPUs have none."""
    with _Dtypes() as dtypes:
        LogMel(config)(torch.zeros(2, 4000, device="meta"))
    assert torch.float32 in dtypes.on_device
    assert torch.float64 not in dtypes.on_device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu():
    wave, lengths = torch.from_numpy(sound(32000)).repeat(3, 1), torch.tensor([32000, 300, 9000])
    ours, frames = LogMel()(wave.cuda(), lengths.cuda())
    expected, expected_frames = LogMel()(wave, lengths)
    torch.testing.assert_close(ours.cpu(), expected, rtol=0, atol=1e-3)
    assert torch.equal(frames.cpu(), expected_frames)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("sample_rate", {"sample_rate": 0}),
        ("window_ms", {"window_ms": 0.1}),
        ("window_ms", {"window_ms": math.nan}),
        ("hop_ms", {"hop_ms": 0.05}),
        ("hop_ms", {"hop_ms": -10.0}),
        ("n_mels", {"n_mels": 0}),
        ("n_mels", {"n_mels": 257}),
        ("high_hz", {"high_hz": 8001.0}),
        ("low_hz", {"low_hz": -1.0}),
        ("low_hz", {"low_hz": 4000.0, "high_hz": 4000.0}),
        ("preemphasis", {"preemphasis": 1.1}),
        ("mean", {"mean": math.nan}),
        ("std", {"std": 0.0}),
        ("scale", {"scale": math.inf}),
        ("range_db", {"range_db": 0.0}),
        ("range_db", {"range_db": math.inf}),
        ("target_frames", {"target_frames": 128}),
        ("target_frames", {"target_frames": 0, "padding": "legacy"}),
    ],
)
def test_invalid_settings_are_rejected(field, wrong):
    with pytest.raises(ConfigError, match=f"^{field} = "):
        LogMel.Config(**wrong)


@pytest.mark.parametrize(
    "legal", [{"n_mels": 256}, {"window_ms": 5.0, "n_mels": 64}, {"high_hz": 8000.0, "low_hz": 0.0}]
)
def test_settings_survive_toml(legal):
    config = LogMel.Config(**legal)
    assert from_dict(LogMel.Config, to_dict(config)) == config


@pytest.mark.parametrize(
    "settings", [{}, {"centred": True, "preemphasis_over": "wave", "unit_norm": True}]
)
def test_no_float64_is_needed_on_the_device(settings):
    with Float64OnDevice() as dtypes:
        LogMel(**settings)(
            torch.zeros(2, 1000, device="meta"), torch.tensor([900, 1000]).to("meta")
        )
    assert dtypes.operators == []
