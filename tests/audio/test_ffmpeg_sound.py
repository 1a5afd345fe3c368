"""Formats of phones and videos: decoded where PyAV is installed, else named with the line that converts."""

import contextlib
import io
from fractions import Fraction

import numpy as np
import pytest

from melpatch.audio import decoders
from melpatch.audio.files import count_samples, probe, read, stream
from melpatch.audio.survey import survey
from melpatch.errors import AudioError

FORMATS = {
    "a.m4a": ("ipod", "aac", 44_100, "MP4 or M4A"),
    "a.mp4": ("mp4", "aac", 48_000, "MP4 or M4A"),
    "a.3gp": ("3gp", "aac", 16_000, "3GP"),
    "a.mov": ("mov", "aac", 44_100, "QuickTime"),
    "a.aac": ("adts", "aac", 44_100, "AAC"),
    "a.wma": ("asf", "wmav2", 44_100, "WMA"),
    "a.webm": ("webm", "libopus", 48_000, "WebM or Matroska"),
    "a.mkv": ("matroska", "aac", 22_050, "WebM or Matroska"),
    "a.amr": ("amr", "libopencore_amrnb", 8000, "AMR"),
    "a.wv": ("wv", "wavpack", 44_100, "WavPack"),
}


def tone(rate, seconds=2.0):
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 + 100 * time) * time)).astype(np.float32)


def encoded(name, *, video=False, sound=True):
    """Return a file of a format, as FFmpeg writes it."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    container_format, codec, rate, _ = FORMATS[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
        if sound:
            waves = container.add_stream(codec, rate=rate, layout="mono")
            if codec == "wmav2":
                waves.bit_rate = 64_000
        if video:
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode())
        if sound:
            frame = av.AudioFrame.from_ndarray(tone(rate)[None], "fltp", "mono")
            frame.sample_rate = rate
            frame.pts = 0
            frame.time_base = Fraction(1, rate)
            container.mux(waves.encode(frame))
            container.mux(waves.encode())
    return file.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_phones_and_videos_are_read(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(name))
    _, _, rate, container = FORMATS[name]
    info = probe(path)
    wave, own = read(path)
    assert (info.format, info.channels, own) == (container, 1, rate)
    # Encoders put up to a tenth of a second of silence around the sound.
    assert count_samples(path) == len(wave) == pytest.approx(2 * rate, abs=0.15 * rate)
    likeness = np.correlate(wave, tone(rate), "full").max() / np.square(tone(rate)).sum()
    assert likeness > 0.8
    part, _ = read(path, start=0.5, duration=0.5)
    np.testing.assert_array_equal(part, wave[rate // 2 : rate])
    np.testing.assert_array_equal(np.concatenate([w for _, w in stream(path, 0.3, 0.3)]), wave)
    assert survey(path).error is None


def test_the_sound_of_a_video_is_read(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encoded("a.mp4", video=True))
    assert len(read(path)[0]) == pytest.approx(2 * 48_000, abs=5000)
    path.write_bytes(encoded("a.mp4", video=True, sound=False))
    with pytest.raises(AudioError, match="holds no sound, only pictures"):
        read(path)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.amr"])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_damaged_ones_give_sound_or_one_line(tmp_path, name, share):
    content = encoded(name)
    path = tmp_path / name
    path.write_bytes(content[: round(share * len(content))])
    with contextlib.suppress(AudioError):
        assert np.isfinite(read(path)[0]).all()


HEADS = {
    "x.m4a": (b"\0\0\0\x20ftypM4A \0\0\0\0", "MP4 or M4A"),
    "-x.3gp": (b"\0\0\0\x20ftyp3gp4\0\0\0\0", "3GP"),
    "it's.wma": (b"\x30\x26\xb2\x75" + bytes(60), "WMA"),
    "x.amr": (b"#!AMR\n" + bytes(60), "AMR"),
    "x.aac": (b"\xff\xf1\x50\x80" + bytes(60), "AAC"),
}


@pytest.mark.parametrize("name", HEADS)
def test_without_pyav_the_message_has_the_line_to_type(tmp_path, monkeypatch, name):
    monkeypatch.setattr(decoders, "pyav", lambda: None)
    monkeypatch.chdir(tmp_path)
    content, container = HEADS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read(name)
    text = str(caught.value)
    assert f"is {container}, which libsndfile does not decode" in text
    assert "pip install 'melpatch[formats]'" in text
    words = {
        "x.m4a": "ffmpeg -i x.m4a x.flac",
        "-x.3gp": "ffmpeg -i ./-x.3gp ./-x.flac",
        "it's.wma": """ffmpeg -i 'it'"'"'s.wma' 'it'"'"'s.flac'""",
        "x.amr": "ffmpeg -i x.amr x.flac",
        "x.aac": "ffmpeg -i x.aac x.flac",
    }
    assert words[name] in text


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n/etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_lists_of_other_files_are_never_given_to_ffmpeg(tmp_path, text):
    path = tmp_path / "x.m4a"
    path.write_text(text)
    with pytest.raises(AudioError, match="is not sound"):
        read(path)
