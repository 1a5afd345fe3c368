"""Links of a sound file: several MP3 or Ogg files may stand one after the other in one file.

libsndfile decodes the first of them alone, so each is given to it as a file.
"""

import io
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from melpatch.audio.mpeg import Link, Pieces, begins_frame, mpeg_links

# How the first packet of a stream begins.
_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_OGG_HEADER = 27


class Stretch(io.RawIOBase):
    """A link of an open file, as a file that begins with the link's head."""

    def __init__(self, file: BufferedReader, link: Link) -> None:
        super().__init__()
        self._file = file
        self._link = link
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, counted from the first byte of the head."""
        size = len(self._link.head) + self._link.size
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read at most up to the end of the head or the link; return the number of bytes."""
        # Below 0: still in the head, which is not in the file at this place.
        within = self._position - len(self._link.head)
        if within < 0:
            data = self._link.head[within:][: len(buffer)]
        else:
            self._file.seek(self._link.offset + within)
            data = self._file.read(min(len(buffer), max(0, self._link.size - within)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def find_links(file: BufferedReader, size: int) -> tuple[Link, ...]:
    """Return the links of an open file: one for most files, several for chained MP3 and Ogg."""
    whole = (Link(0, size),)
    pieces = Pieces(file, size)
    head = pieces.at(0, 4)
    if head == b"OggS":
        return _ogg_links(pieces)
    if head[:3] == b"ID3" or begins_frame(head):
        return mpeg_links(pieces) or (Link(0, size, exact=False),)
    return whole


@lru_cache(1 << 12)
def _links_of_state(path: Path, state: tuple[int, ...]) -> tuple[Link, ...]:
    with path.open("rb") as file:
        return find_links(file, state[0])


def find_links_of_file(path: Path) -> tuple[Link, ...]:
    """Return the links of a file by its path; they are kept as long as the file stays the same.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _links_of_state(path, (status.st_size, status.st_mtime_ns, status.st_ino))


def _ogg_links(pieces: Pieces) -> tuple[Link, ...]:
    """Return the links of an Ogg file: each begins with pages that begin streams."""
    starts = []
    position = 0
    within_heads = False
    while position < pieces.size:
        header = pieces.at(position, _OGG_HEADER)
        if len(header) < _OGG_HEADER or header[:4] != b"OggS":
            # Damage: go on at the next page.
            position = pieces.find(b"OggS", position + 1)
            continue
        segments = pieces.at(position + _OGG_HEADER, header[26])
        content = position + _OGG_HEADER + len(segments)
        begins = pieces.at(content, 8).startswith(_OGG_CODECS)
        if begins and not within_heads:
            starts.append(position)
        within_heads = begins
        position = content + sum(segments)
    if len(starts) < 2:
        return (Link(0, pieces.size),)
    ends = [*starts[1:], pieces.size]
    return tuple(Link(start, end - start) for start, end in zip(starts, ends, strict=True))
