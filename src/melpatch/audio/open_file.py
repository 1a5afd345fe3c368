"""A binary file that a caller has open, such as a ``BytesIO`` or an upload, as a source of audio."""

import io
from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class BinaryFile(Protocol):
    """The methods required of an open binary file; ``open``, ``io`` and ``tempfile`` have them."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, all by default."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a position, and return it."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...

    def seekable(self) -> bool:
        """Return whether the file can seek."""
        ...


class OpenFile(NamedTuple):
    """An open binary file. It is read from its beginning where it can seek, and never closed.

    Attributes:
        file: the file; one that cannot seek is read to its end and held in memory.
    """

    file: BinaryFile

    def __str__(self) -> str:
        name = getattr(self.file, "name", None)
        if not isinstance(name, str):
            name = type(self.file).__name__
        return f"the open file {name}"

    def open(self) -> "io.BytesIO | Borrowed":
        """Return a separate file object, so that closing it does not close the caller's."""
        if not self.file.seekable():
            return io.BytesIO(self.file.read())
        return Borrowed(self.file)


class Borrowed(io.RawIOBase):
    """A view of another file, which stays open when the view is closed."""

    def __init__(self, file: BinaryFile) -> None:
        super().__init__()
        self._file = file
        self._file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the other file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position of the other file."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
