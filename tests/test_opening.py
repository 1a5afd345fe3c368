"""Only regular files of the expected size are opened, and nothing waits for a pipe."""

import os
import socket
import zipfile

import pytest

from melpatch.opening import (
    open_text,
    open_to_append,
    read_text,
    require_no_bomb,
    require_regular,
)


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "a").write_text("five.")
    assert read_text(tmp_path / "a", 5) == "five."
    assert require_regular(tmp_path / "a") == 5
    with pytest.raises(OSError, match="has 5 bytes, more than the 4 expected"):
        read_text(tmp_path / "a", 4)


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "a").write_text("five.")
    (tmp_path / "b").symlink_to("a")
    assert read_text(tmp_path / "b") == "five."
    (tmp_path / "c").symlink_to("c")
    with pytest.raises(OSError, match="levels of symbolic links"):
        read_text(tmp_path / "c")
    (tmp_path / "d").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is a device, not a file"):
        read_text(tmp_path / "d")


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in (("pipe", "a named pipe"), ("socket", "a socket"), ("", "a folder")):
            with pytest.raises(OSError, match=f"is {kind}, not a file") as caught:
                read_text(tmp_path / name)
            assert caught.value.filename == str(tmp_path / name)


def test_a_file_without_an_end_is_read_no_further(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(OSError, match="more than the 16,777,216 expected"):
        read_text(tmp_path / "large")


def test_a_list_is_read_with_its_line_ends_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "list.csv").write_bytes("é\r\nb\n".encode())
    with open_text(tmp_path / "list.csv") as file:
        assert list(file) == ["é\r\n", "b\n"]
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OSError, match="is a named pipe"):
        open_text(tmp_path / "pipe.csv")


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine\n")
    (tmp_path / "log").symlink_to("precious")
    with pytest.raises(OSError, match="is a link, which is not written through"):
        open_to_append(tmp_path / "log")
    (tmp_path / "away").symlink_to("nowhere")
    with pytest.raises(OSError, match="is a link"):
        open_to_append(tmp_path / "away")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a named pipe"):
        open_to_append(tmp_path / "pipe")
    for line in ("one\n", "zwölf\n"):
        with open_to_append(tmp_path / "own") as file:
            file.write(line)
    assert (tmp_path / "own").read_text(encoding="utf-8") == "one\nzwölf\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "away", "log", "own", "pipe", "precious",
    ]  # fmt: skip


def test_an_archive_that_would_become_many_times_as_large_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("path.npy", bytes(1 << 20))
    require_no_bomb(path)
    monkeypatch.setattr("melpatch.opening._SMALL_ARCHIVE", 1 << 16)
    with pytest.raises(ValueError, match="bytes would become 1,048,576, more than the 65,536"):
        require_no_bomb(path)
