"""Recordings in windows: the right samples, in order, whoever decodes them, with an end to each."""

from math import inf

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from journeys.three_sounds import wave, write_sound

from melpatch.audio.files import read
from melpatch.data.clip import Clip
from melpatch.inference.windows import RecordingEnd, WindowSpec, clip_of_file, read_windows

RATE = 8000
CUT = WindowSpec(1.0, 0.5, RATE)


def by_recording(items):
    """The windows of each recording as (start, samples), and the ends."""
    found, ends, last = {}, [], []
    for item in items:
        if isinstance(item, RecordingEnd):
            ends.append(item)
            found.setdefault(item.recording, [])
        else:
            assert not any(end.recording == item.span.recording for end in ends)
            assert item.span.end == pytest.approx(item.span.start + len(item.wave) / RATE)
            found.setdefault(item.span.recording, []).append((item.span.start, item.wave.numpy()))
            last.append(item.span.recording)
    assert last == sorted(last)
    return found, ends


def slow_windows(sound, cut):
    """The slow, obvious windows, until one reaches the end."""
    found, start = [], 0
    while True:
        first = round(start * cut.hop * RATE)
        if first >= len(sound):
            return found
        found.append((first / RATE, sound[first : first + round(cut.seconds * RATE)]))
        if first + round(cut.seconds * RATE) >= len(sound):
            return found
        start += 1


def assert_same(found, expected, atol=1e-6):
    assert [start for start, _ in found] == pytest.approx([start for start, _ in expected])
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    paths = [write_sound(folder / f"{n}.wav", "noise", 0.3 + 0.7 * n, RATE, n) for n in range(5)]
    paths.append(write_sound(folder / "other-rate.flac", "high", 2.2, 22050))
    (folder / "bad.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(folder / "click.wav", np.ones(1), 44100)
    return [*paths[:2], folder / "bad.wav", *paths[2:], folder / "none.wav", folder / "click.wav"]


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "noise.wav"
    soundfile.write(path, wave("noise", 8.0, RATE), RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize("workers", [0, 2, 20])
def test_each_recording_is_cut_as_it_would_be_alone_in_order(files, workers):
    found, ends = by_recording(read_windows([*enumerate(map(clip_of_file, files))], CUT, workers))
    assert [end.recording for end in ends] == [*range(9)]
    wrong = {end.recording: end.error.reason for end in ends if end.error}
    assert sorted(wrong) == [2, 7, 8]
    assert wrong[7] == "does not exist"
    assert wrong[8] == f"shorter than one sample at {RATE} Hz"
    for number, path in enumerate(files):
        if number not in wrong:
            sound, _ = read(path, sample_rate=RATE)
            assert_same(
                found[number],
                slow_windows(sound, CUT),
                atol=2e-4 if path.suffix == ".flac" else 1e-6,
            )
            assert ends[number].seconds == pytest.approx(len(sound) / RATE)


def test_the_numbers_of_recordings_are_those_given(files):
    _, ends = by_recording(
        read_windows([(7, clip_of_file(files[0])), (9, clip_of_file(files[1]))], CUT)
    )
    assert [end.recording for end in ends] == [7, 9]


@given(
    start=st.just(0.0) | st.floats(0.0, 3.0),
    duration=st.floats(0.05, 4.0),
    hop=st.floats(0.3, 1.7),
)
def test_a_clip_is_cut_as_if_it_were_a_file_of_its_own(long, start, duration, hop):
    cut = WindowSpec(1.0, hop, RATE)
    sound, _ = read(long, start=start, duration=duration)
    found, (end,) = by_recording(read_windows([(0, Clip(long, 1, start, duration))], cut))
    assert end.error is None
    together = slow_windows(sound, cut)
    # Where neither the start nor the hop falls on a sample, a window may begin a sample earlier or later.
    assert [start for start, _ in found[0]] == pytest.approx(
        [start for start, _ in together], abs=1.1 / RATE
    )
    for (_, one), (_, other) in zip(found[0], together, strict=True):
        assert abs(len(one) - len(other)) <= 1
    if start == 0:
        assert_same(found[0], together)


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_a_clip_without_an_end_goes_to_that_of_its_file(tmp_path, start):
    path = write_sound(tmp_path / "a.wav", "noise", 3.1, RATE)
    sound, _ = read(path, start=start)
    found, (end,) = by_recording(read_windows([(0, Clip(path, 1, start, inf))], CUT))
    assert_same(found[0], slow_windows(sound, CUT))
    assert end.seconds == pytest.approx(3.1 - start)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_windows_before_the_damage_are_given_and_the_end_tells_of_it(tmp_path, workers):
    path = tmp_path / "cut.flac"
    soundfile.write(path, wave("noise", 100.0, RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, ends = by_recording(
        read_windows([(0, clip_of_file(path)), (1, clip_of_file(path))], CUT, workers)
    )
    for number, end in enumerate(ends):
        assert end.error is not None
        assert len(found[number]) > 10
        assert end.seconds == pytest.approx(found[number][-1][0] + 1)
