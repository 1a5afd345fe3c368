"""The file of answers: on the disk row by row, one writer, nothing lost to a crash or a full disk."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from melpatch import only_writer
from melpatch.data.answers import Answer, question
from melpatch.errors import ConfigError, DataError
from melpatch.search.label_file import open_labels

ASKED = question("/a.wav", 0.0, 1.0, "wren")


def answer(said="yes", asked=ASKED):
    return Answer(asked, "train", "ann", "2026-11-29T12:00:00Z", said)


def test_rows_are_kept_and_read_again(tmp_path):
    path = tmp_path / "deep" / "labels.csv"
    with open_labels(path) as labels:
        labels.add([answer("yes"), answer("no")])
        labels.add([answer("undo")])
    with open_labels(path) as labels:
        assert [row.answer for row in labels.answers] == ["yes", "no", "undo"]
        assert labels.settled()[ASKED].answer == "yes"


def test_a_second_writer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(only_writer, "_PATIENCE", 0.0)
    with (
        open_labels(tmp_path / "l.csv"),
        pytest.raises(ConfigError, match="another process"),
        open_labels(tmp_path / "l.csv"),
    ):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from melpatch.data.answers import Answer, question
from melpatch.search.label_file import open_labels
with open_labels(Path(sys.argv[1])) as labels:
    for number in range(1000):
        asked = question("/a.wav", float(number), number + 1.0, "wren")
        labels.add([Answer(asked, "train", "ann", "", "yes")])
        print(number, flush=True)
"""


def test_kill_9_loses_no_row_that_was_confirmed(tmp_path):
    path = tmp_path / "l.csv"
    words = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        confirmed = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        confirmed += process.stdout.readlines()
    with open_labels(path) as labels:
        starts = [row.question.start for row in labels.answers]
    assert len(starts) >= len(confirmed) >= 20
    assert starts == [*range(len(starts))]


def test_a_torn_row_is_told_and_the_next_one_is_whole(tmp_path, capsys):
    path = tmp_path / "l.csv"
    with open_labels(path) as labels:
        labels.add([answer()])
    with path.open("a", encoding="utf-8") as file:
        file.write("/a.wav,0,1,wr")
    with open_labels(path) as labels:
        labels.add([answer("no")])
    assert "line 3: left out" in capsys.readouterr().err
    with open_labels(path) as labels:
        assert [row.answer for row in labels.answers] == ["yes", "no"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "l.csv"
    with open_labels(path) as labels:
        labels.add([answer()])
        before = path.read_bytes()
        whole = os.write

        def full(handle, content):
            if len(content) > 10:
                return whole(handle, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                labels.add([answer("no")])
        assert path.read_bytes() == before
        assert len(labels.answers) == 1
        labels.add([answer("no")])
        assert len(labels.answers) == 2


@pytest.mark.parametrize("label", ["", " a", "a;b", "a\nb", "a" * 300])
def test_what_cannot_be_a_label_is_refused(tmp_path, label):
    with open_labels(tmp_path / "l.csv") as labels, pytest.raises(ConfigError, match="label = "):
        labels.add([answer(asked=question("/a.wav", 0.0, 1.0, label))])


def test_another_file_is_not_written_to(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\na.wav,x\n", encoding="utf-8")
    with (
        pytest.raises(ConfigError, match="its first line is not path,start"),
        open_labels(tmp_path / "l.csv"),
    ):
        pass
    assert (tmp_path / "l.csv").read_text(encoding="utf-8") == "path,label\na.wav,x\n"


def test_labels_that_are_no_text_or_cannot_be_read_are_named_and_kept(tmp_path):
    path = tmp_path / "l.csv"
    with open_labels(path) as labels:
        labels.add([answer()])
    content = path.read_bytes() + "Käuzchen".encode("latin-1")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"l\.csv: not UTF-8 text"), open_labels(path):
        pass
    assert path.read_bytes() == content
    (tmp_path / "folder.csv").mkdir()
    with (
        pytest.raises(DataError, match=r"folder\.csv: cannot be read or written"),
        open_labels(tmp_path / "folder.csv"),
    ):
        pass
