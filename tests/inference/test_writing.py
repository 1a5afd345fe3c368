"""The way of recordings to an output: what cannot be fetched now ends it, and what is done is gone on with."""

from copy import copy

import numpy as np
import pytest

from melpatch.data.manifest import read_rejected
from melpatch.errors import AudioError, UnreachableError
from melpatch.inference import parts, tables, writing
from melpatch.inference.engine import InferenceTask
from melpatch.inference.rows import Row
from melpatch.inference.windows import RecordingEnd, WindowSpec, clip_of_file
from melpatch.inference.writing import InferenceJob, write_output

CUT = WindowSpec(1.0, 1.0, 8000)


def test_what_is_out_of_reach_ends_it_and_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MOST_RECORDINGS", 1)
    wrong = {
        1: AudioError("b", "is damaged", "copy it again"),
        2: copy(
            UnreachableError("c", "cannot be fetched", "check the network")
        ),  # as from a decoding process
    }
    made = []

    def events(task, groups, **_):
        for number, _ in (one for group in groups for one in group):
            made.append(number)
            if number not in wrong:
                yield Row(number, 0.0, 1.0, np.ones(2, np.float32))
            yield RecordingEnd(number, 1.0, wrong.get(number))

    monkeypatch.setattr(writing, "infer_many", events)

    def job(resume):
        return InferenceJob(
            out=tmp_path / "out.npz",
            ending=".npz",
            recordings=[clip_of_file(tmp_path / name) for name in "abcd"],
            task=InferenceTask(CUT, lambda batch: [], lambda items: items),
            columns=[tables.Column("start", lambda rows: rows["start"])],
            about={"command": "embed"},
            keep=False,
            batch_size=1,
            workers=0,
            resume=resume,
        )

    with pytest.raises(UnreachableError, match="c: cannot be fetched; check the network"):
        write_output(job(False))
    assert (made, (tmp_path / "out.npz").exists()) == ([0, 1, 2], False)
    del wrong[2]
    write_output(job(True))
    assert made == [0, 1, 2, 2, 3]
    assert [one.reason for one in read_rejected(tmp_path / "out.rejected.csv")] == ["is damaged"]
