"""Samples to the bytes of a 16-bit sound file."""

import io
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import soundfile
from jaxtyping import Float

T = TypeVar("T")
Codec = Literal["flac", "pcm"]
ENDINGS: dict[Codec, str] = {"flac": "flac", "pcm": "wav"}
"""The container of each codec, which is also the ending of its files."""
HIGHEST_FLAC_RATE = 655_350
"""The highest sampling rate that FLAC can state, in Hz."""
_FULL = 1 << 15


class WrittenSound(NamedTuple):
    """What was coded.

    Attributes:
        samples: how many.
        beyond: how many of them were beyond full scale, and are cut off there.
        loudest: the largest of them, without its sign.
    """

    samples: int
    beyond: int
    loudest: float


def write_sound(
    pieces: Iterable[Float[np.ndarray, " _"]],
    sample_rate: int,
    codec: Codec,
    file: io.BufferedIOBase,
) -> WrittenSound:
    """Write samples as a mono sound file of 16 bits. What was decoded from 16 bits comes back to the last bit.

    Args:
        pieces: the samples one after the other, nominally in [-1, 1].
        sample_rate: in Hz.
        codec: ``flac``, which is half as large, or ``pcm``, which is decoded in no time.
        file: where to; it stays open.

    Raises:
        OSError: it cannot be written.
    """
    samples, beyond, loudest, told = 0, 0, 0.0, _Telling(file)
    try:
        with soundfile.SoundFile(
            told, "w", sample_rate, 1, "PCM_16", format=ENDINGS[codec].upper()
        ) as sound:
            for wave in pieces:
                scaled = np.rint(wave * np.float32(_FULL))
                samples, loudest = (
                    samples + len(wave),
                    max(loudest, float(np.abs(wave).max(initial=0.0))),
                )
                beyond += int(
                    np.sum(np.abs(scaled) > _FULL)
                )  # 1.0 itself, one step too much, is no harm
                sound.write(np.clip(scaled, -_FULL, _FULL - 1).astype(np.int16))
    finally:
        if told.error is not None:
            raise told.error
    return WrittenSound(samples, beyond, loudest)


class _Telling:
    """A file that remembers what it failed of, which libsndfile would not tell, or only by something else."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._tried(lambda: self.file.write(data), 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._tried(lambda: self.file.seek(offset, whence), -1)

    def tell(self) -> int:
        return self._tried(self.file.tell, -1)

    def flush(self) -> None:
        self._tried(self.file.flush, None)

    def _tried(self, action: Callable[[], T], failed: T) -> T:
        if self.error is not None:
            return failed
        try:
            return action()
        except OSError as error:
            self.error = error
            return failed
