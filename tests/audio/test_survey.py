"""Decoding whole files: the stretches that can be read, the place of the damage, and what is odd."""

import io

import numpy as np
import pytest
import soundfile

from melpatch.audio.survey import survey
from melpatch.errors import AudioError

RATE = 16_000


def noise(seconds=10.0, rate=RATE, level=0.3):
    samples = round(seconds * rate)
    return (level * np.random.default_rng(0).uniform(-1, 1, samples)).astype(np.float32)


def saved(path, wave, rate=RATE, **settings):
    soundfile.write(path, wave, rate, **settings)
    return path


def flac(wave=None):
    file = io.BytesIO()
    soundfile.write(file, noise() if wave is None else wave, RATE, format="FLAC")
    return bytearray(file.getvalue())


def test_a_whole_file_has_one_stretch(tmp_path):
    seen = survey(saved(tmp_path / "a.wav", noise()))
    assert seen.stretches == ((0.0, 10.0),)
    assert seen.reaches_end
    assert seen.error is None
    assert seen.seconds == 10.0
    assert seen.peak == pytest.approx(0.3, abs=1e-3)
    assert seen.spectrum.sum() == pytest.approx(1.0, abs=1e-4)
    assert seen.share_above(4000.0) == pytest.approx(0.5, abs=0.01)


def test_the_place_of_nan_is_told_and_what_follows_is_kept(tmp_path):
    wave = noise()
    wave[960] = np.nan
    wave[5 * RATE] = np.inf
    seen = survey(saved(tmp_path / "a.wav", wave, subtype="FLOAT"))
    assert seen.stretches == ((0.0, 0.06), (0.56, 5.0), (5.5, 10.0))
    assert seen.error.reason == "holds NaN at 0.06 s"
    assert seen.reaches_end


def test_rotten_flac_breaks_off_where_it_is_rotten_and_goes_on_behind(tmp_path):
    content = flac()
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    (tmp_path / "a.flac").write_bytes(content)
    seen = survey(tmp_path / "a.flac")
    (start, end), (again, last) = seen.stretches
    assert (start, last) == (0.0, 10.0)
    assert end == pytest.approx(5.0, abs=0.3)
    assert again == pytest.approx(end + 0.5)
    assert seen.error.reason.startswith(f"breaks off after {end:.2f} s")


@pytest.mark.parametrize(("name", "share"), [("a.flac", 0.4), ("a.wav", 0.4), ("a.aiff", 0.4)])
def test_a_truncated_file_has_what_is_there(tmp_path, name, share):
    path = saved(tmp_path / name, noise())
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    seen = survey(path)
    assert seen.stretches == ((0.0, pytest.approx(4.0, abs=0.3)),)
    assert not seen.reaches_end
    assert "truncated" in seen.error.reason or "breaks off after" in seen.error.reason


def test_a_file_of_which_nothing_can_be_decoded_is_an_error(tmp_path):
    wave = np.full(RATE, np.nan, np.float32)
    with pytest.raises(AudioError, match=r"NaN at 0\.00 s"):
        survey(saved(tmp_path / "a.wav", wave, subtype="FLOAT"))


@pytest.mark.parametrize(
    ("wave", "silent", "clipped", "offset", "mixed"),
    [
        (noise(), False, 0.0, 0.0, 1.0),
        (np.zeros(RATE), True, 0.0, 0.0, 1.0),
        (np.full(RATE, 0.25), True, 0.0, 0.25, 1.0),
        (np.clip(noise(level=2.0), -1, 1), False, 0.5, 0.0, 1.0),
        (np.stack([noise(), -noise()], axis=1), True, 0.0, 0.0, 0.0),
        (np.stack([noise(), noise()], axis=1), False, 0.0, 0.0, 1.0),
    ],
)
def test_what_is_odd_is_measured(tmp_path, wave, silent, clipped, offset, mixed):
    seen = survey(saved(tmp_path / "a.wav", wave, subtype="FLOAT"))
    assert seen.silent == silent
    assert seen.clipped == pytest.approx(clipped, abs=0.02)
    assert seen.offset == pytest.approx(offset, abs=0.01)
    assert seen.mixed == pytest.approx(mixed, abs=0.01)


def test_a_signature_is_that_of_a_copy_of_another_level_and_format(tmp_path):
    tune = noise() * np.linspace(0, 1, 10 * RATE, dtype=np.float32)
    one = survey(saved(tmp_path / "a.wav", tune))
    copy = survey(saved(tmp_path / "a.ogg", 0.5 * tune))
    other = survey(saved(tmp_path / "b.wav", tune[::-1]))
    own = np.frombuffer(one.signature, np.uint8)
    assert (np.frombuffer(copy.signature, np.uint8) != own).mean() < 0.15
    assert (np.frombuffer(other.signature, np.uint8) != own).mean() > 0.3
