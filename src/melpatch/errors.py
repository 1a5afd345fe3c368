"""Errors for users: one sentence that names the thing, what is wrong with it, and the remedy.

The command line prints such a message on one line and exits with code 2; anything else that escapes
is a defect.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# C0 and C1 without the tab, and marks that reverse the direction of text.
_CONTROL = re.compile("[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


def shortened(value: object, longest: int = 200, *, typed: bool = False) -> str:
    """Return a value as Python writes it, or as it is typed, cut to what fits in a message."""
    try:
        if not typed:
            text = repr(value)
        elif isinstance(value, tuple | list):
            text = " ".join(map(str, value))
        else:
            text = str(value)
    # Python refuses to write numbers of thousands of digits, and very deep nesting.
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    if len(text) <= longest:
        return text
    return f"{text[:longest]}... ({len(text)} characters)"


def visible(text: str) -> str:
    """Return text for a terminal, its control characters other than line breaks as in Python."""
    return "\n".join(
        _CONTROL.sub(lambda letter: repr(letter[0])[1:-1], line) for line in text.split("\n")
    )


def one_line(text: str, longest: int = 2000) -> str:
    """Return a message as one line for a terminal, whatever a file may have put into it.

    Control characters, which could move the cursor or change what stands above, are written as in
    Python. Of a very long message the beginning, with the place, and the end, with the remedy,
    stay.
    """
    line = visible(" ".join(text.splitlines()))
    if len(line) <= longest:
        return line
    cut = f" ... ({len(line)} characters) ... "
    return f"{line[: longest * 3 // 5]}{cut}{line[-longest // 5 :]}"


class MelpatchError(Exception):
    """Something that a user can put right.

    The message names the file or field, the value, what is allowed, and the remedy.
    """


class ConfigError(MelpatchError):
    """A setting that is unknown, ill-typed, out of range, or at odds with another one."""


class SettingError(ConfigError):
    """A setting that is out of range.

    Attributes:
        field: name of the setting, as its dataclass declares it.
        shown: its value in words.
        allowed: the values that it may have.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} = {shortened(value)}; allowed: {allowed}")
        self.field = field
        # As the user typed it.
        self.shown = shortened(value, typed=True)
        self.allowed = allowed

    def __reduce__(self) -> tuple[type["SettingError"], tuple[str, str, str]]:
        """Rebuild from the parts, so that the error survives pickling by a worker process."""
        return type(self), (self.field, self.shown, self.allowed)


class DataError(MelpatchError):
    """A corpus that cannot be used: an empty folder, a missing column or split, too many bad clips."""


class NotFiniteError(DataError):
    """Outputs of a network that are no finite numbers, of clips that can be read."""


class CheckpointError(MelpatchError):
    """A run or model folder that is missing, incomplete, or made for something else."""


class Interrupted(BaseException):
    """A signal asked the process to stop, and the work can be resumed from where it stands.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class AudioError(MelpatchError):
    """A recording that cannot be read.

    Attributes:
        path: the file as the caller named it.
        reason: what is wrong, short enough for a table cell.
        fix: what to do about it.
    """

    def __init__(self, path: object, reason: str, fix: str) -> None:
        super().__init__(f"{path}: {reason}; {fix}")
        self.path = str(path)
        self.reason = reason
        self.fix = fix

    def __reduce__(self) -> tuple[type["AudioError"], tuple[str, str, str]]:
        """Rebuild from the three parts, so that the error survives pickling by a worker process."""
        return type(self), (self.path, self.reason, self.fix)


class UnreachableError(AudioError):
    """A recording that cannot be fetched now, because of the network, access rights or the disk."""


@contextmanager
def report_lost_workers() -> Iterator[None]:
    """Turn torch's error about a killed decoding process into one for users.

    torch raises it wherever the main thread happens to be.

    Raises:
        MelpatchError: a decoding process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise MelpatchError(
            "a decoding process was killed, perhaps for lack of memory; give fewer --workers, or 0"
        ) from error
