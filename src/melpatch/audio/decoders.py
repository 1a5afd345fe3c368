"""What decodes an open file: libsndfile, or FFmpeg for formats that libsndfile does not know."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import soundfile

from melpatch.audio.ffmpeg_sound import FFmpegError, FFmpegSound, container_of, pyav
from melpatch.audio.unreadable import raise_passing
from melpatch.errors import AudioError

DECODER_ERRORS = (soundfile.LibsndfileError, FFmpegError)
"""What decoders raise."""


# libsndfile asks for hundreds of bytes to a few thousand at a time.
_BUFFER = 1 << 16


class Bytes(io.BufferedReader):
    """A file without a name, because soundfile would read a ``.raw`` file as headerless sound.

    libsndfile calls back for each of its many small reads, so the work that these need in Python is
    done below, once for each time that the buffer is filled.
    """

    name = ""

    def __init__(self, raw: io.RawIOBase | io.BytesIO) -> None:
        self._below = _Below(raw)
        super().__init__(self._below, _BUFFER)

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return self._below.size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek; before the start of the file, return the old position, which libsndfile detects."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()

    def take_failure(self) -> BaseException | None:
        """Return what a read has raised since the last call."""
        failure, self._below.failure = self._below.failure, None
        return failure


class _Below(io.RawIOBase):
    """A file that seems to end where a read fails, and keeps why.

    A WAV file whose writer died states no data and a wrong RIFF size. libsndfile reads such a file
    to its end only if that size is 8, so wrong sizes are presented as 8.

    Attributes:
        size: length of the file in bytes.
        failure: what a read has raised.
    """

    failure: BaseException | None = None

    def __init__(self, raw: io.RawIOBase | io.BytesIO) -> None:
        self._raw = raw
        head = raw.read(8) or b""
        self.size = raw.seek(0, io.SEEK_END)
        raw.seek(0)
        self._unclosed = head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 != self.size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._raw.tell()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
        super().close()

    # The buffer has no public type.
    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes."""
        try:
            start = self._raw.tell()
            count = self._raw.readinto(buffer) or 0
        except BaseException as error:  # noqa: BLE001 - kept, Ctrl-C too
            self.failure = error
            return 0
        # Bytes 4 to 7 of the file hold the RIFF size.
        low = max(start, 4)
        high = min(start + count, 8)
        if self._unclosed and low < high:
            buffer[low - start : high - start] = b"RIFF\x08\0\0\0"[low:high]
        return count


@contextmanager
def failures_raised(path: object, file: Bytes) -> Iterator[None]:
    """Raise what reading a file has raised while the body decodes it.

    libsndfile would print and lose it, so it is told that the file ends.

    Raises:
        UnreachableError: the file cannot be read now.
        AudioError: it cannot be read.
    """
    failure: BaseException | None = None
    try:
        yield
    except DECODER_ERRORS:
        failure = file.take_failure()
        if failure is None:
            raise
    except OSError as error:
        failure = error
    failure = failure or file.take_failure()
    if isinstance(failure, OSError):
        raise_passing(path, failure)
        reason = f"cannot be read ({failure.strerror or failure})"
        raise AudioError(path, reason, "look at the disk and its connection") from failure
    if failure is not None:
        raise failure


class ForwardSound(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file without soundfile's seek after each read, which restarts lossy decoders."""

    def seekable(self) -> bool:
        """Return False."""
        return False


Decoder = ForwardSound | FFmpegSound


def open_decoder(file: Bytes) -> Decoder:
    """Return the decoder of an open file.

    Raises:
        LibsndfileError: libsndfile does not know the format, nor FFmpeg, or PyAV is not installed.
        FFmpegError: FFmpeg knows the format, and cannot decode the file.
    """
    try:
        return ForwardSound(file)
    except soundfile.LibsndfileError:
        file.seek(0)
        container = container_of(file.read(16))
        if container is None or pyav() is None:
            raise
        file.seek(0)
        return FFmpegSound(file, container)
