"""Find the format of a file or folder of others by what it holds, not by its name."""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from melpatch import registry
from melpatch.data.formats.base import Format
from melpatch.data.json_lines import GZIP
from melpatch.faults import let_pass
from melpatch.opening import open_binary

_HEAD = 1 << 16
_KIND = "data/formats"


@lru_cache(1)
def formats() -> tuple[Format, ...]:
    """Return all formats, sorted by name."""
    return tuple(registry.find(_KIND, name)() for name in registry.names(_KIND))


def format_of(path: Path) -> Format | None:
    """Return the format of a file; None if it is none of others, or cannot be read."""
    try:
        with open_binary(path) as file:
            head = file.read(_HEAD)
    except OSError as error:
        let_pass(error)
        return None
    if head.startswith(GZIP):
        head = _decompressed(head)
    return next((form for form in formats() if form.recognises(path, head)), None)


def files_of(folder: Path, names: Sequence[str]) -> tuple[Format, Sequence[Path]] | None:
    """Return the format by which a folder is read, and its files; None if there is none.

    Args:
        folder: the folder.
        names: paths of the files below it that may be sound, by their names.
    """
    # A licence or a list of Kaldi has no ending.
    has_sound = any(Path(name).suffix for name in names)
    for form in formats():
        files: Sequence[Path] = ()
        if form.beside_sound or not has_sound:
            files = form.files(folder, names)
        if files:
            return form, files
    return None


def _decompressed(head: bytes) -> bytes:
    """Return the first bytes of a gzip file's content, however much it holds."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, _HEAD)
    except zlib.error:
        return b""
