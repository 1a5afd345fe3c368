"""The way of recordings to an output: what cannot be fetched now ends it, and what is done is gone on with."""

import os
from copy import copy
from functools import partial
from itertools import count

import numpy as np
import pytest
from failing_disk import killed_at

from melpatch.data.manifest import read_rejected
from melpatch.errors import AudioError, UnreachableError
from melpatch.inference import parts, tables, writing
from melpatch.inference.engine import InferenceTask
from melpatch.inference.rows import Row
from melpatch.inference.table_about import note_beside, read_about
from melpatch.inference.windows import RecordingEnd, WindowSpec, clip_of_file
from melpatch.inference.writing import InferenceJob, write_output

CUT = WindowSpec(1.0, 1.0, 8000)


ABOUT = {"melpatch": "0.1.0"}


def job(folder, *, resume, names="abcd", ending=".npz"):
    columns = [tables.Column("start", lambda rows: rows["start"], tables.SECONDS)]
    out = folder / f"out{ending}"
    note = partial(note_beside, out) if ending == ".csv" else None
    return InferenceJob(
        out=out,
        write=lambda path, chunks: tables.write_table(path, ending, columns, chunks, ABOUT),
        note=None if note is None else lambda path, chunks: note(path, ABOUT),
        recordings=[clip_of_file(folder / name) for name in names],
        task=InferenceTask(CUT, lambda batch: [], lambda items: items),
        about={"command": "embed"},
        keep=False,
        batch_size=1,
        workers=0,
        resume=resume,
    )


@pytest.fixture
def computed(monkeypatch):
    """Rows are made up, one recording to a part; the numbers of recordings that were computed."""
    monkeypatch.setattr(parts, "_MOST_RECORDINGS", 1)
    numbers = []

    def events(task, groups, **_):
        for number, _ in (clip for group in groups for clip in group):
            numbers.append(number)
            if number not in WRONG:
                yield Row(number, 0.0, 1.0, np.ones(2, np.float32))
            yield RecordingEnd(number, 1.0, WRONG.get(number))

    monkeypatch.setattr(writing, "infer_many", events)
    return numbers


WRONG = {1: AudioError("b", "is damaged", "copy it again")}


def test_what_is_out_of_reach_ends_it_and_is_gone_on_with(tmp_path, monkeypatch, computed):
    # A copy, as from a decoding process.
    away = copy(UnreachableError("c", "cannot be fetched", "check the network"))
    with monkeypatch.context() as patch:
        patch.setitem(WRONG, 2, away)
        with pytest.raises(UnreachableError, match="c: cannot be fetched; check the network"):
            write_output(job(tmp_path, resume=False))
    assert (computed, (tmp_path / "out.npz").exists()) == ([0, 1, 2], False)
    write_output(job(tmp_path, resume=True))
    assert computed == [0, 1, 2, 2, 3]
    assert [one.reason for one in read_rejected(tmp_path / "out.rejected.csv")] == ["is damaged"]


@pytest.mark.parametrize(
    ("ending", "beside"),
    [
        (".npz", []),
        (".csv", ["out.csv.about.json", ".out.csv.digest", ".out.csv.about.json.digest"]),
    ],
)
def test_a_kill_at_any_change_of_a_file_costs_nothing_but_work(
    ending, beside, tmp_path, computed, monkeypatch
):
    # A kill, unlike a power cut, loses nothing that was written.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    whole = written(tmp_path, ending, resume=False)
    assert sorted(whole) == sorted([*beside, f"out{ending}", "out.rejected.csv"])
    for number in count():
        action = partial(write_output, job(tmp_path, resume=False, names="ab", ending=ending))
        if not killed_at(tmp_path, number, action):
            break
        assert written(tmp_path, ending, resume=True) == whole, f"killed before change {number}"
    assert number > 30


def written(folder, ending, *, resume):
    """Write the output; return all files that are there then, and remove them."""
    write_output(job(folder, resume=resume, names="ab", ending=ending))
    assert read_about(folder / f"out{ending}") == ABOUT
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in there:
        (folder / name).unlink()
    return there
