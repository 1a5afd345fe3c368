import io
import os
import re
import struct
import tracemalloc
from functools import cache

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import shared

from melpatch.audio import sound_file
from melpatch.audio.files import count_samples, probe, read, stream
from melpatch.errors import AudioError, ConfigError

RATE = 16_000
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"),
    ("WAV", "GSM610"),  # libsndfile cannot seek in it
    ("WAVEX", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("W64", "PCM_16"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("AU", "PCM_16"),
]
LOSSLESS = {"PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ALAC_16"}


@cache
def tone(seconds=2.0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * time) * time) + 0.02 * noise).astype(np.float32)


@cache
def encoded(kind="WAV", codec="PCM_16", seconds=2.0, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, rate), rate, format=kind, subtype=codec)
    return file.getvalue()


def saved(folder, content, name="sound.bin"):
    path = folder / name
    path.write_bytes(content)
    return path


def patched(content, at, value):
    return content[:at] + value + content[at + len(value) :]


def wav_that_states(riff, data):
    content = encoded()
    at = content.index(b"data") + 4
    return patched(patched(content, 4, struct.pack("<I", riff)), at, struct.pack("<I", data))


def flac_without_length():
    content = bytearray(encoded("FLAC"))
    content[21] &= 0xF0  # STREAMINFO: 36 bits of the number of samples
    content[22:26] = bytes(4)
    return bytes(content)


# What is read


@pytest.mark.parametrize(("kind", "codec"), FORMATS)
def test_every_format_is_read_whole_and_in_segments(tmp_path, kind, codec):
    path = saved(tmp_path, encoded(kind, codec))
    info, (wave, rate) = probe(path), read(path)
    assert (info.sample_rate, info.channels, info.format, info.subtype, rate) == (
        RATE,
        1,
        kind,
        codec,
        RATE,
    )
    assert info.samples == len(wave) == count_samples(path)
    assert info.duration == pytest.approx(2.0, abs=0.06)  # ADPCM is padded to whole blocks
    assert wave.dtype == np.float32
    if codec in LOSSLESS:
        np.testing.assert_allclose(wave, tone(), atol=1e-4)
    else:
        assert np.corrcoef(wave[: len(tone())], tone())[0, 1] > 0.97

    tolerance = 5e-3 if codec == "OPUS" else 1e-6
    part, _ = read(path, start=0.5, duration=0.75)
    np.testing.assert_allclose(part, wave[8000:20_000], atol=tolerance)
    part, _ = read(path, start=1.25, duration=0.5, sample_rate=11_025)
    np.testing.assert_allclose(
        part, soxr.resample(wave, RATE, 11_025)[13_781:19_293], atol=tolerance
    )


@given(
    own=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000, 12_345]),
    rate=st.sampled_from([8000, 16_000, 22_050, 32_000, 44_100]),
    start=st.floats(0, 1.9),
    duration=st.floats(0.01, 3),
)
@settings(max_examples=60, deadline=None)
def test_a_segment_is_the_slice_of_the_whole(tmp_path_factory, own, rate, start, duration):
    path = tmp_path_factory.mktemp("segment") / "x.wav"
    soundfile.write(
        path, np.random.default_rng(1).uniform(-0.5, 0.5, 2 * own), own, subtype="FLOAT"
    )
    whole, _ = read(path, sample_rate=rate)
    part, _ = read(path, start=start, duration=duration, sample_rate=rate)
    begin = round(start * rate)
    np.testing.assert_allclose(part, whole[begin : begin + round(duration * rate)], atol=2e-4)
    if own == rate:
        np.testing.assert_array_equal(whole, soundfile.read(path, dtype="float32")[0])


def test_only_the_segment_and_a_little_more_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path, encoded("FLAC", seconds=20.0))
    decoded = []
    decode = sound_file.SoundFile._decode
    monkeypatch.setattr(
        sound_file.SoundFile,
        "_decode",
        lambda self, samples: decoded.append(samples) or decode(self, samples),
    )
    read(path, start=10.0, duration=1.0, sample_rate=8000)
    assert RATE <= sum(decoded) < 1.1 * RATE


def test_channels_are_averaged_and_values_above_one_kept(tmp_path):
    path = tmp_path / "stereo.wav"
    channels = np.stack([np.full(2000, 3.0), np.full(2000, 2.0), np.full(2000, -0.5)], axis=1)
    soundfile.write(path, channels, RATE, subtype="FLOAT")
    wave, _ = read(path)
    assert probe(path).channels == 3
    np.testing.assert_array_equal(wave, np.full(2000, 1.5, np.float32))


@pytest.mark.parametrize(
    "name", ["notes.txt", "sound.raw", "sound.gsm", "sound.mp3", "ünï cödé.wav"]
)
def test_the_format_is_detected_from_the_content_not_the_name(tmp_path, name):
    wave, _ = read(str(saved(tmp_path, encoded(), name)))
    np.testing.assert_allclose(wave, tone(), atol=1e-4)


@pytest.mark.parametrize("riff", [0xFFFFFFFF, 36, 0])
@pytest.mark.parametrize("data", [0xFFFFFFFF, 0x80000000, 0x7FFFF000, 0])
def test_a_wav_from_a_pipe_or_a_killed_recorder_is_read_to_its_end(tmp_path, riff, data):
    path = saved(tmp_path, wav_that_states(riff, data))
    np.testing.assert_allclose(read(path)[0], tone(), atol=1e-4)
    np.testing.assert_allclose(read(path, start=1.5)[0], tone()[24_000:], atol=1e-4)


def test_a_file_that_states_no_length_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_file, "_BLOCK", 1000)
    path = saved(tmp_path, flac_without_length())
    assert (probe(path).samples, probe(path).duration) == (None, None)
    assert count_samples(path) == len(tone())
    np.testing.assert_allclose(read(path)[0], tone(), atol=1e-4)
    np.testing.assert_allclose(
        read(path, start=0.5, duration=0.5)[0], tone()[8000:16_000], atol=1e-4
    )
    np.testing.assert_allclose(read(path, start=1.9, duration=9.0)[0], tone()[30_400:], atol=1e-4)
    with pytest.raises(AudioError, match=r"ends at 2\.000 s"):
        read(path, start=5.0)


def test_shared_recordings_have_the_length_they_state():
    for name in ("esc50", "fsdd", "speech_commands_9", "librispeech_10spk"):
        for path in sorted(shared(f"data/{name}/audio").rglob("*.*"))[:100:10]:
            info, (wave, rate) = probe(path), read(path, sample_rate=16_000)
            assert len(wave) == pytest.approx(info.duration * rate, abs=1)
            assert 0 < np.abs(wave).max() < 2


# What is refused


REFUSED = {
    "empty": (b"", "is empty"),
    "header only": (encoded()[:44], "holds no samples|truncated|zeros"),
    "text": (b"hello, this is a text file\n" * 9, "is not sound that libsndfile decodes"),
    "noise": (bytes(range(1, 200)), "is not sound that libsndfile decodes"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "web page": (b"\xef\xbb\xbf\n  <!DOCTYPE html><html>404</html>", "saved web page"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom", "MP4 or M4A.*ffmpeg"),
    "webm": (b"\x1a\x45\xdf\xa3" + bytes(60), "WebM"),
    "zip": (b"PK\x03\x04" + bytes(60), "zip archive; unpack"),
    "aac in wav": (patched(encoded(), 20, b"\xff\0"), "not sound that libsndfile decodes"),
    "rate 0": (patched(encoded(), 24, bytes(4)), "not sound that libsndfile decodes"),
    "rate 10 Hz": (
        patched(encoded(), 24, struct.pack("<I", 10)),
        "10 Hz; allowed: 1000 to 768000 Hz",
    ),
    "rate 1 GHz": (
        patched(encoded(), 24, struct.pack("<I", 10**9)),
        "1000000000 Hz; allowed: 1000 to 768000 Hz",
    ),
    "cut wav": (
        encoded()[: 44 + RATE],
        r"truncated: it states 2\.00 s, but only 0\.50 s are there",
    ),
    "cut mp3": (
        encoded("MP3", "MPEG_LAYER_III")[:3000],
        r"truncated: it states 2\.00 s, but only 0\.\d\d s",
    ),
    "cut flac": (encoded("FLAC")[:30_000], r"breaks off after \d\.\d\d s"),
    "cut aiff": (encoded("AIFF")[:30_000], "truncated: it states 2"),
    "cut au": (encoded("AU")[:30_000], "truncated: it states 2"),
    "cut w64": (encoded("W64")[:30_000], "truncated: it states 2"),
    "cut rf64": (encoded("RF64")[:30_000], "truncated: it states 2"),
    "2 GB stated": (
        wav_that_states(2_000_000_036, 2_000_000_000),
        r"truncated: it states 62500\.00 s, but only 2\.00 s",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_content_is_rejected_with_a_reason(tmp_path, case):
    content, message = REFUSED[case]
    path = saved(tmp_path, content)
    with pytest.raises(AudioError, match=message) as caught:
        read(path)
    assert caught.value.path == str(path)
    assert caught.value.fix
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_not_finite_are_rejected(tmp_path, bad):
    path = tmp_path / "bad.wav"
    wave = tone().copy()
    wave[20_000] = bad
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    what = r"holds (NaN|an infinite sample|an absurd sample \(1e\+30\)) at 1\.25 s"
    with pytest.raises(AudioError, match=what):
        read(path)
    assert len(read(path, duration=1.0)[0]) == RATE  # the damage lies beyond this segment


def test_anything_but_a_regular_file_is_rejected(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer
    for path, reason in [
        (tmp_path / "missing.wav", "does not exist"),
        (tmp_path, "is a folder"),
        (pipe, "is a pipe"),
        ("/dev/zero", "is a pipe, device"),
        (tmp_path / ("x" * 300), "cannot be reached"),
        ("with\0zero.wav", "cannot be reached"),
    ]:
        with pytest.raises(AudioError, match=reason):
            probe(path)


def test_a_file_without_read_permission_is_rejected(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(
        sound_file.io, "FileIO", denied
    )  # tests may run as root, whom no permission stops
    with pytest.raises(AudioError, match=r"cannot be opened \(Permission denied\)"):
        probe(saved(tmp_path, encoded()))


@pytest.mark.parametrize(
    ("start", "duration"),
    [(-1.0, 1.0), (0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (2.0, 1.0), (1e9, 1.0)],
)
def test_impossible_segments_are_rejected(tmp_path, start, duration):
    with pytest.raises(AudioError, match=r"has no segment|nothing is left"):
        read(saved(tmp_path, encoded()), start=start, duration=duration, sample_rate=8000)


@pytest.mark.parametrize(
    "content", [REFUSED["2 GB stated"][0], wav_that_states(0xFFFFFFFF, 0xFFFFFFFF)]
)
def test_a_false_length_in_the_header_allocates_nothing(tmp_path, content):
    path = saved(tmp_path, content)
    tracemalloc.start()
    try:
        for _ in stream(path, 0.5, 0.5):
            pass
    except AudioError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


BROKEN = [kind for kind in FORMATS if kind != ("WAV", "DOUBLE")]


@given(
    kind=st.sampled_from(BROKEN),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=8),
    near=st.sampled_from([64, 300, 1 << 20]),
    segment=st.booleans(),
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_give_samples_or_an_audio_error(tmp_path, kind, cut, flips, near, segment):
    content = bytearray(encoded(*kind, seconds=0.3))
    for where, bits in flips:
        content[int(where * (min(near, len(content)) - 1))] ^= bits
    path = saved(tmp_path, bytes(content if cut is None else content[: int(cut * len(content))]))
    try:
        wave, rate = (
            read(path, start=0.1, duration=0.1, sample_rate=11_025) if segment else read(path)
        )
    except AudioError:
        return
    assert len(wave) > 0
    assert np.isfinite(wave).all()
    assert sound_file.LOWEST_RATE <= rate <= sound_file.HIGHEST_RATE


# Windows


@given(
    seconds=st.floats(0.05, 3),
    hop=st.floats(0.05, 3),
    rate=st.sampled_from([None, 8000, 22_050]),
    block=st.sampled_from([500, 7919, 1 << 18]),
    segment=st.just((0.0, None)) | st.tuples(st.floats(0, 1.9), st.none() | st.floats(0.01, 3)),
)
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_windows_are_slices_of_the_segment(
    tmp_path, monkeypatch, seconds, hop, rate, block, segment
):
    path, (start, duration) = saved(tmp_path, encoded()), segment
    whole, own = read(path, start=start, duration=duration, sample_rate=rate)
    monkeypatch.setattr(sound_file, "_BLOCK", block)
    windows = list(stream(path, seconds, hop, rate, start=start, duration=duration))
    size = round(seconds * own)
    covered = 0
    for index, (start, wave) in enumerate(windows):
        begin = round(index * hop * own)
        assert start == begin / own
        np.testing.assert_allclose(wave, whole[begin : begin + size], atol=1e-6)
        assert begin + len(wave) > covered  # it shows something new
        covered = begin + len(wave)
    assert covered == len(whole) or round(len(windows) * hop * own) >= len(
        whole
    )  # or the end lies between windows


@pytest.mark.parametrize(
    ("seconds", "hop", "expected"),
    [
        (
            1.0,
            0.5,
            [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)],
        ),  # one from 1.5 s on would lie within the last
        (0.8, 0.5, [(0.0, 0.8), (0.5, 0.8), (1.0, 0.8), (1.5, 0.5)]),
        (1.0, 1.0, [(0.0, 1.0), (1.0, 1.0)]),
        (3.0, 1.0, [(0.0, 2.0)]),
        (0.25, 1.5, [(0.0, 0.25), (1.5, 0.25)]),
        (0.25, 5.0, [(0.0, 0.25)]),
    ],
)
def test_windows_reach_the_end_and_none_lies_within_another(tmp_path, seconds, hop, expected):
    path = saved(tmp_path, encoded())
    assert [
        (start, len(wave) / 8000) for start, wave in stream(path, seconds, hop, 8000)
    ] == expected


@pytest.mark.parametrize(
    ("seconds", "hop"), [(0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1e-6, 1.0), (1.0, 1e-6)]
)
def test_windows_and_hops_shorter_than_a_sample_are_rejected(tmp_path, seconds, hop):
    with pytest.raises(ConfigError, match="at least one sample"):
        next(stream(saved(tmp_path, encoded()), seconds, hop))


@pytest.mark.parametrize("content", [encoded("FLAC", seconds=60.0), flac_without_length()])
def test_windows_decode_once_forward_in_bounded_memory(tmp_path, monkeypatch, content):
    path = saved(tmp_path, content)
    whole = count_samples(path)
    monkeypatch.setattr(sound_file, "_BLOCK", 4000)
    decoded = []
    decode = sound_file.SoundFile._decode

    def counted(self, samples):
        block, error = decode(self, samples)
        decoded.append(len(block))
        return block, error

    monkeypatch.setattr(sound_file.SoundFile, "_decode", counted)
    monkeypatch.setattr(soundfile.SoundFile, "seek", None)
    tracemalloc.start()
    for _ in stream(path, 0.5, 0.1, 8000):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(decoded) == whole
    assert max(decoded) <= 4000
    assert peak < 500_000


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "AIFF"])
@pytest.mark.parametrize("rate", [RATE, 8000, 44_100])
def test_damage_behind_a_segment_does_not_matter_to_it(tmp_path, kind, rate):
    """Not at another rate either, whose filter reaches beyond the segment."""
    content = encoded(kind, seconds=4.0)
    path = saved(tmp_path, content[: len(content) // 2])
    with pytest.raises(AudioError) as caught:
        read(path)
    end = float(re.findall(r"(\d\.\d\d) s", str(caught.value))[-1]) - 0.01
    assert len(read(path, start=1.0, duration=end - 1.0, sample_rate=rate)[0]) == pytest.approx(
        (end - 1.0) * rate, abs=1
    )
    windows = [*stream(path, 0.2, 0.2, rate, start=1.0, duration=end - 1.0)]
    assert sum(len(wave) for _, wave in windows) == pytest.approx((end - 1.0) * rate, abs=2)
    with pytest.raises(AudioError):
        read(path, start=1.0, duration=end, sample_rate=rate)


def test_windows_before_the_damage_are_yielded(tmp_path):
    path = saved(tmp_path, encoded("MP3", "MPEG_LAYER_III", seconds=10.0)[:-20_000])
    windows = stream(path, 1.0, 1.0)
    assert [next(windows)[0] for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(AudioError, match="truncated"):
        next(windows)


def test_the_nearest_cause_of_a_missing_file_is_told(tmp_path):
    saved(tmp_path, encoded(), "Dawn.WAV")
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    for name, reason in [
        ("dawn.wav", "does not exist, but 'Dawn.WAV' does"),
        ("link.wav", r"does not exist \(a link leads to .*gone.wav, which is missing\)"),
        ("noon.wav", "does not exist;"),
        ("Dawn.WAV/x.wav", "cannot be reached"),
    ]:
        with pytest.raises(AudioError, match=reason):
            probe(tmp_path / name)


def test_a_size_field_of_zero_is_told_from_a_file_without_sound(tmp_path):
    content = encoded()
    at = content.index(b"data") + 4
    path = saved(tmp_path, patched(content, at, bytes(4)))
    with pytest.raises(AudioError, match=r"states that it holds no samples, but 64,044 bytes"):
        read(path)
    with pytest.raises(AudioError, match="holds no samples"):
        read(saved(tmp_path, patched(content, at, bytes(4))[:44]))
