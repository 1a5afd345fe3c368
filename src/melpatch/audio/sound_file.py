"""An open sound file: what it states, and its samples in bounded blocks; whatever is wrong with it is an AudioError.

Decoding is libsndfile's, through soundfile. The file is told by its content, never by its name.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from melpatch.audio.byte_range import ByteRange
from melpatch.audio.open_file import OpenFile
from melpatch.audio.unreadable import COPY_AGAIN, error_text, require_file, why_unreadable
from melpatch.errors import AudioError

Source = str | Path | ByteRange | OpenFile
"""A sound file, a stretch of a file that is one in itself, or a file that is open already."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Sampling rates taken for sound, in Hz: telephones have 8 000, bat detectors 384 000."""
SLACK = 0.1
"""Seconds that a file may lack of the length it states: MP3 counts padding, some programs count their own header."""
_BLOCK = 1 << 18  # values decoded at a time, all channels together: 1 MB
_LOUDEST = 1e10  # float files at integer scale reach 2^31; beyond lies only damage
_NO_LENGTH = 1 << 62  # libsndfile states 2^63 - 1 where a stream states nothing
_PIPED = range(
    0x7FFFF000, 1 << 32
)  # sizes that sox, arecord and ffmpeg write when they cannot go back to the header
# How libsndfile's log names a chunk of sound that goes on beyond the end of the file.
_CUT = re.compile(r"(?:data|SSND|BODY|Data Size|[Rr]iff(?: size)?)\s*: (\d+) \(should be (\d+)\)")


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a sound file states about itself.

    Attributes:
        sample_rate: in Hz.
        channels: how many, before they are mixed down.
        samples: length in samples per channel; None where the file does not state it.
        format: libsndfile's name of the container, such as ``WAV``.
        subtype: libsndfile's name of the codec, such as ``PCM_16``.
    """

    sample_rate: int
    channels: int
    samples: int | None
    format: str
    subtype: str

    @property
    def duration(self) -> float | None:
        """The length in seconds; None where the file does not state it."""
        return None if self.samples is None else self.samples / self.sample_rate


class _Bytes(io.BufferedReader):
    """A file without its name, from which soundfile would take ``.raw`` for headerless sound.

    A WAV file whose writer died states no data and a wrong RIFF size. libsndfile reads such a file on to its end only
    where that size is 8, so 8 is what it is shown wherever the size is wrong.
    """

    name = ""

    def __init__(self, source: Source) -> None:
        if isinstance(source, ByteRange | OpenFile):
            super().__init__(source.open())
        else:
            super().__init__(io.FileIO(source))
        head = self.read(8)
        size = self.seek(0, io.SEEK_END)
        self.seek(0)
        self._unclosed = head[:4] == b"RIFF" and int.from_bytes(head[4:], "little") + 8 != size

    def readinto(self, buffer: Any) -> int:  # a buffer of cffi, which is of no public type
        start = self.tell()
        count = super().readinto(buffer)
        low, high = max(start, 4), min(start + count, 8)
        if self._unclosed and low < high:
            buffer[low - start : high - start] = b"RIFF\x08\0\0\0"[low:high]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go where a header points; libsndfile, which checks, is told the old place where that is before the file."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file without soundfile's seek after each read, with which lossy decoders start anew at each block."""

    def seekable(self) -> bool:
        return False


class SoundFile:
    """A sound file that :func:`open_sound` has opened.

    Attributes:
        path: the file as the caller named it.
        info: what the file states.
        position: the sample, per channel, that is decoded next.
    """

    def __init__(self, path: Source, sound: soundfile.SoundFile) -> None:
        samples = None if sound.frames >= _NO_LENGTH else sound.frames
        self.path, self.position, self._sound = path, 0, sound
        self.info = AudioInfo(
            sound.samplerate, sound.channels, samples, sound.format, sound.subtype
        )
        if samples == 0:
            raise AudioError(path, "holds no samples", COPY_AGAIN)
        if not LOWEST_RATE <= sound.samplerate <= HIGHEST_RATE:
            allowed = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
            raise AudioError(
                path,
                f"states a sampling rate of {sound.samplerate} Hz; allowed: {allowed}",
                COPY_AGAIN,
            )
        for stated, there in _CUT.findall(sound.extra_info):
            if samples and int(there) > 0 and int(stated) not in _PIPED:
                self._check_length(samples * int(stated) // int(there), samples)

    def blocks(
        self, first: int = 0, count: int | None = None
    ) -> Iterator[Float[np.ndarray, " sample"]]:
        """Decode from sample ``first`` on: ``count`` samples, or up to the end, as mono float32, the mean of channels.

        Raises:
            AudioError: decoding fails, ends more than :data:`SLACK` before the stated end, or gives NaN or Inf.
        """
        self._go_to(first)
        stated = self.info.samples
        stop = (
            stated
            if count is None
            else first + count
            if stated is None
            else min(first + count, stated)
        )
        while stop is None or self.position < stop:
            room = _BLOCK // self.info.channels
            block = self._decode(room if stop is None else min(room, stop - self.position))
            if not len(block):
                if stated is not None and stop is not None:
                    self._check_length(stop, self.position)
                return
            if not np.abs(block).max() <= _LOUDEST:
                seconds = self.position / self.info.sample_rate
                raise AudioError(
                    self.path,
                    f"holds NaN, infinite or absurd samples near {seconds:.2f} s",
                    COPY_AGAIN,
                )
            yield block[:, 0] if self.info.channels == 1 else block.mean(axis=1)

    def _go_to(self, first: int) -> None:
        if first == self.position:
            return
        if self.info.samples is not None and soundfile.SoundFile.seekable(self._sound):
            try:
                self.position = self._sound.seek(first)
            except soundfile.LibsndfileError as error:
                seconds = first / self.info.sample_rate
                raise AudioError(
                    self.path,
                    f"cannot be read from {seconds:.2f} s on: {error_text(error)}",
                    COPY_AGAIN,
                ) from error
        for _ in self.blocks(self.position, first - self.position):
            pass

    def _decode(self, samples: int) -> Float[np.ndarray, "sample channel"]:
        try:
            block: np.ndarray = self._sound.read(
                out=np.empty((samples, self.info.channels), np.float32)
            )
        except soundfile.LibsndfileError as error:
            seconds = self.position / self.info.sample_rate
            raise AudioError(
                self.path, f"breaks off after {seconds:.2f} s: {error_text(error)}", COPY_AGAIN
            ) from error
        self.position += len(block)
        return block

    def _check_length(self, stated: int, there: int) -> None:
        rate = self.info.sample_rate
        if stated - there > SLACK * rate:
            reason = f"is truncated: it states {stated / rate:.2f} s, but only {there / rate:.2f} s are there"
            raise AudioError(self.path, reason, COPY_AGAIN)


@contextmanager
def open_sound(path: Source) -> Iterator[SoundFile]:
    """Open a sound file, or a stretch of a file, for the body of a ``with``.

    Raises:
        AudioError: there is no such file, it is damaged or not sound, or it states something impossible.
    """
    if not isinstance(path, OpenFile):
        require_file(path)
    try:
        file = _Bytes(path)
    except OSError as error:
        raise AudioError(
            path, f"cannot be opened ({error.strerror})", "check who may read it"
        ) from error
    with file:
        try:
            sound = _Forward(file)
        except soundfile.LibsndfileError as error:
            raise AudioError(path, *why_unreadable(file, error)) from error
        with sound:
            yield SoundFile(path, sound)
