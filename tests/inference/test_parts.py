"""Parts of an output: complete or not there, in their order, and never mixed with those of something else."""

import os
from contextlib import suppress
from math import inf

import numpy as np
import pytest

from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.errors import CheckpointError, DataError
from melpatch.inference import parts as module
from melpatch.inference.parts import Part, PartFolder, group_clips
from melpatch.inference.rows import Row

ABOUT = {"command": "embed", "hop": None}


def row(recording, start=0.0, width=3):
    return Row(
        recording, start, start + 0.5, np.arange(width, dtype=np.float32) + 10 * recording + start
    )


def rows_of(parts):
    return [
        (one["recording"], one["start"], one["values"].tolist())
        for chunk in parts.chunks()
        for one in chunk
    ]


@pytest.fixture
def parts(tmp_path):
    return PartFolder(tmp_path / "deep" / "out.npz", ABOUT, resume=False)


def test_rows_come_back_in_the_order_of_the_parts(parts, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ROWS", 2)
    for number in (1, 0, 2):
        with parts.written(number) as part:
            for start in (0.0, 0.5, 1.0):
                part.add(row(number, start))
            part.end(1.5, None, keep=True)
    expected = [
        (n, start, row(n, start).values.tolist()) for n in range(3) for start in (0.0, 0.5, 1.0)
    ]
    assert rows_of(parts) == expected
    assert [len(chunk) for chunk in parts.chunks()] == [2, 1] * 3
    assert parts.complete() == dict.fromkeys(range(3), Part(3, 3, 1, 1.5, ()))


@pytest.mark.parametrize(("keep", "kept"), [(False, [0, 2]), (True, [0, 1, 1, 2])])
def test_of_what_breaks_off_the_rows_stay_or_go(parts, keep, kept):
    bad = Rejected("b.wav", "breaks off")
    with parts.written(0) as part:
        part.add(row(0))
        part.end(0.5, None, keep=keep)
        part.add(row(1, 0.0))
        part.add(row(1, 0.5))
        part.end(1.0, bad, keep=keep)
        part.add(row(2))
        part.end(0.5, None, keep=keep)
        part.end(0.0, bad, keep=keep)
    assert [recording for recording, *_ in rows_of(parts)] == kept
    assert parts.complete() == {0: Part(len(kept), 3, 4, 2.0, (bad, bad))}


def test_a_part_of_which_nothing_can_be_read_has_no_rows(parts):
    with parts.written(0) as part:
        part.add(row(0))
        part.end(0.5, Rejected("b.wav", "breaks off"), keep=False)
    assert rows_of(parts) == []
    assert parts.complete()[0].rows == 0


def test_a_part_that_is_not_written_to_its_end_is_not_there(parts, tmp_path):
    with suppress(KeyboardInterrupt), parts.written(0) as part:
        part.add(row(0))
        raise KeyboardInterrupt
    (parts.folder / "00000001.rows").write_bytes(
        b"what a crash left before it could say that it is complete"
    )
    (parts.folder / ".00000002.rows.77.partial").write_bytes(b"half")
    assert parts.complete() == {}
    assert rows_of(parts) == []
    PartFolder(
        tmp_path / "deep" / "out.npz", ABOUT | {"hop": 1.0}, resume=False
    )  # nothing is lost by beginning anew
    assert [path.name for path in parts.folder.iterdir()] == ["about.json"]


def test_parts_are_gone_on_with_only_where_that_is_asked_for_and_all_is_the_same(parts, tmp_path):
    out = tmp_path / "deep" / "out.npz"
    with parts.written(0) as part:
        part.add(row(0))
        part.end(0.5, None, keep=True)
    with pytest.raises(
        CheckpointError,
        match=r"out\.npz\.parts: holds the parts of .* add --resume to continue it, or delete",
    ):
        PartFolder(out, ABOUT, resume=False)
    for about, message in (
        (ABOUT | {"hop": 0.5}, "was started with hop = None, now 0.5"),
        (ABOUT | {"layer": 1}, "was started with layer = None, now 1"),
        ({"hop": None}, "was started with command = 'embed', now None"),
    ):
        with pytest.raises(CheckpointError, match=message):
            PartFolder(out, about, resume=True)
    (parts.folder / ".00000001.rows.77.partial").write_bytes(b"half")
    again = PartFolder(out, ABOUT, resume=True)
    assert [*again.complete()] == [0]
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "00000000.json",
        "00000000.rows",
        "about.json",
    ]


def broken(path):
    path.write_bytes(b"half")
    raise RuntimeError


def test_the_output_takes_its_place_whole_and_the_parts_go(parts, tmp_path):
    out = tmp_path / "deep" / "out.npz"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(RuntimeError):
        parts.publish(broken)
    assert out.read_bytes() == b"of an earlier run"
    parts.publish(lambda path: path.write_bytes(b"whole"))
    assert out.read_bytes() == b"whole"
    assert [path.name for path in out.parent.iterdir()] == ["out.npz"]


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be written .*choose another place"):
        PartFolder(tmp_path / "file" / "out.npz", ABOUT, resume=False)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    (tmp_path / "out.npz.parts").mkdir()
    (tmp_path / "out.npz.parts" / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="holds other files"):
        PartFolder(tmp_path / "out.npz", ABOUT, resume=True)
    assert (tmp_path / "out.npz.parts" / "thesis.txt").read_text() == "all of it"


def test_groups_are_small_and_those_of_large_files_have_one_each(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    monkeypatch.setattr(module, "_MOST_RECORDINGS", 3)
    sizes = [10, 10, 10, 10, 60, 40, 500, 90, 0, 20]
    clips = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(bytes(size))
        clips.append(Clip(path, number, 0.0, inf))
    found = group_clips(
        [
            *clips,
            Clip(tmp_path / "none.wav", 99, 0.0, inf),
            Clip(tmp_path / "shard", 7, 0.0, 1.0, size=95),
        ]
    )
    assert [[number for number, _ in group] for group in found] == [
        [0, 1, 2],
        [3, 4],
        [5],
        [6],
        [7, 8],
        [9, 10],
        [11],
    ]
    assert [clip for group in found for _, clip in group][:10] == clips


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "00000000.json").write_bytes(b""),
        lambda folder: (folder / "00000000.json").write_text('{"rows": 1}'),
        lambda folder: (folder / "00000000.rows").write_bytes(b"x" * 10),
        lambda folder: (folder / "00000000.rows").unlink(),
    ],
)
def test_a_part_that_a_power_cut_has_damaged_is_computed_again(parts, damage):
    for number in range(2):
        with parts.written(number) as part:
            part.add(row(number))
            part.end(0.5, None, keep=True)
    damage(parts.folder)
    assert [*parts.complete()] == [1]


def test_what_a_run_has_left_that_was_killed_at_its_start_or_end_is_no_hindrance(tmp_path):
    folder = tmp_path / "out.npz.parts"
    folder.mkdir()
    (folder / ".about.json.7.partial").write_text("{")
    (tmp_path / ".out.npz.parts.7.partial").mkdir()
    (tmp_path / ".other.npz.parts.7.partial").mkdir()
    parts = PartFolder(tmp_path / "out.npz", ABOUT, resume=False)
    assert [path.name for path in parts.folder.iterdir()] == ["about.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".other.npz.parts.7.partial",
        "out.npz.parts",
    ]


@pytest.mark.parametrize("ending", ["json", "rows"])
@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"rows": "x", "width": [], "recordings": null}'),
    ],
)
def test_a_part_that_is_something_else_is_computed_again(parts, ending, make):
    with parts.written(0) as part:
        part.add(row(0))
        part.end(0.5, None, keep=True)
    assert [*parts.complete()] == [0]
    path = parts.folder / f"00000000.{ending}"
    path.unlink()
    make(path)
    assert parts.complete() == {}
