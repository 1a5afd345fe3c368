"""Sound files in: what a file states, a segment of it, or all of it in windows; mono, float32, at the rate asked for.

Everything that libsndfile decodes is read: WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, W64, CAF and more. Values are not
clipped, for lossy codecs overshoot 1. A :class:`~melpatch.audio.byte_range.ByteRange` may stand for a file.
"""

from collections.abc import Iterator
from math import ceil, gcd
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float

from melpatch.audio.sound_file import AudioInfo, SoundFile, Source, open_sound
from melpatch.config import check
from melpatch.errors import AudioError

__all__ = ["AudioInfo", "Source", "count_samples", "probe", "read", "stream"]

_QUALITY = "HQ"
_REACH = 128
"""How far soxr's HQ filter is felt, in samples of the slower rate; beyond, a segment differs by rounding only."""


def probe(path: Source) -> AudioInfo:
    """Return what a sound file states about itself, decoding nothing.

    The length of an MP3 file without a Xing header is libsndfile's estimate from its first frame.

    Raises:
        AudioError: the file is missing, not sound, empty, cut short, or states an impossible rate.
    """
    with open_sound(path) as sound:
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
) -> tuple[Float[np.ndarray, " sample"], int]:
    """Return a segment of a sound file, and its sampling rate. Only the segment and a little around it is decoded.

    A segment is the same slice of the whole resampled file, but for rounding. With Opus they differ by some 1e-3, for
    its decoder adds noise that depends on where it began. MP3's decoder, begun in mid-file, may write harmless notes
    to stderr.

    Args:
        path: the file; told by its content, not by its name.
        start: first moment wanted, in seconds.
        duration: length wanted, in seconds; None for all that follows. Near the end of the file less is returned.
        sample_rate: rate wanted, in Hz; None for the file's own.

    Raises:
        AudioError: the file is missing, not sound, or damaged; or the segment lies beyond its end.
    """
    with open_sound(path) as sound:
        rate = sample_rate or sound.info.sample_rate
        part = _around(sound, start, duration, rate)
        blocks = [*sound.blocks(part.first, part.samples)]
        wave = np.concatenate(blocks) if blocks else np.empty(0, np.float32)
        wave = _resample(wave, sound.info.sample_rate, rate)[part.skip :][: part.keep]
        if not len(wave):
            raise _beyond(sound, start)
        return wave, rate


class _Part(NamedTuple):
    """What to decode for a segment: from which sample on and how many, if not all, of the file's own; and which samples
    these give belong to it once they are resampled: all after ``skip``, ``keep`` at most."""

    first: int
    samples: int | None
    skip: int
    keep: int | None


def _around(sound: SoundFile, start: float, duration: float | None, rate: int) -> _Part:
    """Return what lies around a segment, from a moment at which samples of both rates fall together."""
    if not start >= 0 or not (duration is None or duration > 0):
        reason = f"has no segment from {start} s of {duration} s"
        raise AudioError(
            sound.path, reason, "ask for a start of at least 0 s and a duration above 0 s"
        )
    own = sound.info.sample_rate
    begin = round(start * rate)
    keep = None if duration is None else max(1, round(duration * rate))
    reach = 0 if own == rate else ceil(_REACH * max(1, rate / own))
    step = rate // gcd(own, rate)
    origin = max(0, begin - reach) // step * step
    first = origin * own // rate
    samples = None if keep is None else ceil((begin + keep + reach) * own / rate) - first
    if sound.info.samples is not None:
        first = min(first, sound.info.samples)
    return _Part(first, samples, begin - origin, keep)


def _beyond(sound: SoundFile, start: float) -> AudioError:
    end = (sound.info.samples or sound.position) / sound.info.sample_rate
    reason = f"ends at {end:.3f} s, so nothing is left from {start:.3f} s on"
    return AudioError(sound.path, reason, "ask for an earlier start")


def _resample(
    wave: Float[np.ndarray, " sample"], own: int, rate: int
) -> Float[np.ndarray, " resampled"]:
    return (
        wave
        if own == rate
        else np.asarray(soxr.resample(wave, own, rate, quality=_QUALITY), np.float32)
    )


def stream(
    path: Source,
    seconds: float,
    hop: float,
    sample_rate: int | None = None,
    *,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[tuple[float, Float[np.ndarray, " sample"]]]:
    """Yield the moment each window begins, in seconds from the start of the segment, and the window, decoding once
    forward in bounded memory.

    The last window may be shorter; one that would lie wholly in the window before it is not made.

    Args:
        path: the file.
        seconds: length of a window, in seconds.
        hop: from the beginning of a window to that of the next, in seconds.
        sample_rate: rate wanted, in Hz; None for the file's own.
        start: first moment wanted, in seconds, as for :func:`read`.
        duration: length wanted, in seconds; None for all that follows.

    Raises:
        ConfigError: a window or hop is shorter than a sample.
        AudioError: as :func:`read`; what was decoded up to the damage has been yielded by then.
    """
    with open_sound(path) as sound:
        rate = sample_rate or sound.info.sample_rate
        size = round(seconds * rate)
        check(size >= 1, "seconds", seconds, f"at least one sample, 1/{rate} s")
        check(hop * rate >= 1, "hop", hop, f"at least one sample, 1/{rate} s")
        held, offset, index, begin = (
            np.empty(0, np.float32),
            0,
            0,
            0,
        )  # `held` begins at sample `offset` of the segment
        for block in _resampled(sound, _around(sound, start, duration, rate), rate):
            held = np.concatenate((held, block))
            while (begin := round(index * hop * rate)) + size <= offset + len(held):
                yield begin / rate, held[begin - offset : begin - offset + size]
                index += 1
            drop = min(begin - offset, len(held))
            held, offset = held[drop:], offset + drop
        if not sound.position:
            raise AudioError(path, "holds no samples", "record or copy it again")
        if start and not index and not len(held):
            raise _beyond(sound, start)
        covered = round((index - 1) * hop * rate) + size if index else 0
        if begin < offset + len(held) and covered < offset + len(held):
            yield begin / rate, held[begin - offset :]


def _resampled(sound: SoundFile, part: _Part, rate: int) -> Iterator[Float[np.ndarray, " sample"]]:
    """Yield the samples of a segment as they are decoded."""
    skip, left = part.skip, part.keep
    for block in _at_rate(sound, part, rate):
        kept = block[skip:][:left]
        skip = max(0, skip - len(block))
        left = None if left is None else left - len(kept)
        yield kept


def _at_rate(sound: SoundFile, part: _Part, rate: int) -> Iterator[Float[np.ndarray, " sample"]]:
    own, blocks = sound.info.sample_rate, sound.blocks(part.first, part.samples)
    if own == rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(own, rate, 1, dtype="float32", quality=_QUALITY)
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
