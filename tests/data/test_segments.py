from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.data.clip import Clip
from melpatch.data.segments import crop

STARTS = st.floats(0, 1e4)
LENGTHS = st.floats(1e-3, 1e4)


def clip(start=0.0, duration=10.0, key=1):
    return Clip(Path("a.wav"), key, start, duration, ("wren",), "train")


@given(
    STARTS, LENGTHS, LENGTHS, st.integers(-(2**63), 2**63 - 1), st.integers(0, 9), st.integers(0, 9)
)
def test_a_crop_lies_within_its_clip(start, duration, seconds, key, seed, epoch):
    whole = clip(start, duration, key)
    part = crop(whole, seconds, seed, epoch)
    assert part.duration == min(seconds, duration)
    assert start <= part.start <= start + duration - part.duration + 1e-9
    assert (part.path, part.key, part.labels, part.split) == (
        whole.path,
        whole.key,
        whole.labels,
        whole.split,
    )


def test_a_crop_depends_on_seed_key_and_epoch_alone():
    assert crop(clip(), 1.0, 0, 0) == crop(clip(), 1.0, 0, 0)
    starts = {
        crop(clip(key=key), 1.0, seed, epoch).start
        for key in (1, 2)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(starts) == 8
    moved = crop(clip(start=5.0), 1.0, 0, 0).start
    assert moved == pytest.approx(crop(clip(), 1.0, 0, 0).start + 5)


def test_crops_are_uniform_over_the_clip():
    starts = [crop(clip(key=key), 2.0, 0, 0).start for key in range(1000)]
    counts, _ = np.histogram(starts, bins=8, range=(0, 8))
    assert counts.sum() == 1000
    assert abs(counts - 125).max() < 5 * 125**0.5
