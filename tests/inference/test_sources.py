"""Which recordings are meant, without opening one; and when they are others."""

import os
from math import inf

import pytest
from journeys.three_sounds import write_folder, write_sound, write_table

from melpatch.errors import DataError
from melpatch.inference.sources import fingerprint, list_recordings


def test_files_and_folders_are_recordings_each_once(tmp_path):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    named = write_sound(tmp_path / "z.wav")
    found = list_recordings([str(named), str(folder), str(folder / "low" / "0.wav"), str(named)])
    files = sorted(folder.rglob("*.*"))
    assert [clip.path for clip in found] == [named, *files]
    assert {(clip.start, clip.duration) for clip in found} == {(0.0, inf)}


def test_what_a_csv_lists_are_clips_with_their_keys(tmp_path):
    write_sound(tmp_path / "a.wav", seconds=3.0)
    rows = [("a.wav", 0.5, 1.0, 11), ("a.wav", 1.5, 1.0, 12), ("b.wav", "", "", "")]
    table = write_table(tmp_path / "clips.csv", ("path", "start", "duration", "key"), rows)
    one, two, rest = list_recordings([str(table), str(table)])
    assert [(clip.path.name, clip.start, clip.duration, clip.key) for clip in (one, two)] == [
        ("a.wav", 0.5, 1.0, 11),
        ("a.wav", 1.5, 1.0, 12),
    ]
    assert (rest.path.name, rest.start, rest.duration) == (
        "b.wav",
        0.0,
        inf,
    )  # that it is missing shows later


@pytest.mark.parametrize(
    ("sources", "message"),
    [([], "nothing: no audio file"), (["nowhere.wav"], "nowhere.wav: no such file or folder")],
)
def test_what_is_no_source_is_refused(sources, message):
    with pytest.raises(DataError, match=message):
        list_recordings(sources)


def test_a_fingerprint_tells_other_recordings_and_changed_files(tmp_path):
    folder = write_folder(tmp_path / "sounds", per_class=1)
    before = fingerprint(list_recordings([str(folder)]))
    assert before.startswith("3 (")
    assert fingerprint(list_recordings([str(folder)])) == before
    (first, *rest) = list_recordings([str(folder)])
    assert fingerprint([*rest, first]) != before
    assert fingerprint(rest) != before
    os.utime(first.path, (1, 1))
    assert fingerprint([first, *rest]) != before
