"""An open sound file: its header, and its samples in bounded blocks; all faults are AudioErrors.

libsndfile decodes, through soundfile. The format is detected from the content, never from the name.
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
"""A sound file, a byte range of a file that is one, or an open file."""
LOWEST_RATE = 1_000
"""Lowest sampling rate that is accepted, in Hz; telephones have 8 000."""
HIGHEST_RATE = 768_000
"""Highest sampling rate that is accepted, in Hz; bat detectors have 384 000."""
SLACK = 0.1
"""Seconds by which a file may be shorter than stated: MP3 counts padding, some count headers."""
# Values decoded at a time, over all channels: 1 MB.
_BLOCK = 1 << 18
# Float files at integer scale reach 2^31; larger values are damage.
_LOUDEST = 1e10
# libsndfile reports 2^63 - 1 samples if a stream states no length.
_NO_LENGTH = 1 << 62
# Sizes that sox, arecord and ffmpeg write when they cannot seek back to the header.
_PIPED = range(0x7FFFF000, 1 << 32)
# How libsndfile's log reports a chunk that extends beyond the end of the file.
_CUT = re.compile(r"(?:data|SSND|BODY|Data Size|[Rr]iff(?: size)?)\s*: (\d+) \(should be (\d+)\)")


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The properties that a sound file's header states.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels, before they are mixed down.
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
        if self.samples is None:
            return None
        return self.samples / self.sample_rate


class _Bytes(io.BufferedReader):
    """A file without a name, because soundfile would read a ``.raw`` file as headerless sound.

    A WAV file whose writer died states no data and a wrong RIFF size. libsndfile reads such a file
    to its end only if that size is 8, so wrong sizes are presented as 8.
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

    # The buffer is one of cffi's, which have no public type.
    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        # Bytes 4 to 7 of the file hold the RIFF size.
        low = max(start, 4)
        high = min(start + count, 8)
        if self._unclosed and low < high:
            buffer[low - start : high - start] = b"RIFF\x08\0\0\0"[low:high]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek; before the start of the file, return the old position, which libsndfile detects."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file without soundfile's seek after each read, which restarts lossy decoders."""

    def seekable(self) -> bool:
        return False


class SoundFile:
    """A sound file that :func:`open_sound` has opened.

    Attributes:
        path: the file as the caller named it.
        info: the properties in the header.
        position: the sample, per channel, that is decoded next.
    """

    def __init__(self, path: Source, sound: soundfile.SoundFile) -> None:
        samples = None if sound.frames >= _NO_LENGTH else sound.frames
        rate = sound.samplerate
        self.path = path
        self.position = 0
        self._sound = sound
        self.info = AudioInfo(rate, sound.channels, samples, sound.format, sound.subtype)
        if samples == 0:
            raise AudioError(path, "holds no samples", COPY_AGAIN)
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            allowed = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
            reason = f"states a sampling rate of {rate} Hz; allowed: {allowed}"
            raise AudioError(path, reason, COPY_AGAIN)
        # libsndfile shortens truncated chunks silently, except in its log, which has both sizes.
        for stated, actual in _CUT.findall(sound.extra_info):
            if samples and int(actual) > 0 and int(stated) not in _PIPED:
                self._check_length(samples * int(stated) // int(actual), samples)

    def blocks(
        self, first: int = 0, count: int | None = None
    ) -> Iterator[Float[np.ndarray, " sample"]]:
        """Decode ``count`` samples from ``first``, or up to the end, as mono float32.

        Channels are averaged.

        Raises:
            AudioError: decoding fails, ends more than :data:`SLACK` before the stated end, or gives
                NaN or Inf.
        """
        self._go_to(first)
        stated = self.info.samples
        stop = stated
        if count is not None and (stop is None or first + count < stop):
            stop = first + count
        while stop is None or self.position < stop:
            samples = _BLOCK // self.info.channels
            if stop is not None:
                samples = min(samples, stop - self.position)
            block = self._decode(samples)
            if not len(block):
                if stated is not None and stop is not None:
                    self._check_length(stop, self.position)
                return
            # Written so that NaN fails too.
            if not np.abs(block).max() <= _LOUDEST:
                seconds = self.position / self.info.sample_rate
                reason = f"holds NaN, infinite or absurd samples near {seconds:.2f} s"
                raise AudioError(self.path, reason, COPY_AGAIN)
            yield block[:, 0] if self.info.channels == 1 else block.mean(axis=1)

    def _go_to(self, first: int) -> None:
        if first == self.position:
            return
        if self.info.samples is not None and soundfile.SoundFile.seekable(self._sound):
            try:
                self.position = self._sound.seek(first)
            except soundfile.LibsndfileError as error:
                seconds = first / self.info.sample_rate
                reason = f"cannot be read from {seconds:.2f} s on: {error_text(error)}"
                raise AudioError(self.path, reason, COPY_AGAIN) from error
        # Without seeking, everything before `first` is decoded and dropped.
        for _ in self.blocks(self.position, first - self.position):
            pass

    def _decode(self, samples: int) -> Float[np.ndarray, "sample channel"]:
        try:
            block: np.ndarray = self._sound.read(
                out=np.empty((samples, self.info.channels), np.float32)
            )
        except soundfile.LibsndfileError as error:
            seconds = self.position / self.info.sample_rate
            reason = f"breaks off after {seconds:.2f} s: {error_text(error)}"
            raise AudioError(self.path, reason, COPY_AGAIN) from error
        self.position += len(block)
        return block

    def _check_length(self, stated: int, actual: int) -> None:
        rate = self.info.sample_rate
        if stated - actual > SLACK * rate:
            seconds = f"{stated / rate:.2f} s, but only {actual / rate:.2f} s are there"
            raise AudioError(self.path, f"is truncated: it states {seconds}", COPY_AGAIN)


@contextmanager
def open_sound(path: Source) -> Iterator[SoundFile]:
    """Open a sound file, or a byte range of a file, as a context manager.

    Raises:
        AudioError: the file does not exist, is damaged or not audio, or states an impossible value.
    """
    if not isinstance(path, OpenFile):
        require_file(path)
    try:
        file = _Bytes(path)
    except OSError as error:
        reason = f"cannot be opened ({error.strerror})"
        raise AudioError(path, reason, "check who may read it") from error
    with file:
        try:
            sound = _Forward(file)
        except soundfile.LibsndfileError as error:
            raise AudioError(path, *why_unreadable(file, error)) from error
        with sound:
            yield SoundFile(path, sound)
