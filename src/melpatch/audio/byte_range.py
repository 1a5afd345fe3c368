"""A stretch of bytes of a file that is a whole sound file in itself, such as a member of a tar archive."""

import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from melpatch.errors import AudioError

_CHECKED = 4 << 20
"""Longest stretch that is read whole and checked, 4 MiB or two minutes of 16 kHz PCM; of a longer one only what is
decoded is read."""
_PACK_AGAIN = "copy the file again or pack it anew; melpatch pack --check finds all damage"


class ByteRange(NamedTuple):
    """Where a sound lies within a file.

    Attributes:
        path: the file.
        offset: its first byte there.
        size: in bytes.
        crc32: checksum of its bytes.
        name: what messages call it.
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
            AudioError: the file ends before, or the bytes are not those of the checksum.
            OSError: the file cannot be opened.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) < self.size:
            raise AudioError(
                self,
                f"lies beyond the end of its file: {self.size - len(found)} bytes lack",
                _PACK_AGAIN,
            )
        if zlib.crc32(found) != self.crc32:
            raise AudioError(
                self, f"is damaged: the checksum of its {self.size} bytes is wrong", _PACK_AGAIN
            )
        return found

    def open(self) -> io.BytesIO | io.FileIO:
        """Open it as a file of its own; a short one is read and checked at once.

        Raises:
            AudioError: as :meth:`content`.
            OSError: the file cannot be opened.
        """
        return io.BytesIO(self.content()) if self.size <= _CHECKED else _Window(self)


class _Window(io.FileIO):
    """The bytes of a stretch, counted from its beginning."""

    def __init__(self, stretch: ByteRange) -> None:
        super().__init__(stretch.path)
        self._offset, self._size = stretch.offset, stretch.size
        self.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place within the stretch."""
        place = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence] + offset
        if place < 0:
            raise ValueError(f"negative seek position {place}")
        return super().seek(self._offset + place) - self._offset

    def tell(self) -> int:
        """Return the place within the stretch."""
        return super().tell() - self._offset

    def readinto(self, buffer: Any) -> int | None:
        """Read up to the end of the stretch."""
        return super().readinto(memoryview(buffer)[: max(0, self._size - self.tell())])
