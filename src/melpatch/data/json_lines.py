"""Read files of JSON lines, also compressed by gzip, and look at the first line of one."""

import json
import zlib
from pathlib import Path
from typing import Any

from melpatch.data.json_tables import Record, parsed_lines
from melpatch.errors import DataError
from melpatch.opening import LOG_BYTES, read_bytes

GZIP = b"\x1f\x8b"
"""The first bytes of a file that gzip has compressed."""


def read_records(path: Path) -> list[Record]:
    """Return the values of the lines of a file, by number; a broken line has a ValueError.

    Raises:
        DataError: the file is damaged, or holds more than any list of clips.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    content = read_bytes(path, LOG_BYTES)
    if content.startswith(GZIP):
        content = _decompressed(path, content)
    return parsed_lines(content.decode("utf-8-sig"))


def first_record(head: bytes) -> dict[str, Any]:
    """Return the object in the first line of a file; ``{}`` if there is none.

    Args:
        head: the first bytes of the file.
    """
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _decompressed(path: Path, content: bytes) -> bytes:
    unzipped = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = unzipped.decompress(content, LOG_BYTES)
    except zlib.error as error:
        raise DataError(f"{path}: damaged ({error}); copy it again") from error
    if unzipped.unconsumed_tail:
        raise DataError(f"{path}: unpacks to more than {LOG_BYTES >> 30} GiB; split it")
    if not unzipped.eof:
        raise DataError(f"{path}: damaged (breaks off); copy it again")
    return text
