"""Only regular files of the expected size are opened, and nothing waits for a pipe."""

import os
import socket

import pytest

from melpatch.opening import read_text, require_regular


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
