"""Audio in every form that users have it: the same windows as of the file on disk, or a refusal in one line."""

import io

import numpy as np
import pytest
import soundfile
import torch
from journeys.three_sounds import wave

from melpatch.errors import AudioError, ConfigError
from melpatch.inference.samples import mono, windows_of
from melpatch.inference.windows import RecordingEnd, WindowSpec

RATE = 8000
SPEC = WindowSpec(0.5, 0.25, RATE)


def windows(audio, sample_rate=None, spec=SPEC):
    """Start, end and samples of each window; raises what is wrong with the recording."""
    items = [*windows_of(audio, sample_rate, spec)]
    end = items.pop()
    assert isinstance(end, RecordingEnd)
    if end.error is not None:
        raise end.error
    return [(item.span.start, item.span.end, item.wave.numpy()) for item in items]


def assert_same(found, expected):
    assert [window[:2] for window in found] == [window[:2] for window in expected]
    for window, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(window[2], other[2])


def pcm(dtype, channels=2):
    """A second of noise as integers that use most of their range."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    return rng.integers(limits.min, limits.max, (RATE, channels), dtype, endpoint=True)


SUBTYPES = {np.uint8: "PCM_U8", np.int16: "PCM_16", np.int32: "PCM_32"}


@pytest.mark.parametrize("dtype", SUBTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_integer_pcm_is_what_the_file_of_it_gives(tmp_path, dtype, channels):
    path, samples = tmp_path / "a.wav", pcm(dtype, channels)
    # soundfile does not write unsigned integers, but scales a signed type to what is asked for.
    signed = samples
    if dtype is np.uint8:
        signed = ((samples.astype(np.int16) - 128) << 8).astype(np.int16)
    soundfile.write(path, signed, RATE, subtype=SUBTYPES[dtype])
    expected = windows(path)
    assert_same(windows(samples, RATE), expected)
    assert_same(windows(samples.T, RATE), expected)
    assert_same(windows(samples.astype(samples.dtype.newbyteorder(">")), RATE), expected)
    assert_same(windows(torch.from_numpy(samples), RATE), expected)


def test_int8_is_divided_by_its_full_scale():
    np.testing.assert_array_equal(mono(np.array([-128, 0, 64], np.int8)), [-1, 0, 0.5])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_one_or_several_channels_are_what_the_file_gives(tmp_path, dtype, channels):
    path = tmp_path / "a.wav"
    samples = np.stack([wave("noise", 1.3, RATE, seed) for seed in range(channels)], axis=1)
    samples = samples.astype(dtype)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    expected = windows(str(path))
    parameter = torch.nn.Parameter(torch.from_numpy(samples))
    forms = [samples, samples.T, samples[::1], parameter, parameter.T, parameter * 1]
    for form in forms:
        assert_same(windows(form, RATE), expected)
    if channels == 1:
        assert_same(windows(samples[:, 0], RATE), expected)
        assert_same(windows(samples[:, 0].tolist(), RATE), expected)


def test_half_precision_is_taken():
    samples = torch.linspace(-1, 1, 100)
    for half in (samples.half(), samples.bfloat16()):
        np.testing.assert_array_equal(mono(half), half.float().numpy())


class Stream(io.RawIOBase):
    """A file that cannot seek, such as the body of a download."""

    def __init__(self, data):
        super().__init__()
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self.data.read(size)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_open_files_give_what_the_path_gives_and_stay_open(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, wave("high", 1.3, 22050), 22050)
    expected = windows(path)
    content = path.read_bytes()
    memory = io.BytesIO(content)
    memory.seek(0, io.SEEK_END)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        for form in (memory, memory, file, raw, Stream(content)):
            assert_same(windows(form), expected)
            assert not form.closed


def test_an_open_file_that_is_no_sound_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a sound")
    with path.open("rb") as file:
        for form, name in ((io.BytesIO(b"RIFF"), "BytesIO"), (file, r"notes\.txt")):
            with pytest.raises(AudioError, match=f"the open file .*{name}: is not sound"):
                windows(form)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 2), np.float32), r"shape \(2, 2\) and type float32: either axis.*audio\[0\]"),
        (np.zeros((99, 800), np.float32), r"shape \(99, 800\).*no axis has 32 or fewer"),
        (np.zeros((4, 2, 800), np.float32), r"shape \(4, 2, 800\).*one recording at a time"),
        (np.float32(0.5), r"shape \(\).*one recording at a time"),
        (np.zeros((2, 0), np.int16), r"shape \(2, 0\)"),
        (np.zeros(9, np.int64), "type int64: no type of samples; give floats"),
        (np.zeros(9, np.uint16), "type uint16"),
        (np.zeros(9, bool), "type bool"),
        (np.zeros(9, np.complex64), "type complex64"),
        (torch.zeros(9, dtype=torch.int64), "type int64"),
        (np.array([0.0, np.inf]), "not all are finite"),
        (b"RIFF", "audio of type bytes: wrap the bytes of a file in io.BytesIO"),
        (io.StringIO("RIFF"), "audio of type StringIO: open the file in mode 'rb'"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(audio, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        windows(audio, RATE)
    assert "\n" not in str(refusal.value)


def test_one_sample_of_one_channel_is_no_riddle():
    assert mono(np.ones((1, 1))).shape == (1,)
    assert mono(np.ones((1, 7))).shape == (7,)
    assert mono(np.ones((7, 1))).shape == (7,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_integers_read_as_floats_are_refused(dtype):
    wave = np.linspace(-32_768, 32_000, 8000).astype(dtype)
    with pytest.raises(ConfigError, match=r"reach 32,768, but floats are expected in \[-1, 1\]"):
        mono(wave)
    assert mono(wave / dtype(32_768)).max() < 1
    # Samples that were normalised to a deviation of 1 reach 10 and more.
    assert mono(20 * wave / dtype(32_768)).max() > 10


def test_halves_and_doubles_of_either_library_are_the_same_samples():
    wave = np.linspace(-0.5, 0.5, 64)
    for other in (
        torch.tensor(wave),
        torch.tensor(wave).float(),
        torch.tensor(wave).bfloat16(),
        torch.tensor(wave).half(),
        wave.astype(np.float16),
        wave.tolist(),
    ):
        np.testing.assert_allclose(mono(other), wave, atol=4e-3)
        assert mono(other).dtype == np.float32
