"""From windows to rows: means weighted by length, and nothing of what could not be read to its end."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.errors import AudioError
from melpatch.inference.batches import Output
from melpatch.inference.rows import Row, frame_rows, recording_rows, window_rows
from melpatch.inference.windows import RecordingEnd, Span

BAD = AudioError("x.wav", "breaks off", "copy it again")
LENGTHS = st.lists(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=5), min_size=1, max_size=5)


def found_of(recordings, errors=()):
    rng = np.random.default_rng(0)
    for number, lengths in enumerate(recordings):
        edges = np.cumsum([0.0, *lengths])
        for start, end in pairwise(edges):
            yield Output(
                Span(number, float(start), float(end)), rng.normal(size=3).astype(np.float32)
            )
        yield RecordingEnd(number, float(edges[-1]), BAD if number in errors else None)


@given(LENGTHS, st.sets(st.integers(0, 4)))
def test_a_mean_is_weighted_by_length_and_has_no_part_of_another_recording(recordings, errors):
    found = [*found_of(recordings, errors)]
    rows = [*recording_rows(iter(found))]
    assert [row for row in rows if isinstance(row, RecordingEnd)] == [
        item for item in found if isinstance(item, RecordingEnd)
    ]
    good = [number for number in range(len(recordings)) if number not in errors]
    told = {row.recording: row for row in rows if isinstance(row, Row)}
    assert [*told] == good
    for number in good:
        mine = [one for one in found if isinstance(one, Output) and one.span.recording == number]
        expected = np.average([one.values for one in mine], axis=0, weights=recordings[number])
        np.testing.assert_allclose(told[number].values, expected, atol=1e-5)
        assert told[number].values.dtype == np.float32
        assert (told[number].start, told[number].end) == (0.0, mine[-1].span.end)


def test_each_window_is_a_row():
    found = [*found_of([[1.0, 0.5], [0.3]], errors={1})]
    rows = [*window_rows(iter(found))]
    assert [row[:3] for row in rows if isinstance(row, Row)] == [
        (0, 0.0, 1.0),
        (0, 1.0, 1.5),
        (1, 0.0, 0.3),
    ]
    assert [isinstance(row, RecordingEnd) for row in rows] == [
        isinstance(item, RecordingEnd) for item in found
    ]


@given(st.lists(st.floats(0.1, 20.0), min_size=1, max_size=4), st.floats(0.16, 5.0))
def test_frames_are_means_of_the_columns_in_them_and_come_as_soon_as_they_can(lengths, hop):
    """Windows of 2 s, each half over the one before; columns of 0.16 s."""
    rng, column = np.random.default_rng(0), 0.16
    found, sums = [], []
    for number, seconds in enumerate(lengths):
        sums.append({})
        for start in np.arange(0, max(seconds - 1, 0.01), 1.0).tolist():
            end = min(seconds, start + 2)
            values = rng.normal(
                size=(max(1, int(np.ceil((end - start) / column - 1e-6))), 2)
            ).astype(np.float32)
            found.append(Output(Span(number, start, end), values))
            for place, value in enumerate(values):
                middle = min(start + (place + 0.5) * column, end - 1e-6)
                sums[-1].setdefault(int((middle + 1e-9) / hop), []).append(value)
        found.append(RecordingEnd(number, seconds, None))
    waiting = []  # rows that had come when a window was asked for
    rows = []

    def watched():
        for item in found:
            waiting.append((item, len(rows)))
            yield item

    for row in frame_rows(watched(), hop, column, column):
        rows.append(row)
    for number, (seconds, mine) in enumerate(zip(lengths, sums, strict=True)):
        told = [row for row in rows if isinstance(row, Row) and row.recording == number]
        assert [row.start for row in told] == pytest.approx([frame * hop for frame in sorted(mine)])
        assert [row.end for row in told] == [*(row.start for row in told[1:]), seconds]
        expected = [np.mean(mine[frame], axis=0) for frame in sorted(mine)]
        np.testing.assert_allclose([row.values for row in told], expected, atol=1e-5)
    for item, count in waiting:
        if isinstance(item, Output):  # all frames that end a window's length before are out
            before = [
                row
                for row in rows[:count]
                if isinstance(row, Row) and row.recording == item.span.recording
            ]
            assert item.span.start - (before[-1].end if before else 0) <= 1.0 + hop + column


def test_frames_of_what_breaks_off_are_not_gone_on_with_in_the_next_recording():
    found = [Output(Span(0, 0.0, 1.0), np.ones((6, 1), np.float32)), RecordingEnd(0, 1.0, BAD)]
    found += [Output(Span(1, 0.0, 1.0), np.zeros((6, 1), np.float32)), RecordingEnd(1, 1.0, None)]
    rows = [row for row in frame_rows(iter(found), 1.0, 0.16, 0.16) if isinstance(row, Row)]
    assert [(row.recording, row.values.tolist()) for row in rows] == [(1, [0.0])]
