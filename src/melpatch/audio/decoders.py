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


class Bytes(io.BufferedReader):
    """A file without a name, because soundfile would read a ``.raw`` file as headerless sound.

    A WAV file whose writer died states no data and a wrong RIFF size. libsndfile reads such a file
    to its end only if that size is 8, so wrong sizes are presented as 8.

    Attributes:
        failure: what a read has raised, see :func:`failures_raised`.
    """

    name = ""
    failure: BaseException | None = None

    def __init__(self, raw: io.RawIOBase | io.BytesIO) -> None:
        super().__init__(raw)
        head = self.read(8)
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)
        self._unclosed = head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 != self.size

    # The buffer is one of cffi's, which have no public type.
    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes."""
        try:
            start = self.tell()
            count = super().readinto(buffer)
        except BaseException as error:  # noqa: BLE001 - kept, Ctrl-C too
            self.failure = error
            return 0
        # Bytes 4 to 7 of the file hold the RIFF size.
        low = max(start, 4)
        high = min(start + count, 8)
        if self._unclosed and low < high:
            buffer[low - start : high - start] = b"RIFF\x08\0\0\0"[low:high]
        return count

    def read_kept(self, size: int) -> bytes:
        """Read bytes as :meth:`readinto` does, for decoders that have no buffer."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek; before the start of the file, return the old position, which libsndfile detects."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


@contextmanager
def failures_raised(path: object, file: Bytes) -> Iterator[None]:
    """Raise what reading a file has raised while the body decodes it.

    libsndfile would print and lose it, so it is told that the file ends.

    Raises:
        UnreachableError: the file cannot be read now.
        AudioError: it cannot be read.
    """
    try:
        yield
    except DECODER_ERRORS:
        if file.failure is None:
            raise
    except OSError as error:
        file.failure = error
    failure, file.failure = file.failure, None
    if isinstance(failure, OSError):
        raise_passing(path, failure)
        reason = f"cannot be read ({failure.strerror or failure})"
        raise AudioError(path, reason, "look at the disk and its connection") from failure
    if failure is not None:
        raise failure


class _ForFFmpeg:
    """A file as PyAV reads it; it would print what is raised meanwhile, and drop it."""

    def __init__(self, file: Bytes) -> None:
        self.read = file.read_kept
        self.seek = file.seek
        self.tell = file.tell


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
        return FFmpegSound(_ForFFmpeg(file), container)
