"""Windows of many recordings in batches: nobody's answer hangs on who shared the batch, and the order stays."""

import gc
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melpatch.inference.batches import Output, make_buckets, prefetch, report_seconds, run_buckets
from melpatch.inference.windows import RecordingEnd, Span, Window

RECORDINGS = st.lists(st.lists(st.integers(1, 9), max_size=5), max_size=8)
"""The lengths of each recording's windows."""


def items_of(recordings):
    """Windows of consecutive whole numbers, so that each differs from all others."""
    found, count = [], 0
    for number, lengths in enumerate(recordings):
        for place, length in enumerate(lengths):
            wave = torch.arange(count, count + length, dtype=torch.float32)
            found.append(Window(Span(number, float(place), place + length / 10), wave))
            count += length
        found.append(RecordingEnd(number, float(sum(lengths)), None))
    return found


def sums(batch):
    """A function of each window alone; what lies in the padding would be noticed, were it not zero."""
    assert all(
        (wave[length:] == 0).all()
        for wave, length in zip(batch.wave, batch.lengths.tolist(), strict=True)
    )
    return [*torch.stack([batch.wave.sum(1), batch.lengths.float()], dim=1).numpy()]


@given(RECORDINGS, st.integers(1, 5), st.integers(1, 3), st.sets(st.integers(0, 7)), st.booleans())
def test_answers_are_those_of_each_window_alone_in_their_order(
    recordings, size, bucket, close, alike
):
    items = items_of(recordings)
    expected = [
        item
        if isinstance(item, RecordingEnd)
        else (item.span, [float(item.wave.sum()), float(len(item.wave))])
        for item in items
    ]
    gathered = [*make_buckets(iter(items), size, batches=bucket, close=close, equal_lengths=alike)]
    found = [*run_buckets(iter(gathered), sums)]
    assert [
        item if isinstance(item, RecordingEnd) else (item.span, item.values.tolist())
        for item in found
    ] == expected
    for order, batches in gathered:
        assert sum(len(batch) for _, batch in batches) <= size * bucket
        assert all(len(batch) <= size for _, batch in batches)
        lengths = [length for _, batch in batches for length in batch.lengths.tolist()]
        assert lengths == sorted(lengths)  # like lengths share a batch
        assert not alike or all(len(set(batch.lengths.tolist())) == 1 for _, batch in batches)
        closed = [
            place
            for place, item in enumerate(order)
            if isinstance(item, RecordingEnd) and item.recording in close
        ]
        assert closed in ([], [len(order) - 1])


def test_what_is_closed_hangs_on_nothing_that_follows():
    first = items_of([[3, 9, 2], [5]])
    alone = [*make_buckets(iter(first), 4, close={1})]
    (both, _) = make_buckets(
        iter([*first, *[Window(Span(2, 0.0, 1.0), torch.zeros(4)), RecordingEnd(2, 1.0, None)]]),
        4,
        close={1},
    )
    assert both.order == alone[0].order
    assert [places for places, _ in both.batches] == [places for places, _ in alone[0].batches]
    for (_, one), (_, other) in zip(both.batches, alone[0].batches, strict=True):
        assert torch.equal(one.wave, other.wave)


def test_no_more_is_gathered_than_is_asked_for():
    taken = []
    many = (taken.append(number) or item for number, item in enumerate(items_of([[1] * 1000])))
    next(make_buckets(many, 4, batches=2))
    assert len(taken) == 8


def test_what_was_heard_counts_overlaps_once():
    spans = [Span(0, 0.0, 1.0), Span(0, 0.5, 1.5), Span(0, 1.0, 1.7), Span(2, 0.0, 0.4)]
    found = [
        *(Output(span, np.zeros(1)) for span in spans[:3]),
        RecordingEnd(0, 1.7, None),
        RecordingEnd(1, 0.0, None),
    ]
    found += [Output(spans[3], np.zeros(1)), RecordingEnd(2, 0.4, None)]
    heard = []
    assert [*report_seconds(iter(found), heard.append)] == found
    assert heard == pytest.approx([1.0, 0.5, 0.2, 0.4])


# --- prefetch ---


def numbers(count, made, closed):
    try:
        for number in range(count):
            made.append((number, threading.current_thread()))
            yield number
    finally:
        closed.append(True)


def test_the_next_item_is_made_in_a_thread_while_this_one_is_used():
    made, closed = [], []
    coming = prefetch(numbers(5, made, closed))
    assert next(coming) == 0
    assert [*coming] == [1, 2, 3, 4]
    assert threading.main_thread() not in [thread for _, thread in made]
    assert closed


def test_one_that_stops_early_stops_the_making():
    made, closed = [], []
    coming = prefetch(numbers(1000, made, closed))
    next(coming)
    coming.close()
    assert closed
    assert len(made) <= 2


def test_one_that_is_forgotten_in_a_ring_hangs_nobody():
    """The garbage collector ends the executor's thread before it closes the generator."""
    made, closed = [], []
    ring = [prefetch(numbers(1000, made, closed))]
    ring.append(ring)
    next(ring[0])
    del ring
    gc.collect()
    assert closed


def test_an_error_in_the_making_is_one_of_the_using():
    def broken():
        yield 1
        raise ValueError("of the maker")

    coming = prefetch(broken())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="of the maker"):
        next(coming)
