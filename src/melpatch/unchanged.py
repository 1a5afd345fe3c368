"""Whether an output still holds what was written, by a digest in a hidden file beside it.

CSV files have no place for a digest of their own, and must not have one: other programs read them.
"""

import hashlib
from pathlib import Path

from melpatch.atomic import written_aside
from melpatch.opening import read_text

_CHUNK_BYTES = 1 << 20
_MOST_BYTES = 1 << 10


def note_digest(out: Path, content: Path) -> None:
    """Note what an output is about to hold.

    It is noted before the output is replaced, with the digest of the earlier output, so that a
    crash between the two leaves an output that is known.

    Args:
        out: the output.
        content: the file that is to take its place.
    """
    noted = [digest_of(content)]
    if is_unchanged(out):
        noted.append(digest_of(out))
    lines = [f"{digest}\n" for digest in dict.fromkeys(noted)]
    with written_aside(digest_file(out)) as aside:
        aside.write_text("".join(lines), encoding="utf-8")


def is_unchanged(out: Path) -> bool | None:
    """Return whether an output holds what was last noted; None if nothing was.

    Raises:
        OSError: it cannot be read.
    """
    place = digest_file(out)
    if not place.is_file():
        return None
    try:
        noted = read_text(place, _MOST_BYTES).split()
    except UnicodeDecodeError:
        return False
    return out.is_file() and digest_of(out) in noted


def digest_file(out: Path) -> Path:
    """Return the hidden file with the digest of an output."""
    return out.with_name(f".{out.name}.digest")


def digest_of(path: Path) -> str:
    """Return a digest of the content of a file."""
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            hashed.update(data)
    return hashed.hexdigest()
