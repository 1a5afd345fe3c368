"""Digests in NPZ and Parquet files of what they hold, which show whether they were changed."""

import hashlib
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

DIGEST = "melpatch.digest"
"""Key of the digest in a file's metadata."""
_FOOT = struct.Struct("<i4s")  # length of the footer, magic
_CHUNK_BYTES = 1 << 20


class DigestedFile:
    """A file to write to, which computes a digest of its bytes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = _new_hash()

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self._hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def flush(self) -> None:
        """Pass on what was written."""
        self._file.flush()

    def close(self) -> None:
        """Leave the file open: it is closed by whoever opened it."""

    def include(self, data: bytes) -> None:
        """Make the digest depend on bytes that are written elsewhere."""
        self._hash.update(data)

    def digest(self) -> str:
        """Return the digest of what was written."""
        return self._hash.hexdigest()


def digest_of_members(archive: zipfile.ZipFile) -> bytes:
    """Return a digest of the checksums of an archive's members, for its comment."""
    hashed = _new_hash()
    for member in archive.infolist():
        hashed.update(f"{member.filename} {member.CRC} {member.file_size}\n".encode())
    return f"{DIGEST} {hashed.hexdigest()}".encode()


def digest_before_footer(path: Path, included: bytes = b"") -> str:
    """Return the digest of a Parquet file's bytes before its footer.

    Args:
        path: the file.
        included: bytes of the footer that it depends on, see :meth:`DigestedFile.include`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no Parquet file.
    """
    hashed = _new_hash()
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < _FOOT.size:
            raise ValueError("no Parquet file")
        file.seek(size - _FOOT.size)
        footer, magic = _FOOT.unpack(file.read(_FOOT.size))
        left = size - _FOOT.size - footer
        if magic != b"PAR1" or left < 0:
            raise ValueError("no Parquet file")
        file.seek(0)
        while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
            hashed.update(data)
            left -= len(data)
    hashed.update(included)
    return hashed.hexdigest()


def _new_hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=16)
