"""Recordings of any length, pooled window by window in bounded memory."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.inference import pooled
from melpatch.inference.pooled import PooledRecording
from melpatch.nn.pooling import Pooler, Pooling, pool
from melpatch.nn.summaries import step_summaries

ROWS = 2


def tokens(columns):
    generator = torch.Generator().manual_seed(columns)
    return torch.randn(1, ROWS, columns, 3, generator=generator)


def pooled_by_windows(whole, lengths, pooling):
    """Return the vector of a recording that comes in windows of these numbers of columns."""
    pooler = Pooler(pooling, ROWS)
    recording = PooledRecording(pooling, ROWS)
    begin = 0
    for length in lengths:
        window = whole[:, :, begin : begin + length].flatten(1, 2)
        columns, _ = pooler.columns(window, window[:, :0], None)
        recording.add(step_summaries(columns, pooler.fields)[0].numpy(), 1.0)
        begin += length
    return recording.result()


@given(
    st.sampled_from(["mean+segments=2", "rows+mean+std+delta+max+segments=3"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
)
def test_segments_are_those_of_the_whole_recording(how, lengths):
    whole = tokens(sum(lengths))
    expected = pool(whole.flatten(1, 2), whole[:, :0, 0], None, ROWS, how)[0]
    found = pooled_by_windows(whole, lengths, Pooling.parse(how))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@given(lengths=st.lists(st.integers(1, 40), min_size=5, max_size=30))
def test_a_recording_beyond_the_memory_has_segments_to_the_nearest_stretch(lengths):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled, "_MOST_STRETCHES", 32)
        how = Pooling.parse("mean+segments=2")
        recording = PooledRecording(how, 1)
        place = 0
        for length in lengths:
            # A ramp from 0: the mean of a segment tells where it lies.
            ramp = torch.arange(place, place + length, dtype=torch.float32)[None, :, None]
            recording.add(step_summaries(ramp, Pooler(how, 1).fields)[0].numpy(), 1.0)
            place += length
            assert len(recording._stretches) <= 32
        found = recording.result()
    last = place - 1
    expected = np.array([0.25, 0.75]) * last
    # An edge is off by at most one of 16 to 32 stretches.
    np.testing.assert_allclose(found, expected, atol=last / 16 + 1)


def test_an_hour_without_segments_is_one_summary():
    how = Pooling.parse("rows+mean+std+delta")
    pooler = Pooler(how, ROWS)
    recording = PooledRecording(how, ROWS)
    window = np.ones((1, len(pooler.fields), ROWS * 3), np.float32)
    for _ in range(360):
        recording.add(window, 10.0)
    assert recording._stretches.shape == window.shape
    np.testing.assert_allclose(recording.result()[: ROWS * 3], 1.0)
