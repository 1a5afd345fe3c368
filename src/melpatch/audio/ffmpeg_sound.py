"""Phone and video formats (M4A, MP4, WMA, 3GP, WebM, AMR), decoded by FFmpeg through PyAV.

FFmpeg is given the bytes and the format, never a name, so that no file makes it open another one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

UNKNOWN_LENGTH = (1 << 63) - 1
"""Number of samples of a file that does not state it, as libsndfile gives it."""


class Container(NamedTuple):
    """A format that FFmpeg reads and libsndfile does not."""

    name: str
    demuxer: str
    """FFmpeg's name of it."""


_BRANDS = {
    b"3gp": "3GP",
    b"3g2": "3GP",
    b"qt ": "QuickTime",
}
# Offset and bytes of signatures.
_SIGNATURES = (
    (4, b"moov", Container("QuickTime", "mov")),
    (4, b"mdat", Container("QuickTime", "mov")),
    (4, b"wide", Container("QuickTime", "mov")),
    (0, b"\x30\x26\xb2\x75", Container("WMA", "asf")),
    (0, b"\x1a\x45\xdf\xa3", Container("WebM or Matroska", "matroska")),
    (0, b"#!AMR", Container("AMR", "amr")),
    (0, b"wvpk", Container("WavPack", "wv")),
    (0, b"MAC ", Container("Monkey's Audio", "ape")),
    (0, b"TTA1", Container("TTA", "tta")),
    (0, b"FLV\x01", Container("Flash video", "flv")),
    (8, b"AVI ", Container("AVI", "avi")),
    (0, b"\xff\xf1", Container("AAC", "aac")),
    (0, b"\xff\xf9", Container("AAC", "aac")),
)


class FFmpegError(Exception):
    """FFmpeg cannot decode a file.

    Attributes:
        error_string: its reason.
    """

    def __init__(self, error_string: str) -> None:
        super().__init__(error_string)
        self.error_string = error_string


def container_of(head: bytes) -> Container | None:
    """Return the format of a file by its first bytes; None if FFmpeg is not needed for it."""
    if head[4:8] == b"ftyp":
        return Container(_BRANDS.get(head[8:11], "MP4 or M4A"), "mov")
    for offset, signature, container in _SIGNATURES:
        if head[offset:].startswith(signature):
            return container
    return None


def pyav() -> Any:
    """Return PyAV; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


class FFmpegSound:
    """An open file that FFmpeg decodes, with those methods of soundfile's SoundFile that we use.

    Its length is not known before it is decoded, and it is decoded forwards only.
    """

    frames = UNKNOWN_LENGTH
    extra_info = ""

    def __init__(self, file: Any, container: Container) -> None:
        self._av = pyav()
        self.format = container.name
        try:
            self._container = self._av.open(
                file, format=container.demuxer, metadata_errors="ignore"
            )
        except (self._av.error.FFmpegError, ValueError) as error:
            raise FFmpegError(_reason(error)) from error
        if not self._container.streams.audio:
            self._container.close()
            raise FFmpegError("it holds no sound, only pictures or data")
        stream = self._container.streams.audio[0]
        if stream.codec_context is None:
            self._container.close()
            raise FFmpegError("its codec is unknown")
        self.subtype = stream.codec_context.name
        self._blocks = self._decode()
        self._rest = np.empty((0, 1), np.float32)
        # The header may state another rate than that of the samples, as with AAC of phones.
        self.samplerate = stream.codec_context.sample_rate
        self.channels = 1
        first = next(self._blocks, None)
        if first is None:
            self._container.close()
            raise FFmpegError("no sample can be decoded")
        self._rest = first
        self.channels = first.shape[1]

    def read(
        self, *, out: Float[np.ndarray, "sample channel"]
    ) -> Float[np.ndarray, "filled channel"]:
        """Decode into an array, and return the part of it that was filled.

        Raises:
            FFmpegError: the file is damaged; what is before the damage has been returned by then.
        """
        filled = 0
        while filled < len(out):
            if not len(self._rest):
                block = next(self._blocks, None)
                if block is None:
                    break
                self._rest = block
            taken = self._rest[: len(out) - filled]
            out[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._rest = self._rest[len(taken) :]
        return out[:filled]

    def seek(self, sample: int) -> int:
        """Refuse: samples are decoded in order only."""
        raise NotImplementedError(sample)

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self._container.close()

    def _decode(self) -> Iterator[np.ndarray]:
        """Yield the samples of each frame, (sample, channel), at the first frame's rate."""
        resampler = None
        try:
            for frame in self._container.decode(audio=0):
                if resampler is None:
                    self.samplerate = frame.sample_rate
                    layout = frame.layout.name
                    resampler = self._av.AudioResampler("fltp", layout, frame.sample_rate)
                for same in resampler.resample(frame):
                    yield same.to_ndarray().T
        except (self._av.error.FFmpegError, ValueError) as error:
            raise FFmpegError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Return FFmpeg's reason in one line, without its number."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
