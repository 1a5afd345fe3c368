"""The file of people's answers, open to be added to: each row is on the disk before the next is taken."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from melpatch.atomic import sync
from melpatch.config import check
from melpatch.data.answers import (
    ANSWERS,
    HEADER,
    Answer,
    Question,
    is_answers,
    read_answers,
    settle,
)
from melpatch.errors import ConfigError, DataError
from melpatch.faults import let_pass, remedy
from melpatch.only_writer import only_writer
from melpatch.opening import open_binary, require_regular
from melpatch.progress import notice

_LONGEST = 200  # characters of a label or a name


@contextmanager
def open_labels(path: Path) -> Iterator["LabelFile"]:
    """Open a file of answers to add to it, or make one; no other process may at the same time.

    Raises:
        ConfigError: it is another kind of file, or another process has it open.
        DataError: it cannot be read or written.
    """
    with only_writer(path):
        yield LabelFile(path)


class LabelFile:
    """Answers, in memory and on the disk; see :func:`open_labels`.

    Attributes:
        path: the file.
        answers: all answers in the order of their rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[Answer] = []
        try:
            if not path.exists():
                self._append(",".join(HEADER) + "\n")
                sync(path.parent)
            self._read()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from error
        except OSError as error:
            let_pass(error)
            raise DataError(
                f"{path}: cannot be read or written ({error.strerror}); {remedy(error)}"
            ) from error

    def _read(self) -> None:
        with open_binary(self.path) as file:
            head = file.read(1 << 10)
        if not is_answers(head):
            raise ConfigError(
                f"--labels {self.path}: its first line is not {','.join(HEADER)}; give another "
                "name, or bring it in with: melpatch labels"
            )
        for number, row in read_answers(self.path):
            if isinstance(row, Answer):
                self.answers.append(row)
            else:
                notice(f"{self.path}, line {number}: left out ({row})")

    def settled(self) -> dict[Question, Answer]:
        """Return the answer that stands to each question."""
        return settle(self.answers)

    def add(self, answers: Sequence[Answer]) -> None:
        """Add rows; when this returns they are on the disk.

        Raises:
            ConfigError: a label, name or answer is none.
            OSError: they cannot be written; the file is as it was before.
        """
        for answer in answers:
            require_label(answer.question.label)
            check(answer.answer in ANSWERS, "answer", answer.answer, ", ".join(ANSWERS))
            fits = len(answer.who) <= _LONGEST and answer.who.isprintable()
            check(fits, "who", answer.who, f"a name of up to {_LONGEST} letters on one line")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(answer.cells() for answer in answers)
        self._append(text.getvalue())
        self.answers.extend(answers)

    def _append(self, text: str) -> None:
        """Write to the end and wait for the disk; what fails leaves no half row behind."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        handle = os.open(self.path, flags, 0o666)
        try:
            size = require_regular(self.path)
            os.lseek(handle, max(0, size - 1), os.SEEK_SET)
            # A crash or an editor may have left a last line without an end.
            ended = size == 0 or os.read(handle, 1) == b"\n"
            try:
                content = memoryview((text if ended else f"\n{text}").encode())
                while content:
                    content = content[os.write(handle, content) :]
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)


def require_label(label: str) -> None:
    """Raise ConfigError unless a text can be a label."""
    fits = bool(label.strip()) and label == label.strip() and len(label) <= _LONGEST
    fits = fits and label.isprintable() and ";" not in label
    check(fits, "label", label, f"a text of up to {_LONGEST} letters on one line, without ';'")


def now() -> str:
    """Return the time in ISO 8601, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
