"""A range of bytes that is a whole sound file, such as a member of a tar archive."""

import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from melpatch.errors import AudioError

_CHECKED = 4 << 20
"""Longest range that is read as a whole and checked, in bytes (two minutes of 16 kHz PCM).

Longer ones are read only where they are decoded."""
_PACK_AGAIN = "copy the file again or pack it again; melpatch pack --check finds all damage"


class ByteRange(NamedTuple):
    """A sound file within a file.

    Attributes:
        path: the outer file.
        offset: first byte of the range.
        size: in bytes.
        crc32: checksum of its bytes.
        name: its name in messages.
    """

    path: Path
    offset: int
    size: int
    crc32: int
    name: str

    def __str__(self) -> str:
        return self.name

    def content(self) -> bytes:
        """Return its bytes.

        Raises:
            AudioError: the file is too short, or the checksum does not match.
            OSError: the file cannot be opened.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            missing = self.size - len(content)
            reason = f"lies beyond the end of its file: {missing} bytes are missing"
            raise AudioError(self, reason, _PACK_AGAIN)
        if zlib.crc32(content) != self.crc32:
            reason = f"is damaged: the checksum of its {self.size} bytes is wrong"
            raise AudioError(self, reason, _PACK_AGAIN)
        return content

    def open(self) -> io.BytesIO | io.FileIO:
        """Open the range as a separate file; a short one is read and checked immediately.

        Raises:
            AudioError: as :meth:`content`.
            OSError: the file cannot be opened.
        """
        if self.size <= _CHECKED:
            return io.BytesIO(self.content())
        return _Window(self)


class HeldRange(ByteRange):
    """A byte range whose bytes are in memory, fetched and checked; its file may be elsewhere.

    Attributes:
        held: the bytes.
    """

    held: bytes

    @classmethod
    def of(cls, byte_range: ByteRange, held: bytes) -> "HeldRange":
        """Return a byte range with its bytes."""
        made = cls(*byte_range)
        made.held = held
        return made

    def content(self) -> bytes:
        """Return its bytes."""
        return self.held

    def open(self) -> io.BytesIO:
        """Open the bytes as a separate file."""
        return io.BytesIO(self.held)


class _Window(io.FileIO):
    """A byte range as a file whose positions count from its beginning."""

    def __init__(self, byte_range: ByteRange) -> None:
        super().__init__(byte_range.path)
        self._offset = byte_range.offset
        self._size = byte_range.size
        self.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position within the range."""
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        return super().seek(self._offset + position) - self._offset

    def tell(self) -> int:
        """Return the position within the range."""
        return super().tell() - self._offset

    def readinto(self, buffer: Any) -> int | None:
        """Read at most up to the end of the range."""
        left = max(0, self._size - self.tell())
        return super().readinto(memoryview(buffer)[:left])
