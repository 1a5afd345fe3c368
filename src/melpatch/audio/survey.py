"""A whole sound file, decoded once: how much sound is there, and what is odd about it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.audio.sound_file import SoundFile, Source, open_sound
from melpatch.errors import AudioError

SILENT_PEAK = 1e-4
"""Largest distance from the mean of what counts as silence: 3 steps of 16 bits, -80 dB."""
# A sample counts as clipped from here on.
_FULL_SCALE = 0.999
# Points of the transforms that tell how energy is spread over frequencies, and their number in a
# file at most.
_POINTS = 1024
_TRANSFORMS = 64
# Spectra in a signature, and their bands: the lower half, which lossy codecs keep.
_TIMES = 16
_BANDS = 32
# Spectra with a smaller share of the largest energy have no bits.
_SILENT_SHARE = 1e-6
NO_BIT = 2
"""Stands in a signature for the bits of silence."""
# Seconds by which decoding is tried again behind damage, and the number of stretches at most.
_RETRIES = (0.5, 2.0, 8.0, 32.0, 128.0)
_MOST_STRETCHES = 64


class Survey(NamedTuple):
    """What a file holds.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        seconds: length of the sound that can be decoded, in seconds.
        peak: largest distance of a sample of the mix from its mean.
        level: root of the mean square of the samples, over all channels.
        offset: mean of the samples, which should be 0.
        clipped: share of samples at full scale, over all channels.
        mixed: energy of the mean of the channels, as a share of their mean energy.
        spectrum: share of the energy in 64 bands of equal width from 0 Hz to half the rate.
        signature: the bits of a fingerprint that copies of any level share, a byte for each; NO_BIT
            where there is silence.
        stretches: start and end in seconds of what can be decoded.
        reaches_end: whether the last of them ends where the file does.
        error: why the file cannot be decoded as a whole; None if it can.
    """

    sample_rate: int
    channels: int
    seconds: float
    peak: float
    level: float
    offset: float
    clipped: float
    mixed: float
    spectrum: np.ndarray
    signature: bytes
    stretches: tuple[tuple[float, float], ...]
    reaches_end: bool
    error: AudioError | None

    @property
    def silent(self) -> bool:
        """Whether the mix of the channels is silence."""
        return self.peak <= SILENT_PEAK

    def share_above(self, hz: float) -> float:
        """Return the share of the energy above a frequency."""
        first = int(np.ceil(hz / (self.sample_rate / 2) * len(self.spectrum)))
        return float(self.spectrum[first:].sum())


def survey(path: Source) -> Survey:
    """Decode a whole file, and return what it holds; damage is part of the answer.

    Raises:
        AudioError: nothing of the file can be decoded.
    """
    with open_sound(path) as sound:
        info = sound.info
        sums = _Sums(info.channels, info.sample_rate)
        end, error = _decode(sound, 0, sums)
        stretches = [(0, end)]
        damaged = error is not None
        too_short = _stated_length(sound)
    while damaged and len(stretches) < _MOST_STRETCHES:
        behind = _decode_behind(path, end, sums)
        if behind is None:
            break
        start, end, damage = behind
        stretches.append((start, end))
        damaged = damage is not None
    rate = info.sample_rate
    good = tuple((first / rate, last / rate) for first, last in stretches if last > first)
    if not good:
        raise error or too_short or AudioError(path, "holds no samples", "record or copy it again")
    return sums.survey(good, error or too_short, not damaged and too_short is None)


def glimpse(path: Source, start: float, seconds: float) -> Survey:
    """Decode a segment of a file, and return what it holds.

    Raises:
        AudioError: as :func:`melpatch.audio.files.read`.
    """
    with open_sound(path) as sound:
        rate = sound.info.sample_rate
        sums = _Sums(sound.info.channels, rate)
        count = max(1, round(min(seconds, 1e6) * rate))
        for block in sound.channel_blocks(round(start * rate), count):
            sums.add(block)
        end = sound.position / rate
        if sums.samples == 0:
            raise AudioError(
                path, f"holds nothing from {start:.3f} s on", "ask for an earlier start"
            )
        return sums.survey(((start, end),), None, True)


def _decode(sound: SoundFile, start: int, sums: "_Sums") -> tuple[int, AudioError | None]:
    """Decode from a sample on; return where that ends, and the damage that ends it."""
    end = start
    try:
        for block in sound.channel_blocks(start):
            sums.add(block)
            end = sound.end_of_sound
    except AudioError as error:
        return end, error
    return end, None


def _decode_behind(
    path: Source, damage: int, sums: "_Sums"
) -> tuple[int, int, AudioError | None] | None:
    """Decode behind damage; return start and end of the sound there, and what ends it.

    The file is opened again, because decoders do not recover from damage. None without more sound.
    """
    for seconds in _RETRIES:
        with open_sound(path) as sound:
            start = damage + round(seconds * sound.info.sample_rate)
            if sound.info.samples is None or start >= sound.info.samples:
                break
            end, error = _decode(sound, start, sums)
            if end > start:
                return start, end, error
    return None


def _stated_length(sound: SoundFile) -> AudioError | None:
    try:
        sound.check_stated_length()
    except AudioError as error:
        return error
    return None


class _Sums:
    """Sums over the samples of a file.

    Attributes:
        samples: number of samples so far.
    """

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._channels = channels
        self._rate = sample_rate
        self.samples = 0
        self._clipped = 0.0
        self._sum = 0.0
        self._low = np.inf
        self._high = -np.inf
        self._energy_of_mix = 0.0
        self._energy_of_channels = 0.0
        self._spectra: list[np.ndarray] = []
        self._stride = 1
        self._seen = 0
        self._rest = np.empty(0, np.float32)

    def add(self, block: Float[np.ndarray, "sample channel"]) -> None:
        """Count the samples of a block."""
        mix = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        self.samples += len(mix)
        self._clipped += float((np.abs(block) >= _FULL_SCALE).mean(axis=1).sum())
        self._sum += float(mix.sum(dtype=np.float64))
        self._low = min(self._low, float(mix.min()))
        self._high = max(self._high, float(mix.max()))
        self._energy_of_mix += float(np.square(mix, dtype=np.float64).sum())
        channels = np.square(block, dtype=np.float64)
        self._energy_of_channels += float(channels.sum()) / block.shape[1]
        for piece in self._pieces(mix):
            self._add_spectrum(piece)

    def _pieces(self, mix: Float[np.ndarray, " sample"]) -> Iterator[np.ndarray]:
        joined = np.concatenate((self._rest, mix))
        whole = len(joined) // _POINTS * _POINTS
        self._rest = joined[whole:]
        yield from joined[:whole].reshape(-1, _POINTS)

    def _add_spectrum(self, piece: Float[np.ndarray, " sample"]) -> None:
        """Keep every n-th spectrum, so that those of a file of any length are few and spread."""
        if self._seen % self._stride == 0:
            self._spectra.append(_spectrum(piece))
            # Every other one is dropped and from now on left out, so they stay evenly spread.
            if len(self._spectra) == 2 * _TRANSFORMS:
                self._spectra = self._spectra[::2]
                self._stride *= 2
        self._seen += 1

    def survey(
        self,
        stretches: tuple[tuple[float, float], ...],
        error: AudioError | None,
        reaches_end: bool,
    ) -> Survey:
        """Return what was counted."""
        if not self._spectra:
            self._spectra.append(_spectrum(self._rest))
        spectra = np.stack(self._spectra)
        total = spectra.sum(axis=0)
        energy = max(float(total.sum()), 1e-30)
        # The mean sample: a direct current that no sound has.
        offset = self._sum / self.samples
        # Near 0, the channels cancel each other when they are mixed; 1 for silence.
        mixed = 1.0
        if self._energy_of_channels > 0:
            mixed = self._energy_of_mix / self._energy_of_channels
        return Survey(
            self._rate,
            self._channels,
            self.samples / self._rate,
            max(self._high - offset, offset - self._low),
            (self._energy_of_channels / self.samples) ** 0.5,
            offset,
            self._clipped / self.samples,
            mixed,
            (total / energy).astype(np.float32),
            _signature(spectra),
            stretches,
            reaches_end,
            error,
        )


def _spectrum(piece: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " band"]:
    """Return the energy of a piece in 64 bands of equal width, without its mean."""
    padded = np.zeros(_POINTS)
    padded[: len(piece)] = (piece - piece.mean()) * np.hanning(len(piece) + 2)[1:-1]
    power = np.abs(np.fft.rfft(padded)[1:]) ** 2
    return np.asarray(power.reshape(64, -1).sum(axis=1))


def _signature(spectra: Float[np.ndarray, "time band"]) -> bytes:
    """Return bits that copies of any level share: whether a band gains on the next with time.

    After Haitsma and Kalker 2002, "A highly robust audio fingerprinting system".
    """
    times = np.linspace(0, len(spectra) - 1, min(_TIMES, len(spectra))).round().astype(int)
    bands = spectra[times, :_BANDS]
    slopes = np.diff(np.log(bands + 1e-12), axis=1)
    # The first spectrum has none before it, so its own slopes count.
    gains = np.diff(slopes, axis=0, prepend=0.0)
    bits = (gains > 0).astype(np.uint8)
    # Silence is the same in all files.
    bits[bands.sum(axis=1) < _SILENT_SHARE * bands.sum(axis=1).max()] = NO_BIT
    return bytes(bits)
