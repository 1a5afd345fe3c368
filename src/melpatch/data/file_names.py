"""File names as text in tables: names that are not UTF-8 are written as file URLs, and found again.

Python has the bytes of such names as lone surrogates, which no UTF-8 file can hold.
"""

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

_SCHEME = "file://"


def is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def absolute(path: Path) -> Path:
    """Return the absolute path of a file without ``.`` and ``..``, one for every way of writing it.

    Links are not followed, so that a file keeps the name that the user knows it by.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps what is ".."


def path_text(path: Path) -> str:
    """Return a path as text: itself, or a file URL if its name is not UTF-8.

    >>> path_text(Path(b"/data/\\xe9t\\xe9.wav".decode("utf-8", "surrogateescape")))
    'file:///data/%E9t%E9.wav'
    """
    text = str(path)
    if is_text(text):
        return text
    return _SCHEME + quote_from_bytes(os.fsencode(path.absolute()))


def path_of_url(text: str) -> Path | None:
    """Return the path that a file URL stands for; None if the text is none."""
    if not text.startswith(f"{_SCHEME}/"):
        return None
    return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_SCHEME))))


def readable(name: str) -> str:
    """Return a name that can be written and read by people; bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not is_text(name) else name
