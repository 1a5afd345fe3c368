"""What probes see of clips: a choice of them, in any order, of which nothing is copied before it is asked for."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from melpatch.data.clip import Clip
from melpatch.evaluation.feature_files import new_rows
from melpatch.evaluation.features import ClipTokens, ClipVectors

CLIPS = tuple(Clip(Path(f"{number}.wav"), number, 0.0, 1.0) for number in range(4))
OTHER = Clip(Path("other.wav"), 99, 0.0, 1.0)
SPANS = [[(0, 2)], [(2, 3), (6, 9)], [(3, 6)], [(9, 10)]]
ORDER = (CLIPS[3], CLIPS[1], OTHER, CLIPS[2])


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_vectors_come_in_the_order_that_is_asked_for():
    values = drawn(4, 5)
    some = ClipVectors(CLIPS, values).select(ORDER)
    assert some.clips == (CLIPS[3], CLIPS[1], CLIPS[2])
    np.testing.assert_array_equal(some.vectors, values[[3, 1, 2]])
    fewer = some.select([CLIPS[2], CLIPS[0], CLIPS[3]])
    np.testing.assert_array_equal(fewer.vectors, values[[2, 3]])
    assert fewer.values is values
    assert some.select([]).vectors.shape == (0, 5)


def test_tokens_come_in_the_order_that_is_asked_for():
    values = drawn(10, 5).astype(np.float16)
    some = ClipTokens(CLIPS, values, SPANS).select(ORDER)
    assert some.clips == (CLIPS[3], CLIPS[1], CLIPS[2])
    assert some.values is values
    padded, valid = some.batch([1, 0])  # the clip of two windows, and the one of a single token
    assert padded.dtype == torch.float32
    np.testing.assert_array_equal(padded[0], values[[2, 6, 7, 8]].astype(np.float32))
    np.testing.assert_array_equal(padded[1, :1], values[9:].astype(np.float32))
    assert valid.tolist() == [[True] * 4, [True, False, False, False]]
    assert (padded[1, 1:] == 0).all()
    assert len(some.select([]).clips) == 0


def test_features_have_room_on_the_disk_before_they_are_written(tmp_path, monkeypatch):
    """Otherwise a full disk kills the process, since the rows are written through memory."""
    rows = new_rows(tmp_path / "rows", (3, 2))
    rows[:] = 1
    assert np.load(tmp_path / "rows").sum() == 6

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        new_rows(tmp_path / "rows", (3, 2))
    assert raised.value.filename == str(tmp_path / "rows")
