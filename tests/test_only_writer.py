"""One process at a time writes an output."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from melpatch import only_writer as module
from melpatch.errors import ConfigError, DataError
from melpatch.only_writer import next_writer, only_writer

HOLD = """
import filelock, sys, time
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print(flush=True)
time.sleep(0.2)
"""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)


def test_a_second_process_is_refused_by_name_and_nothing_stays(tmp_path, impatient):
    out = tmp_path / "deep" / "out.npz"
    refused = pytest.raises(ConfigError, match=r"out\.npz: another process writes it; .* --out")
    with only_writer(out), refused, only_writer(out):
        pass
    with only_writer(out), only_writer(out.with_name("other.npz")):
        pass
    assert [*out.parent.iterdir()] == []


@pytest.mark.parametrize("turn", [only_writer, next_writer])
def test_what_ends_soon_is_waited_for(tmp_path, capsys, turn):
    out = tmp_path / "out.npz"
    words = [sys.executable, "-c", HOLD, tmp_path / ".out.npz.lock"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with turn(out):
            assert process.wait(10) == 0
    assert f"{out}: another process writes it; waiting" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_a_dead_process_holds_nothing_and_what_it_left_is_removed(tmp_path):
    kept = tmp_path / ".out.npz.other.7.partial"
    for name in (".out.npz.lock", ".out.npz.7.partial", ".out.npz.7.old.partial", kept.name):
        (tmp_path / name).touch()
    with only_writer(tmp_path / "out.npz"):
        pass
    assert [*tmp_path.iterdir()] == [kept]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="cannot be written"),
        only_writer(tmp_path / "file" / "out"),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_there_are_no_locks_it_is_told(tmp_path, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_writer(tmp_path / "out"):
        pass
    assert "its file system has no locks" in capsys.readouterr().err
