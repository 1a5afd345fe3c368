"""Write samples as 16-bit FLAC or WAV files."""

import io
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import soundfile
from jaxtyping import Float

T = TypeVar("T")
Codec = Literal["flac", "pcm"]
ENDINGS: dict[Codec, str] = {"flac": "flac", "pcm": "wav"}
"""The container of each codec, which is also the extension of its files."""
HIGHEST_FLAC_RATE = 655_350
"""The highest sampling rate that FLAC can state, in Hz."""
# Full scale of 16-bit samples.
_FULL = 1 << 15


class WrittenSound(NamedTuple):
    """Counts of what was written.

    Attributes:
        samples: number of samples.
        clipped: how many of them were beyond full scale and were clipped.
        peak: largest absolute value of the input.
    """

    samples: int
    clipped: int
    peak: float


def write_sound(
    pieces: Iterable[Float[np.ndarray, " _"]],
    sample_rate: int,
    codec: Codec,
    file: io.BufferedIOBase,
) -> WrittenSound:
    """Write samples as a mono 16-bit sound file; samples decoded from 16 bits are kept exactly.

    Args:
        pieces: successive pieces of the wave, nominally in [-1, 1].
        sample_rate: in Hz.
        codec: ``flac``, half the size, or ``pcm``, much faster to decode.
        file: the file to write to; it stays open.

    Raises:
        OSError: the file cannot be written.
    """
    samples = 0
    clipped = 0
    peak = 0.0
    target = _ErrorKeepingFile(file)
    container = ENDINGS[codec].upper()
    try:
        with soundfile.SoundFile(target, "w", sample_rate, 1, "PCM_16", format=container) as sound:
            for wave in pieces:
                # Samples decoded from 16 bits are multiples of 2^-15, so scaling them back is
                # exact.
                scaled = np.rint(wave * np.float32(_FULL))
                samples += len(wave)
                peak = max(peak, float(np.abs(wave).max(initial=0.0)))
                # 1.0 itself is one step above the largest 16-bit value and does not count.
                clipped += int(np.sum(np.abs(scaled) > _FULL))
                sound.write(np.clip(scaled, -_FULL, _FULL - 1).astype(np.int16))
    finally:
        if target.error is not None:
            raise target.error
    return WrittenSound(samples, clipped, peak)


class _ErrorKeepingFile:
    """A file that keeps its first OSError, which libsndfile would swallow or disguise."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._keep_error(lambda: self.file.write(data), 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._keep_error(lambda: self.file.seek(offset, whence), -1)

    def tell(self) -> int:
        return self._keep_error(self.file.tell, -1)

    def flush(self) -> None:
        self._keep_error(self.file.flush, None)

    def _keep_error(self, action: Callable[[], T], failed: T) -> T:
        if self.error is not None:
            return failed
        try:
            return action()
        except OSError as error:
            self.error = error
            return failed
