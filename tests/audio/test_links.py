"""Lengths of MP3 and Ogg files: tags, variable rates, chained files, and an independent decoder."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import soundfile
from mp3_files import ID3V1, RATE, frames_only, id3, loud_and_silent, mp3
from places import shared

from melpatch.audio import files, mpeg
from melpatch.audio.byte_range import ByteRange
from melpatch.audio.files import count_samples, probe, read, stream
from melpatch.audio.mpeg import frame_header
from melpatch.audio.open_file import OpenFile
from melpatch.audio.sound_file import open_sound
from melpatch.errors import AudioError

FRAME = 0.03
"""Seconds of an MP3 frame and a little more: what decoders differ by at either end."""


def ogg(codec, seconds=3.0, rate=16_000, channels=1):
    file = io.BytesIO()
    soundfile.write(
        file, loud_and_silent(seconds, rate, channels), rate, format="OGG", subtype=codec
    )
    return file.getvalue()


def saved(folder, content):
    path = folder / "x.bin"
    path.write_bytes(content)
    return path


CONSTANT = mp3()
VARIABLE = mp3(mode="VARIABLE")
OTHER = mp3(2.0, mode="VARIABLE")
MPEG2 = mp3(2.0, rate=16_000, mode="VARIABLE", channels=2)
VORBIS = ogg("VORBIS", rate=44_100)
OPUS = ogg("OPUS")


def stating(content, frames):
    """Return an MP3 file whose first frame states another number of frames."""
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    return content[:at] + struct.pack(">I", frames) + content[at + 4 :]


LENGTHS = {
    "states its length": (CONSTANT, 4.0),
    "tag": (id3() + CONSTANT, 4.0),
    "tag, length not stated": (id3() + frames_only(CONSTANT), 4.0),
    "two tags, length not stated": (id3(900) + id3() + frames_only(CONSTANT) + ID3V1, 4.0),
    "variable": (VARIABLE, 4.0),
    "variable, length not stated": (frames_only(VARIABLE), 4.0),
    "average, length not stated": (frames_only(mp3(mode="AVERAGE")), 4.0),
    "variable, tags, length not stated": (id3() + frames_only(VARIABLE) + ID3V1, 4.0),
    "MPEG 2, length not stated": (id3() + frames_only(MPEG2), 2.0),
    "no number of frames": (stating(VARIABLE, 0), 4.0),
    "a third of the frames stated": (stating(VARIABLE, 50), 4.0),
    "variable, cut, length not stated": (frames_only(VARIABLE)[: len(VARIABLE) * 2 // 3], None),
    "chained": (CONSTANT + OTHER, 6.0),
    "chained, tags": (id3() + CONSTANT + ID3V1 + id3(3000) + OTHER + ID3V1, 6.0),
    "chained, lengths not stated": (frames_only(CONSTANT) + id3() + frames_only(OTHER), 6.0),
    "chained, the first states its length": (CONSTANT + frames_only(VARIABLE), 8.0),
    "chained to itself": (CONSTANT + CONSTANT + CONSTANT, 12.0),
    "mono and stereo": (mp3(2.0, channels=2) + CONSTANT, 6.0),
    "Vorbis": (VORBIS, 3.0),
    "Opus": (OPUS, 3.0),
    "Vorbis chained": (VORBIS + ogg("VORBIS", 2.0, 44_100), 5.0),
    "Vorbis chained to itself": (VORBIS + VORBIS, 6.0),
    "Opus chained": (OPUS + ogg("OPUS", 2.0), 5.0),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_file_is_read_to_its_end_and_has_the_length_of_an_independent_decoder(tmp_path, case):
    content, seconds = LENGTHS[case]
    path = saved(tmp_path, content)
    wave, rate = read(path)
    info = probe(path)
    assert count_samples(path) == len(wave)
    assert info.duration == pytest.approx(len(wave) / rate, abs=FRAME)
    # FFmpeg leaves the padding in that encoders add to each of several files.
    near = 0.06 if seconds in (4.0, 2.0, 3.0) else 0.2
    if seconds is not None:
        assert len(wave) / rate == pytest.approx(seconds, abs=near)
    assert len(wave) / rate == pytest.approx(decoded_length(path), abs=near)


def decoded_length(path):
    """Return the seconds that FFmpeg's decoders give."""
    av = pytest.importorskip("av", reason="PyAV, the independent decoder, is not installed")
    seconds = 0.0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            # A last frame may be cut.
            with contextlib.suppress(av.error.InvalidDataError):
                for frame in packet.decode():
                    seconds += frame.samples / frame.sample_rate
    return seconds


@pytest.mark.parametrize(
    "case", ["variable, tags, length not stated", "chained, tags", "Opus chained"]
)
def test_segments_and_windows_are_slices_of_the_whole(tmp_path, case):
    path = saved(tmp_path, LENGTHS[case][0])
    whole, rate = read(path)
    for start in (0.0, 1.0, 2.7, 3.2):
        part, _ = read(path, start=start, duration=0.75)
        first = round(start * rate)
        expected = whole[first : first + round(0.75 * rate)]
        assert len(part) == len(expected)
        # Opus adds noise that depends on where its decoder started.
        np.testing.assert_allclose(part, expected, atol=5e-3)
    windows = [wave for _, wave in stream(path, 0.7, 0.7)]
    np.testing.assert_array_equal(np.concatenate(windows), whole)


def test_open_files_and_byte_ranges_are_read_to_their_end_too(tmp_path):
    content = LENGTHS["chained, tags"][0]
    path = saved(tmp_path, b"before" + content + b"behind")
    whole, _ = read(saved(tmp_path / "..", content))
    part = ByteRange(path, 6, len(content), zlib.crc32(content), "member")
    np.testing.assert_array_equal(read(part)[0], whole)
    np.testing.assert_array_equal(read(OpenFile(io.BytesIO(content)))[0], whole)


def test_a_file_without_a_stated_length_has_the_samples_it_had(tmp_path):
    """At a constant bit rate, libsndfile is given the frames as they are."""
    content = frames_only(CONSTANT)
    expected = soundfile.read(io.BytesIO(content), dtype="float32")[0]
    np.testing.assert_array_equal(read(saved(tmp_path, id3() + content))[0], expected)


def test_what_a_frame_states_and_the_file_lacks_is_truncated(tmp_path):
    content = VARIABLE[: len(VARIABLE) * 2 // 3]
    with pytest.raises(AudioError, match=r"truncated: it states 4\.00 s, but only 2\.95 s"):
        read(saved(tmp_path, content))


def test_chained_files_of_different_rates_are_refused(tmp_path):
    with pytest.raises(AudioError, match="several files one after the other, of 44100 and 16000"):
        read(saved(tmp_path, CONSTANT + MPEG2))


def silent_layer_2(index, frames=40):
    """Return silent frames of MPEG 1, layer 2, of one bit rate, at 32 kHz."""
    header = bytes((0xFF, 0xFD, index << 4 | 2 << 2, 0xC0))
    return (header + bytes(frame_header(header).size - 4)) * frames


@pytest.mark.parametrize("second", [1, 8])
def test_layer_2_is_read_at_a_constant_bit_rate_and_refused_at_a_variable_one(tmp_path, second):
    assert samples_of(tmp_path, silent_layer_2(4)) == 40 * 1152
    told = "is MPEG layer 2 of a variable bit rate, whose end is not found; .*convert it"
    with pytest.raises(AudioError, match=told):
        samples_of(tmp_path, silent_layer_2(4) + silent_layer_2(second))


@pytest.mark.parametrize("tag", [b"", id3(3000), id3(60_000)])
def test_a_free_bit_rate_is_read_to_its_end(tmp_path, tag):
    usual = frames_only(mp3(2.0, rate=32_000))
    free = bytearray(usual)
    size = frame_header(usual[:4]).size
    for place in range(2, len(free), size):
        free[place] &= 0x0F
    assert samples_of(tmp_path, tag + bytes(free)) == samples_of(tmp_path, usual)


def samples_of(folder, content):
    path = folder / "a.mp3"
    path.write_bytes(content)
    with open_sound(path) as sound:
        return sum(map(len, sound.blocks()))


def test_links_are_sought_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path = saved(tmp_path, frames_only(VARIABLE))
    walks = []
    walk = mpeg._runs
    monkeypatch.setattr(mpeg, "_runs", lambda pieces: walks.append(1) or walk(pieces))
    for _ in range(3):
        read(path, start=1.0, duration=0.1)
    assert len(walks) == 1
    path.write_bytes(frames_only(VARIABLE) + OTHER)
    assert read(path)[0].size == pytest.approx(6.0 * RATE, abs=4 * FRAME * RATE)
    assert len(walks) == 2


def test_shared_lossy_recordings_have_the_length_of_an_independent_decoder():
    for name in ("esc50", "librispeech_10spk", "speech_commands_9"):
        folder = shared(f"data/{name}/audio")
        for path in sorted(folder.rglob("*.*"))[::200]:
            assert files.probe(path).duration == pytest.approx(decoded_length(path), abs=FRAME)
