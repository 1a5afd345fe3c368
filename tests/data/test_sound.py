"""The loudest part of a recording."""

import numpy as np
import pytest
import soundfile

from melpatch.data.clip import Clip
from melpatch.data.sound import decode, loudest


def burst(path, second, seconds=20.0, rate=8000):
    """Write faint noise with half a loud second in it, and return the path."""
    wave = 0.001 * np.random.default_rng(0).normal(size=round(seconds * rate))
    wave[round(second * rate) : round((second + 0.5) * rate)] *= 300
    soundfile.write(path, wave, rate)
    return path


@pytest.mark.parametrize("second", [0.0, 7.3, 19.4])
@pytest.mark.parametrize("duration", [20.0, float("inf")])
def test_the_loudest_part_holds_what_is_loud(tmp_path, second, duration):
    clip = Clip(burst(tmp_path / "x.wav", second), 1, 0.0, duration)
    part = loudest(clip, 2.0, 8000)
    assert part.start <= second
    assert second + 0.5 <= part.start + part.duration + 1e-6
    assert part.duration <= 2.0
    assert np.abs(decode(part, 8000)).max() > 0.3


def test_times_are_those_of_the_file_where_the_clip_is_a_part_of_it(tmp_path):
    clip = Clip(burst(tmp_path / "x.wav", 12.0), 1, 10.0, 9.0)
    part = loudest(clip, 1.0, 8000)
    assert part.start == pytest.approx(12.0)


def test_a_short_clip_is_left_as_it_is_and_not_opened(tmp_path):
    clip = Clip(tmp_path / "gone.wav", 1, 3.0, 2.0)
    assert loudest(clip, 2.0, 8000) is clip
