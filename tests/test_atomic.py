import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from melpatch import atomic
from melpatch.atomic import clear_partial, file_state, written_aside


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_file(path, text):
    path.write_text(text)


def write_folder(path, text):
    path.mkdir()
    (path / "inside.txt").write_text(text)


def content(path):
    return (path / "inside.txt" if path.is_dir() else path).read_text()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "below" / "place"


@pytest.fixture(params=[write_file, write_folder])
def write(request):
    return request.param


def test_what_was_written_aside_takes_its_place(place, write):
    for text in ("old", "new"):
        with written_aside(place) as aside:
            write(aside, text)
            assert not place.exists() or content(place) == "old"
        assert content(place) == text
    assert names(place.parent) == ["place"]


def test_an_error_leaves_the_old_and_nothing_else(place, write):
    with written_aside(place) as aside:
        write(aside, "old")
    with pytest.raises(ZeroDivisionError), written_aside(place) as aside:  # noqa: PT012
        write(aside, "half")
        raise ZeroDivisionError
    assert content(place) == "old"
    assert names(place.parent) == ["place"]


def test_a_crash_leaves_the_old_and_what_is_half_written_can_be_cleared(place, write):
    with written_aside(place) as aside:
        write(aside, "old")
    child = os.fork()
    if child == 0:
        with written_aside(place) as aside:
            write(aside, "half")
            os._exit(9)  # as a kill: nothing is cleaned up
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert content(place) == "old"
    assert names(place.parent) == [f".place.{child}.partial", "place"]
    clear_partial(place.parent)
    assert names(place.parent) == ["place"]


def test_what_an_earlier_process_of_the_same_number_left_is_no_hindrance(place, write):
    place.parent.mkdir()
    write(place.with_name(f".place.{os.getpid()}.partial"), "half")
    with written_aside(place) as aside:
        write(aside, "new")
    assert content(place) == "new"
    assert names(place.parent) == ["place"]


def test_a_changed_file_is_told_by_its_size_and_time(tmp_path):
    path = tmp_path / "a"
    assert file_state(path) is None
    path.write_text("a")
    before = file_state(path)
    assert before == file_state(path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert file_state(path) != before


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_system_that_syncs_no_folders_still_writes(tmp_path, monkeypatch, call):
    """As on Windows, where a folder cannot be opened, and some network file systems."""
    whole = getattr(os, call)

    def refuse(handle, *arguments):
        is_folder = (
            Path(handle).is_dir() if call == "open" else stat.S_ISDIR(os.fstat(handle).st_mode)
        )
        if is_folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(handle))
        return whole(handle, *arguments)

    monkeypatch.setattr(atomic.os, call, refuse)
    with written_aside(tmp_path / "out") as aside:
        (aside / "below").mkdir(parents=True)
        (aside / "below" / "file").write_text("x")
    atomic.sync(tmp_path)
    assert (tmp_path / "out" / "below" / "file").read_text() == "x"


def test_windows_syncs_files_that_are_open_for_writing(tmp_path, monkeypatch):
    opened = []
    whole = os.open
    monkeypatch.setattr(
        atomic.os, "open", lambda path, flags: opened.append(flags) or whole(path, flags)
    )
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "platform", "win32")
    atomic.sync(tmp_path / "file")
    assert opened == [os.O_RDWR]
