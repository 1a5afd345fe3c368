"""An open sound file: its header, and its samples in bounded blocks; all faults are AudioErrors.

libsndfile decodes, through soundfile. The format is detected from the content, never from the name.
"""

import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from melpatch.audio.byte_range import ByteRange, HeldRange
from melpatch.audio.decoders import (
    DECODER_ERRORS,
    Bytes,
    Decoder,
    ForwardSound,
    failures_raised,
    open_decoder,
)
from melpatch.audio.flac import is_chained, sound_behind
from melpatch.audio.links import Stretch, find_links, find_links_of_file
from melpatch.audio.mpeg import Link
from melpatch.audio.open_file import OpenFile
from melpatch.audio.unreadable import (
    CONVERT,
    COPY_AGAIN,
    REWRITE,
    error_text,
    first_bad,
    raise_passing,
    require_file,
    what_is_bad,
    why_unreadable,
)
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
# libsndfile reports 2^63 - 1 samples if a stream states no length.
_NO_LENGTH = 1 << 62
# Sizes that sox, arecord and ffmpeg write when they cannot seek back to the header.
_PIPED = range(0x7FFFF000, 1 << 32)
# Formats that are not decoded, so that nothing can fail in the middle.
_UNFAILING = frozenset({"WAV", "WAVEX", "AIFF", "W64", "RF64", "AU"})
# Bytes that a header may have, without samples behind it.
_HEADER = 1 << 10
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


class SoundFile:
    """A sound file that :func:`open_sound` has opened.

    Of a file that is several files one after the other, one link at a time is open.

    Attributes:
        path: the file as the caller named it.
        info: the properties in the header.
        position: the sample, per channel, that is decoded next.
        end_of_sound: end of the samples that were given out last; where damage is, if there is.
    """

    def __init__(self, path: Source, file: Bytes, links: Sequence[Link]) -> None:
        self.path = path
        self.position = 0
        self.end_of_sound = 0
        self._file: Bytes = file
        # What is decoded: the file, or the part of it that is the open link.
        self._decoded = file
        self._links = links
        # Why a later link cannot be opened.
        self._lost = ""
        self._sound: Decoder
        self._open_link(0)
        rate = self._sound.samplerate
        # The first sample of each link, and the end of the last; up to a link of unknown length.
        self._starts = [0]
        self._measure_links(rate)
        sound = self._sound
        samples = self._starts[-1] if len(self._starts) > len(self._links) else None
        self.info = AudioInfo(rate, sound.channels, samples, sound.format, sound.subtype)
        if samples == 0:
            raise AudioError(path, *self._why_empty())
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            allowed = f"{LOWEST_RATE} to {HIGHEST_RATE} Hz"
            reason = f"states a sampling rate of {rate} Hz; allowed: {allowed}"
            raise AudioError(path, reason, COPY_AGAIN)
        # libsndfile shortens truncated chunks silently, except in its log, which has both sizes.
        self._stated = samples
        for stated, actual in _CUT.findall(sound.extra_info):
            if samples and int(actual) > 0 and int(stated) not in _PIPED:
                self._stated = samples * int(stated) // int(actual)

    def check_stated_length(self) -> None:
        """Raise AudioError if the header states more samples than the file can hold.

        So does a later one of several files that cannot be opened.
        """
        if self._lost:
            seconds = (self.info.samples or 0) / self.info.sample_rate
            reason = f"breaks off after {seconds:.2f} s: {self._lost}"
            raise AudioError(self.path, reason, COPY_AGAIN)
        if self._stated is not None and self.info.samples is not None:
            self._check_length(self._stated, self.info.samples)

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self._sound.close()

    def blocks(
        self, first: int = 0, count: int | None = None, channel: int | None = None
    ) -> Iterator[Float[np.ndarray, " sample"]]:
        """Decode ``count`` samples from ``first``, or up to the end, as mono float32.

        Channels are averaged unless one is named; of a file with fewer channels the last is taken.

        Raises:
            AudioError: as :meth:`channel_blocks`.
        """
        for block in self.channel_blocks(first, count):
            if block.shape[1] == 1:
                yield block[:, 0]
            elif channel is None:
                yield block.mean(axis=1)
            else:
                yield block[:, min(channel, block.shape[1] - 1)]

    def channel_blocks(
        self, first: int = 0, count: int | None = None
    ) -> Iterator[Float[np.ndarray, "sample channel"]]:
        """Decode ``count`` samples from ``first``, or up to the end, as float32.

        Raises:
            AudioError: decoding fails, ends more than :data:`SLACK` before the stated end, or gives
                NaN or Inf; the samples before that have been yielded by then.
        """
        self._go_to(first)
        # An estimate is no end: without an exact length, decoding goes on until nothing comes.
        stated = self.info.samples
        stop = stated
        if count is not None and (stop is None or first + count < stop):
            stop = first + count
        while stop is None or self.position < stop:
            samples = _BLOCK // self.info.channels
            if stop is not None:
                samples = min(samples, stop - self.position)
            start = self.position
            block, error = self._decode(samples)
            # What is before the first NaN or Inf is sound, and is given.
            bad = first_bad(block)
            if bad is not None:
                error = self._bad_sample(block[bad], start + bad)
                block = block[:bad]
            self.end_of_sound = start + len(block)
            if len(block):
                yield block
            if error is not None:
                raise error
            if not len(block):
                if stated is not None and stop is not None:
                    self._check_length(stop, self.position)
                self._check_nothing_behind()
                return
        if count is None or stop == stated:
            self._check_wanted(first, count)
            self._check_nothing_behind()

    def _check_wanted(self, first: int, count: int | None) -> None:
        """Raise AudioError if samples were asked for that the header states, but the file lacks."""
        if self._lost and (count is None or first + count > self.position):
            self.check_stated_length()
        if self._stated is None:
            return
        wanted = self._stated if count is None else min(self._stated, first + count)
        if wanted > self.position:
            self.check_stated_length()

    def _check_nothing_behind(self) -> None:
        """Raise AudioError if there is sound behind the stated end, which no decoder reads."""
        stated = self._sound.frames
        if self.info.format != "FLAC" or stated >= _NO_LENGTH:
            return
        behind = sound_behind(self._file, self._file.size, stated)
        if behind is not None:
            seconds = stated / self.info.sample_rate
            raise AudioError(self.path, f"{behind}: only {seconds:.2f} s would be read", REWRITE)

    def _go_to(self, first: int) -> None:
        if first == self.position:
            return
        sound = self._sound
        can_seek = isinstance(sound, ForwardSound) and soundfile.SoundFile.seekable(sound)
        if self.info.samples is not None and can_seek:
            number = min(bisect_right(self._starts, first), len(self._links)) - 1
            self._reopen(number)
            start = self._starts[number]
            try:
                with failures_raised(self.path, self._decoded):
                    self.position = start + self._sound.seek(first - start)
            except DECODER_ERRORS as error:
                seconds = first / self.info.sample_rate
                reason = f"cannot be read from {seconds:.2f} s on: {error_text(error)}"
                raise AudioError(self.path, reason, COPY_AGAIN) from error
            if self.position > first:
                seconds = first / self.info.sample_rate
                reason = f"cannot be read from {seconds:.2f} s on: the decoder goes on behind it"
                raise AudioError(self.path, reason, COPY_AGAIN)
        # Without seeking, everything before `first` is decoded and dropped.
        for _ in self.blocks(self.position, first - self.position):
            pass

    def _decode(
        self, samples: int
    ) -> tuple[Float[np.ndarray, "sample channel"], AudioError | None]:
        """Return the next samples, and the error that ends them."""
        while True:
            channels = self._sound.channels
            out = np.empty((samples, channels), np.float32)
            if self._sound.format not in _UNFAILING:
                # What libsndfile has written before an error is told by what is NaN no more.
                out.fill(np.nan)
            try:
                with failures_raised(self.path, self._decoded):
                    block: np.ndarray = self._sound.read(out=out)
            except DECODER_ERRORS as error:
                bad = first_bad(out)
                block = out[: bad or 0]
                self.position += len(block)
                return block, self._broken(error_text(error))
            self.position += len(block)
            if len(block) or self._number + 1 == len(self._links):
                return block, None
            if self._number + 1 < len(self._starts):
                end = self._starts[self._number + 1]
                self._check_length(end, self.position)
                self.position = end
            try:
                self._open_link(self._number + 1)
            except DECODER_ERRORS as error:
                return block, self._broken(error_text(error))

    def _broken(self, why: str) -> AudioError:
        seconds = self.position / self.info.sample_rate
        fix = COPY_AGAIN
        if self.info.format == "FLAC" and is_chained(self._file, self._file.size):
            why = "another FLAC file follows"
            fix = REWRITE
        return AudioError(self.path, f"breaks off after {seconds:.2f} s: {why}", fix)

    def _bad_sample(self, values: Float[np.ndarray, " channel"], sample: int) -> AudioError:
        """Return the error for a sample that is no sound."""
        reason = f"holds {what_is_bad(values)} at {sample / self.info.sample_rate:.2f} s"
        return AudioError(self.path, reason, COPY_AGAIN)

    def _check_length(self, stated: int, actual: int) -> None:
        rate = self.info.sample_rate
        if stated - actual > SLACK * rate:
            seconds = f"{stated / rate:.2f} s, but only {actual / rate:.2f} s are there"
            raise AudioError(self.path, f"is truncated: it states {seconds}", COPY_AGAIN)

    def _open_link(self, number: int) -> None:
        """Open a link of the file instead of the one that is open.

        Raises:
            LibsndfileError, FFmpegError: it cannot be read.
        """
        link = self._links[number]
        if link.undecodable:
            raise AudioError(self.path, link.undecodable, CONVERT)
        file = self._file
        if link.head or link.size != file.size:
            with failures_raised(self.path, file):
                file = Bytes(Stretch(file, link))
        self._decoded = file
        with failures_raised(self.path, file):
            sound = open_decoder(file)
        if number:
            self._sound.close()
        self._sound = sound
        self._number = number

    def _measure_links(self, rate: int) -> None:
        """Find the first sample of each link, up to one of unknown length."""
        for number, link in enumerate(self._links):
            try:
                self._reopen(number)
            except DECODER_ERRORS as error:
                # What is before it is sound all the same.
                self._lost = error_text(error)
                self._links = self._links[:number]
                break
            if self._sound.samplerate != rate:
                rates = f"{rate} and {self._sound.samplerate} Hz"
                reason = f"is several files one after the other, of {rates}"
                raise AudioError(self.path, reason, "split it into these files")
            if self._sound.frames >= _NO_LENGTH or not link.exact:
                break
            self._starts.append(self._starts[-1] + self._sound.frames)
        self._reopen(0)

    def _reopen(self, number: int) -> None:
        """Open a link of the file if it is not the one that is open."""
        if number != self._number:
            self._open_link(number)

    def _why_empty(self) -> tuple[str, str]:
        """Return why there is no sample, and the remedy."""
        behind = self._file.size - _HEADER
        if behind < _HEADER:
            return "holds no samples", COPY_AGAIN
        reason = f"states that it holds no samples, but {self._file.size:,} bytes are there"
        return f"{reason}: its header was never completed", CONVERT


@contextmanager
def open_sound(path: Source) -> Iterator[SoundFile]:
    """Open a sound file, or a byte range of a file, as a context manager.

    Raises:
        AudioError: the file does not exist, is damaged or not audio, or states an impossible value.
    """
    if not isinstance(path, OpenFile | HeldRange):
        require_file(path)
    try:
        file = Bytes(_raw(path))
        links = _links(path, file)
    except OSError as error:
        raise_passing(path, error)
        reason = f"cannot be opened ({error.strerror})"
        raise AudioError(path, reason, "check who may read it") from error
    with file:
        try:
            sound = SoundFile(path, file, links)
        except DECODER_ERRORS as error:
            raise AudioError(path, *why_unreadable(path, file, error)) from error
        with closing(sound):
            yield sound


def _raw(source: Source) -> io.RawIOBase | io.BytesIO:
    if isinstance(source, ByteRange | OpenFile):
        return source.open()
    return io.FileIO(source)


def _links(source: Source, file: Bytes) -> Sequence[Link]:
    if isinstance(source, ByteRange | OpenFile):
        links = find_links(file, file.size)
        file.seek(0)
        return links
    return find_links_of_file(Path(source))
