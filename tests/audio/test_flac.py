"""FLAC files that hold more than their header states, which libsndfile ignores silently."""

import io

import numpy as np
import pytest
import soundfile
from mp3_files import ID3V1, id3

from melpatch.audio.sound_file import open_sound
from melpatch.errors import AudioError

RATE = 16_000


def flac(seconds, seed=0, channels=1):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * RATE), channels))
    soundfile.write(file, noise, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def stating(content, samples):
    """Return a FLAC file whose header states another number of samples."""
    bits = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + bits.to_bytes(8, "big") + content[26:]


def read(path, content):
    path.write_bytes(content)
    with open_sound(path) as sound:
        return sum(map(len, sound.blocks()))


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        (flac(1), RATE),
        (flac(1, channels=2), RATE),
        (flac(0.01), 160),
        (flac(1) + ID3V1, RATE),
        (id3(100) + flac(1), RATE),
        (stating(flac(1), 0), RATE),
    ],
    ids=["plain", "stereo", "tiny", "tag behind", "tag before", "no length"],
)
def test_what_is_whole_is_read(tmp_path, content, samples):
    assert read(tmp_path / "a.flac", content) == samples


@pytest.mark.parametrize(
    "content",
    [
        flac(1) + flac(1, 1),
        flac(1) + flac(0.01),
        flac(0.01) + flac(1),
        flac(1) * 3,
        id3(100) + flac(1) + flac(1),
        stating(flac(1), 0) * 2,
    ],
    ids=["equal", "short second", "short first", "three", "tag before", "no length"],
)
def test_several_files_in_one_are_refused_with_the_reason(tmp_path, content):
    told = r"several FLAC files one after the other|another FLAC file follows"
    with pytest.raises(AudioError, match=f"({told}).*split it, or rewrite it"):
        read(tmp_path / "a.flac", content)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stated", [1, 1000, RATE, 3 * RATE - 1])
def test_a_header_that_states_too_few_samples_is_refused(tmp_path, stated, channels):
    content = stating(flac(3, channels=channels), stated)
    with pytest.raises(AudioError, match=f"states {stated:,} samples, but at least 48,000 are"):
        read(tmp_path / "a.flac", content)


def test_a_stretch_that_does_not_touch_the_end_is_read(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(flac(1) + flac(1))
    with open_sound(path) as sound:
        assert sum(map(len, sound.blocks(100, 500))) == 500
