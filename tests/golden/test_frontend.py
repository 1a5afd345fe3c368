"""The front end against the official SSAST data loader: exact values in float64, rounding in float32."""

import zlib

import numpy as np
import pytest
import torch
from golden.official import draw, golden
from places import shared

from melpatch.audio.files import read
from melpatch.audio.logmel import LogMel

CLIPS = [
    "esc50/audio/1-100032-A-0.ogg",
    "esc50/audio/4-196671-A-8.ogg",
    "speech_commands_9/audio/down/00176480_nohash_0.opus",
    "fsdd/audio/0_george_0.flac",
    "librispeech_10spk/audio/3005/3005-163389-0000.opus",
    "emodb_2s/audio/12b02Na.ogg",
    "synthetic_noise",
    "synthetic_silence",
    "synthetic_short_frame_edge",
]
PLAIN = LogMel.Config(mean=0.0, std=1.0, scale=1.0)


def synthetic(name):
    if name == "synthetic_noise":
        return draw("wave", (16000,)).numpy() * np.float32(0.1)
    if name == "synthetic_silence":
        return np.zeros(8000, np.float32)
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(719) / 16000)).astype(np.float32)


@pytest.fixture(scope="module", params=CLIPS)
def clip(request):
    """A clip's wave and what is known of its features."""
    known = golden("frontend")["clips"][request.param]
    known["array"] = np.load(shared("golden/ssast/frontend_logmel.npz"))[known["npz_name"]].astype(
        np.float64
    )
    if request.param.startswith("synthetic"):
        wave = synthetic(request.param)
    else:
        wave, _ = read(shared(f"data/{request.param}"), sample_rate=16000)
    if zlib.crc32(wave.tobytes()) != known.get("resampled", known["decoded"])["crc32_float32"]:
        pytest.skip(
            "libsndfile or soxr gives other samples here than where the golden numbers were made"
        )
    return wave, known


def frames_by_mels(config, wave, dtype):
    """The spectrogram as the official code lays it out: (frame, mel)."""
    samples = torch.from_numpy(wave).to(dtype)[None]
    return LogMel(config)(samples, torch.tensor([len(wave)]))[0][0].T.double().numpy()


def test_double_precision_equals_the_official_features(clip):
    wave, known = clip
    ours, expected = frames_by_mels(PLAIN, wave, torch.float64), known["logmel"]
    assert ours.shape == known["array"].shape
    np.testing.assert_allclose(ours, known["array"], atol=1e-2)
    np.testing.assert_allclose(ours.mean(0), expected["bin_mean"], rtol=0, atol=1e-6)
    assert [ours.mean(), ours.std()] == pytest.approx([expected["mean"], expected["std"]], abs=1e-6)
    assert (ours < np.log(2.0**-23) + 1e-6).sum() == expected["at_floor"]
    for frame, mel, value in expected["points"]:
        assert ours[frame, mel] == pytest.approx(value, abs=1e-6)


def test_single_precision_deviates_by_rounding_only(clip):
    wave, known = clip
    ours = frames_by_mels(PLAIN, wave, torch.float32)
    exact = frames_by_mels(PLAIN, wave, torch.float64)
    error = np.abs(ours - exact)
    assert error.max() < 5e-3
    assert error.mean() < 3e-5
    assert error[exact > exact.max(axis=1, keepdims=True) - 10].max() < 1e-3
    for frame, mel, value in known["logmel"]["points"]:
        assert ours[frame, mel] == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize("target", [1024, 128])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_legacy_padding_and_normalisation_equal_the_official_input(clip, target, dtype, atol):
    wave, known = clip
    expected = known[f"norm_T{target}"]
    ours = frames_by_mels(LogMel.Config(padding="legacy", target_frames=target), wave, dtype)
    rows = expected["valid_rows"]
    assert ours.shape == (target, 128)
    assert [ours.mean(), ours.std()] == pytest.approx(expected["stats"], abs=atol)
    assert [ours.sum(), (ours**2).sum()] == pytest.approx(
        [expected["sum"], expected["sum_sq"]], abs=atol * ours.size
    )
    assert ours[0, :4] == pytest.approx(expected["first_row_first4"], abs=atol)
    assert ours[rows - 1, -4:] == pytest.approx(expected["last_valid_row_last4"], abs=atol)
    for frame, mel, value in expected["points"]:
        assert ours[frame, mel] == pytest.approx(value, abs=atol)
    if rows < target:
        assert ours[rows:] == pytest.approx(expected["pad_value"], abs=1e-6)
