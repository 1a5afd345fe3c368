"""Scanning in worker processes, one of which is killed."""

import errno
import os
from pathlib import Path

import deadly_reader
import pytest
from tiny_runs import write_noise
from two_processes import fork_workers

from melpatch.data import scan
from melpatch.data.process_pool import process_pool
from melpatch.errors import AudioError, MelpatchError, UnreachableError


def test_a_file_that_kills_its_process_is_named_and_the_others_are_read(monkeypatch):
    fork_workers(scan, monkeypatch)
    paths = [Path(f"{'killer' if number in {0, 4} else 'file'}{number}") for number in range(6)]
    scanned = [*scan._in_processes(deadly_reader.read, paths, workers=2, chunk=1)]
    assert len(scanned) == len(paths)
    for path, result in zip(paths, scanned, strict=True):
        if path.name.startswith("killer"):
            assert isinstance(result, AudioError)
            assert result.path == path.name
            assert "was killed" in result.reason
        else:
            assert result == path.name


def test_processes_that_never_start_are_not_the_fault_of_any_file(monkeypatch):
    fork_workers(scan, monkeypatch)
    monkeypatch.setattr("melpatch.data.process_pool._nothing", os.abort)
    with pytest.raises(MelpatchError, match=r"no worker process can be started.*--workers 0"):
        [*scan._in_processes(deadly_reader.read, [Path("killer")], workers=1, chunk=1)]


def test_no_more_processes_start_than_have_files(monkeypatch):
    started = []

    def counted(workers, context):
        started.append(workers)
        return process_pool(workers, context)

    fork_workers(scan, monkeypatch)
    monkeypatch.setattr(scan, "process_pool", counted)
    paths = [Path(f"file{number}") for number in range(5)]
    assert [*scan._in_processes(deadly_reader.read, paths, workers=8, chunk=2)] == [
        path.name for path in paths
    ]
    assert started == [3]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE])
@pytest.mark.parametrize("whole", [False, True])
def test_no_file_is_rejected_because_too_many_are_open(tmp_path, monkeypatch, number, whole):
    path = write_noise(tmp_path / "a.wav", 0.5)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("melpatch.audio.sound_file._raw", refuse)
    with pytest.raises(
        UnreachableError, match=rf"a\.wav: cannot be read now \({os.strerror(number)}"
    ):
        [*scan.scan([path], whole=whole)]
