"""A sound file within a file is read like a separate file; errors name the byte range."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melpatch.audio import byte_range
from melpatch.audio.byte_range import ByteRange
from melpatch.audio.files import count_samples, probe, read, stream
from melpatch.errors import AudioError

FORMATS = {"a.flac": {}, "a.wav": {}, "a.ogg": {}, "float.wav": {"subtype": "FLOAT"}, "a.mp3": {}}
SHORT = pytest.mark.parametrize("checked", [1 << 20, 0], ids=["held", "windowed"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stretches")
    wave = 0.3 * np.random.default_rng(0).normal(size=16_000).clip(-3, 3)
    for name, how in FORMATS.items():
        soundfile.write(folder / name, wave, 16_000, **how)
    return folder


def within(path: Path, before: int = 100, after: int = 77) -> ByteRange:
    """Return the bytes of a file within another one, with zeros before and ones after them."""
    content = path.read_bytes()
    around = path.with_name(f"{path.name}.{before}.{after}.bin")
    around.write_bytes(bytes(before) + content + b"\1" * after)
    return ByteRange(
        around, before, len(content), zlib.crc32(content), f"{around}[x at byte {before}]"
    )


@SHORT
@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_range_is_read_like_its_file(folder, name, checked, monkeypatch):
    monkeypatch.setattr(byte_range, "_CHECKED", checked)
    for before, after in [(0, 0), (512, 3)]:
        path, part = folder / name, within(folder / name, before, after)
        assert probe(part) == probe(path)
        assert count_samples(part) == count_samples(path)
        for segment in ({}, {"start": 0.31, "duration": 0.2}, {"start": 0.9, "sample_rate": 8000}):
            assert np.array_equal(read(part, **segment)[0], read(path, **segment)[0])
        assert all(
            start == begin and np.array_equal(one, other)
            for (start, one), (begin, other) in zip(
                stream(part, 0.3, 0.2), stream(path, 0.3, 0.2), strict=True
            )
        )


def test_a_wav_file_whose_writer_died_is_also_read_from_a_byte_range(folder):
    content = bytearray((folder / "a.wav").read_bytes())
    content[4:8], content[40:44] = bytes(4), bytes(4)
    (folder / "dead.wav").write_bytes(content)
    assert np.array_equal(read(within(folder / "dead.wav"))[0], read(folder / "a.wav")[0])


@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_reported(folder, name, place, bit):
    part = within(folder / name)
    content = bytearray(part.path.read_bytes())
    content[part.offset + place % part.size] ^= 1 << bit
    other = part._replace(path=folder / "flipped.bin")
    other.path.write_bytes(content)
    with pytest.raises(
        AudioError, match=r"at byte 100\]: is damaged: the checksum of its \d+ bytes is wrong; copy"
    ):
        read(other)


@SHORT
@pytest.mark.parametrize("name", ["a.flac", "a.wav"])
@given(kept=st.integers(0, 10**9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_a_truncated_file_is_reported(folder, name, checked, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_range, "_CHECKED", checked)
        part = within(folder / name)
        other = part._replace(path=folder / "cut.bin")
        other.path.write_bytes(part.path.read_bytes()[: kept % (part.offset + part.size // 2)])
        with pytest.raises(AudioError) as caught:
            read(other)
        assert str(caught.value).startswith(f"{part.name}: ")
        assert "\n" not in str(caught.value)


def test_errors_name_the_byte_range(folder):
    (folder / "text").write_bytes(b"<html>")
    for part, message in [
        (
            ByteRange(folder / "gone", 0, 5, 0, "gone[x at byte 0]"),
            r"gone\[x at byte 0\]: does not exist",
        ),
        (within(folder / "text"), r"text.*\[x at byte 100\]: is a saved web page"),
    ]:
        with pytest.raises(AudioError, match=message):
            probe(part)
