"""Read sound files: their header, a segment, or windows of it, as mono float32 at a given rate.

Everything that libsndfile decodes is read: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, W64, CAF and
more. Values are not clipped, because lossy codecs overshoot 1. Wherever a file is expected, a
:class:`~melpatch.audio.byte_range.ByteRange` may be given.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil, gcd
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soxr
from jaxtyping import Float

from melpatch.audio.sound_file import AudioInfo, SoundFile, Source, open_sound
from melpatch.config import check
from melpatch.errors import AudioError

__all__ = ["AudioInfo", "Channel", "Source", "count_samples", "probe", "read", "stream"]

Channel = Literal["mean", "left", "right", "loudest"]
"""What is taken of several channels: their mean, the first, the second, or that of most energy in
the whole file. Of one channel that is taken, whatever is asked for."""

_QUALITY = "HQ"
_REACH = 128
"""Reach of soxr's HQ filter in samples of the slower rate; beyond it, only rounding differs."""


def probe(path: Source) -> AudioInfo:
    """Return what the header of a sound file states, without decoding.

    The frames of an MP3 file that does not state its length are counted.

    Raises:
        AudioError: the file is missing, not sound, empty, cut short, or states an impossible rate.
    """
    with open_sound(path) as sound:
        sound.check_stated_length()
        return sound.info


def count_samples(path: Source) -> int:
    """Return the length of a sound file in samples per channel, by decoding all of it.

    Raises:
        AudioError: as :func:`read`.
    """
    with open_sound(path) as sound:
        return sum(len(block) for block in sound.blocks())


def read(
    path: Source,
    *,
    start: float = 0.0,
    duration: float | None = None,
    sample_rate: int | None = None,
    channel: Channel = "mean",
) -> tuple[Float[np.ndarray, " sample"], int]:
    """Return a segment of a sound file and its sampling rate.

    Only the segment and a little around it is decoded. It equals the same slice of the whole
    resampled file, except for rounding. With Opus the two differ by about 1e-3, because its decoder
    adds noise that depends on where it started. The MP3 decoder, started in mid-file, may write
    harmless notes to stderr.

    Args:
        path: the file; its format is detected from the content, not from the name.
        start: beginning of the segment, in seconds.
        duration: length of the segment, in seconds; None: up to the end. Near the end of the file
            less is returned.
        sample_rate: rate of the result, in Hz; None: the file's own.
        channel: what is taken of several channels.

    Raises:
        AudioError: the file is missing, not sound, or damaged; or the segment lies beyond its end.
    """
    with open_sound(path) as sound:
        rate = sample_rate or sound.info.sample_rate
        part = _around(sound, start, duration, rate)
        # The empty block stands for a segment beyond the end of the file.
        number = _channel_number(path, sound, channel)
        blocks = [np.empty(0, np.float32), *_wanted(sound, part, number)]
        wave = np.concatenate(blocks)
        wave = _resample(wave, sound.info.sample_rate, rate)[part.skip :][: part.keep]
        if not len(wave):
            raise _beyond(sound, start)
        return wave, rate


def _channel_number(path: Source, sound: SoundFile, channel: Channel) -> int | None:
    """Return the number of the channel to take; None for the mean."""
    if channel == "mean" or sound.info.channels == 1:
        return None
    if channel != "loudest":
        return int(channel == "right")
    if isinstance(path, str | Path):
        status = Path(path).stat()
        return _loudest_of_file(str(path), (status.st_size, status.st_mtime_ns))
    return _loudest(path)


@lru_cache(1 << 14)
def _loudest_of_file(path: str, state: tuple[int, int]) -> int:
    """Return the loudest channel of a file; it is kept as long as the file stays the same."""
    return _loudest(path)


def _loudest(path: Source) -> int:
    """Return the number of the channel with the most energy; damage ends the comparison."""
    with open_sound(path) as sound:
        energy = np.zeros(sound.info.channels)
        try:
            for block in sound.channel_blocks():
                energy[: block.shape[1]] += np.square(block, dtype=np.float64).sum(axis=0)
        except AudioError:
            # Whoever reads the damaged part reports it.
            pass
    return int(energy.argmax())


class _Part(NamedTuple):
    """The samples to decode for a segment, and those of the resampled ones that belong to it.

    Attributes:
        first: first sample to decode, at the file's rate.
        samples: number of samples to decode; None: up to the end.
        needed: number of them that belong to the segment; the filter reaches beyond it.
        skip: number of resampled samples before the segment.
        keep: largest number of resampled samples in the segment; None: all.
    """

    first: int
    samples: int | None
    needed: int | None
    skip: int
    keep: int | None


def _around(sound: SoundFile, start: float, duration: float | None, rate: int) -> _Part:
    """Return the samples to decode around a segment."""
    if not start >= 0 or not (duration is None or duration > 0):
        reason = f"has no segment from {start} s of {duration} s"
        fix = "ask for a start of at least 0 s and a duration above 0 s"
        raise AudioError(sound.path, reason, fix)
    own = sound.info.sample_rate
    begin = round(start * rate)
    keep = None
    if duration is not None:
        keep = max(1, round(duration * rate))

    # The filter of the resampler reaches beyond both ends of the segment.
    reach = 0
    if own != rate:
        reach = ceil(_REACH * max(1, rate / own))

    # Decoding begins where samples of both rates coincide, so that the resampler keeps its phase.
    step = rate // gcd(own, rate)
    origin = max(0, begin - reach) // step * step
    first = origin * own // rate
    samples = None
    needed = None
    if keep is not None:
        samples = ceil((begin + keep + reach) * own / rate) - first
        needed = int((begin + keep) * own / rate) - first
    if sound.info.samples is not None:
        first = min(first, sound.info.samples)
    return _Part(first, samples, needed, begin - origin, keep)


def _wanted(
    sound: SoundFile, part: _Part, channel: int | None
) -> Iterator[Float[np.ndarray, " sample"]]:
    """Decode the samples for a segment; damage behind the segment itself ends them silently."""
    count = 0
    try:
        for block in sound.blocks(part.first, part.samples, channel):
            count += len(block)
            yield block
    except AudioError:
        if part.needed is None or count < part.needed:
            raise


def _beyond(sound: SoundFile, start: float) -> AudioError:
    end = (sound.info.samples or sound.position) / sound.info.sample_rate
    reason = f"ends at {end:.3f} s, so nothing is left from {start:.3f} s on"
    return AudioError(sound.path, reason, "ask for an earlier start")


def _resample(
    wave: Float[np.ndarray, " sample"], own: int, rate: int
) -> Float[np.ndarray, " resampled"]:
    if own == rate:
        return wave
    return np.asarray(soxr.resample(wave, own, rate, quality=_QUALITY), np.float32)


def stream(
    path: Source,
    seconds: float,
    hop: float,
    sample_rate: int | None = None,
    *,
    start: float = 0.0,
    duration: float | None = None,
    channel: Channel = "mean",
    salvage: bool = False,
) -> Iterator[tuple[float, Float[np.ndarray, " sample"]]]:
    """Yield the windows of a segment with their start times, in one pass and bounded memory.

    Start times are in seconds from the start of the segment. The last window may be shorter; a
    window that would lie wholly within the previous one is not yielded.

    Args:
        path: the file.
        seconds: length of a window, in seconds.
        hop: time between the starts of successive windows, in seconds.
        sample_rate: rate of the result, in Hz; None: the file's own.
        start: beginning of the segment, in seconds.
        duration: length of the segment, in seconds; None: up to the end.
        channel: what is taken of several channels.
        salvage: whether the rest before damage, shorter than a window, is yielded as well.

    Raises:
        ConfigError: a window or hop is shorter than a sample.
        AudioError: as :func:`read`; windows before the damage have been yielded by then.
    """
    with open_sound(path) as sound:
        rate = sample_rate or sound.info.sample_rate
        size = round(seconds * rate)
        check(size >= 1, "seconds", seconds, f"at least one sample, 1/{rate} s")
        check(hop * rate >= 1, "hop", hop, f"at least one sample, 1/{rate} s")
        number = _channel_number(path, sound, channel)
        blocks = _resampled(sound, _around(sound, start, duration, rate), rate, number)
        damages: list[AudioError] = []
        whole = _before_damage(blocks, damages)
        some = False
        for begin, wave in _windows(whole, size, hop, rate, lambda: salvage or not damages):
            some = True
            yield begin / rate, wave
        if damages:
            raise damages[0]
        _require_sound(sound, start, some)


def _windows(
    blocks: Iterator[Float[np.ndarray, " sample"]],
    size: int,
    hop: float,
    rate: int,
    keep_rest: Callable[[], bool],
) -> Iterator[tuple[int, Float[np.ndarray, " sample"]]]:
    """Yield windows with their first sample, and the rest at the end if that is to be kept."""
    # The next window and its first sample, and the first sample of the buffer; both are counted
    # from the start of the segment.
    index = 0
    begin = 0
    offset = 0
    buffer = np.empty(0, np.float32)
    for block in blocks:
        buffer = np.concatenate((buffer, block))
        while (begin := round(index * hop * rate)) + size <= offset + len(buffer):
            yield begin, buffer[begin - offset : begin - offset + size]
            index += 1
        # Samples before the next window are no longer needed.
        drop = min(begin - offset, len(buffer))
        buffer = buffer[drop:]
        offset += drop
    # The rest is a shorter window, unless the last full one already reaches the end.
    end = offset + len(buffer)
    covered = 0
    if index:
        covered = round((index - 1) * hop * rate) + size
    if keep_rest() and begin < end and covered < end:
        yield begin, buffer[begin - offset :]


def _before_damage(
    blocks: Iterator[Float[np.ndarray, " sample"]], damages: list[AudioError]
) -> Iterator[Float[np.ndarray, " sample"]]:
    """Yield blocks up to damage, which is put into a list instead of being raised."""
    try:
        yield from blocks
    except AudioError as error:
        damages.append(error)


def _require_sound(sound: SoundFile, start: float, some: bool) -> None:
    """Raise AudioError if there is no sound, or none from a start on."""
    if not sound.position:
        raise AudioError(sound.path, "holds no samples", "record or copy it again")
    if start and not some:
        raise _beyond(sound, start)


def _resampled(
    sound: SoundFile, part: _Part, rate: int, channel: int | None
) -> Iterator[Float[np.ndarray, " sample"]]:
    """Yield the samples of a segment block by block."""
    skip = part.skip
    left = part.keep
    for block in _at_rate(sound, part, rate, channel):
        kept = block[skip:][:left]
        skip = max(0, skip - len(block))
        if left is not None:
            left -= len(kept)
        yield kept


def _at_rate(
    sound: SoundFile, part: _Part, rate: int, channel: int | None
) -> Iterator[Float[np.ndarray, " sample"]]:
    """Yield the decoded blocks at another rate; the resampler keeps its state between blocks."""
    own = sound.info.sample_rate
    blocks = _wanted(sound, part, channel)
    if own == rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(own, rate, 1, dtype="float32", quality=_QUALITY)
    for block in blocks:
        yield resampler.resample_chunk(block)
    # The samples that the filter still holds.
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
