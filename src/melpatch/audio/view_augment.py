"""Augmentations that make two views of a clip, of its wave and of its log-mel spectrogram.

>>> front_end = LogMel()
>>> augment = ViewAugment(ViewAugment.Config(polarity=0.5, mix=0.4), front_end)
>>> wave = torch.zeros(4, 16000)
>>> lengths = torch.full((4,), 16000)
>>> draw = {"keys": torch.arange(4), "seed": 0, "step": 0, "view": 1}
>>> spectrogram, frames = front_end(augment.wave(wave, lengths, **draw), lengths)
>>> partners = torch.tensor([1, 0, 3, 2])
>>> augment.spectrogram(spectrogram, frames, partners, **draw).shape
torch.Size([4, 128, 98])
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.audio.augment import beta_gain, gain, noise, pixel_noise, roll
from melpatch.audio.energy_mixing import mix_energies
from melpatch.audio.fades import fade, linear_fader, noise_burst, still_sounds
from melpatch.audio.filters import LOWEST_HZ, band_stop, high_pass
from melpatch.audio.logmel import LogMel, full_precision
from melpatch.audio.phase_vocoder import play
from melpatch.audio.random_resize_crop import random_resize_crop
from melpatch.config import check
from melpatch.rng import stream, uniform

Wave = Float[Tensor, "clip sample"]
Spectrogram = Float[Tensor, "clip mel frame"]
PerClip = Int[Tensor, " clip"]
Change = Callable[[Wave, PerClip, PerClip], Wave]

_SHARES = (
    "polarity",
    "stretch",
    "noise",
    "gain",
    "high_pass",
    "band_stop",
    "pitch",
    "fade",
    "burst",
)


class ViewAugment:
    """The augmentations of the views of a run.

    Each clip and view gets its own, from (seed, view, key, step), whatever its batch: the same
    alone and with padding, in float32 or more under autocast. Padding is left as it is.

    On a CPU stretch and pitch together take 12 times as long as the front end, noise, filters,
    fades and random-resize-crop one to two and a half times each, the others less (lab notes).

    A change that would leave a clip silent, such as a high-pass filter on a low tone, is not made
    to it. Silence stays silence, but for bursts of noise, faders and noise on pixels. A clip that
    is its own partner is not mixed.

    Args:
        config: the settings.
        front_end: gives the sampling rate and the normalisation of the spectrograms.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the augmentations, in the order in which they are made; all are off."""

        roll: float = 0.0
        """Largest cyclic shift in time, as a share of the clip, from 0 to 1; AudioMosaic: any, 0.5."""
        gain_beta: int = 0
        """Samples are multiplied by 1/2 + Beta(gain_beta, gain_beta); AudioMosaic: 10; 0: they are not."""
        polarity: float = 0.0
        """Share of clips whose sign is changed; AudioMosaic: 0.5."""
        stretch: float = 0.0
        """Share of clips that are played faster or slower at the same pitch; AudioMosaic: 0.7."""
        stretch_rates: tuple[float, float] = (0.7, 1.3)
        """Least and largest rate; AudioMosaic's. A faster clip ends in silence, a slower one is cut."""
        pitch: float = 0.0
        """Share of clips whose pitch is shifted; AudioMosaic: 0.6, after all filters."""
        pitch_semitones: float = 4.0
        """Largest shift up or down, in semitones; AudioMosaic's."""
        noise: float = 0.0
        """Share of clips that get white noise; AudioMosaic: 0.5."""
        noise_snr_db: tuple[float, float] = (5.0, 40.0)
        """Least and largest signal-to-noise ratio, in dB; AudioMosaic's."""
        gain: float = 0.0
        """Share of clips that are made louder or softer; AudioMosaic: 0.3."""
        gain_db: float = 12.0
        """Largest change of level, in dB; AudioMosaic's."""
        high_pass: float = 0.0
        """Share of clips that lose what is below a cutoff; AudioMosaic: 0.3."""
        high_pass_hz: tuple[float, float] = (20.0, 2400.0)
        """Least and largest cutoff, in Hz, uniform in mel; AudioMosaic's."""
        band_stop: float = 0.0
        """Share of clips that lose a band of frequencies; AudioMosaic: 0.5."""
        band_stop_hz: tuple[float, float] = (200.0, 4000.0)
        """Least and largest centre of the band, in Hz, uniform in mel; AudioMosaic's."""
        band_stop_width: tuple[float, float] = (0.5, 1.99)
        """Least and largest width of the band, as a share of its centre; AudioMosaic's."""
        fade: float = 0.0
        """Share of clips that are faded in and out; CLAR: 0.5."""
        fade_length: float = 0.5
        """Longest fade, as a share of the clip, up to 0.5; CLAR's."""
        burst: float = 0.0
        """Share of clips of which a stretch is replaced with noise (CLAR's time masking); CLAR:
        0.25, twice by half."""
        burst_length: float = 0.125
        """Length of the stretch, as a share of the clip, below 1; CLAR's."""
        burst_deviation: float = 0.01
        """Standard deviation of that noise, where full scale is 1; CLAR's."""
        mix: float = 0.0
        """Largest share of the partner's energy that is mixed in; BYOL-A: 0.4 (v1) and 0.2 (v2)."""
        crop_mels: tuple[float, float] | None = None
        """Least and largest height of random-resize-crop, as a share of the mels, where over 1 is
        1; BYOL-A: 0.6 and 1.5; none: all mels."""
        crop_frames: tuple[float, float] | None = None
        """Least and largest width of random-resize-crop, as a share of the clip; BYOL-A: 0.6 and
        1.5; none: frames stay where they are (ATST-Frame)."""
        crop_canvas: float = 1.5
        """Length of what is cropped, in clips, with the mean level around the clip; BYOL-A's."""
        fader: float = 0.0
        """Largest height, in standard deviations of the log-mel values, of the ends of a straight
        line that is added over time; BYOL-A v2: 1."""
        pixel_noise: float = 0.0
        """Largest noise added to normalised values, as for AST and SSAST; 0: none."""

        def __post_init__(self) -> None:
            for name in (*_SHARES, "roll"):
                value = getattr(self, name)
                check(0.0 <= value <= 1.0, name, value, "0 to 1")
            check(self.gain_beta >= 0, "gain_beta", self.gain_beta, "a whole number of 0 or more")
            for name in ("fader", "pixel_noise", "burst_deviation"):
                value = getattr(self, name)
                check(value >= 0.0, name, value, "0 or more")
            check(0.0 <= self.mix < 1.0, "mix", self.mix, "0 to below 1")
            check(0.0 <= self.gain_db <= 40.0, "gain_db", self.gain_db, "0 to 40 dB")
            check(0.0 <= self.fade_length <= 0.5, "fade_length", self.fade_length, "0 to 0.5")
            check(0.0 <= self.burst_length < 1.0, "burst_length", self.burst_length, "0 to below 1")
            semitones = self.pitch_semitones
            check(0.0 <= semitones <= 12.0, "pitch_semitones", semitones, "0 to 12")
            check(1.0 <= self.crop_canvas <= 4.0, "crop_canvas", self.crop_canvas, "1 to 4")
            _check_range("stretch_rates", self.stretch_rates, 0.25, 4.0)
            _check_range("noise_snr_db", self.noise_snr_db, -100.0, 200.0)
            _check_range("high_pass_hz", self.high_pass_hz, LOWEST_HZ, 1e6)
            _check_range("band_stop_hz", self.band_stop_hz, LOWEST_HZ, 1e6)
            _check_range("band_stop_width", self.band_stop_width, 0.01, 1.99)
            _check_range("crop_mels", self.crop_mels, 0.05, 4.0)
            # Half of the canvas or more is the clip, so that some of it is in every crop.
            least = 0.5 * (self.crop_canvas - 1.0) + 0.05
            _check_range("crop_frames", self.crop_frames, least, 4.0)

    def __init__(self, config: Config, front_end: LogMel) -> None:
        self.config = config
        self.front_end = front_end

    def wave(
        self, wave: Wave, lengths: PerClip, keys: PerClip, *, seed: int, step: int, view: int
    ) -> Wave:
        """Return the waves of a view of a batch.

        Args:
            wave: samples of each clip.
            lengths: samples of each clip without padding.
            keys: keys of the clips.
            seed: seed of the run.
            step: step of the run.
            view: number of the view; each has its own random numbers.
        """

        def state(name: str) -> PerClip:
            return stream(seed, f"view {view}/{name}", keys, step)

        with full_precision(wave.device.type):
            if self.config.roll:
                wave = roll(wave, lengths, state("roll"), self.config.roll)
            if self.config.gain_beta:
                wave = beta_gain(wave, lengths, state("gain_beta"), self.config.gain_beta)
            wave = self._played(wave, lengths, state)
            for name, change in self._changes():
                share = getattr(self.config, name)
                if share:
                    chosen = uniform(state(f"{name}, whether"), 1)[:, 0] < share
                    wave = _where(chosen, change, wave, lengths, state(name))
        return wave

    def spectrogram(
        self,
        spectrogram: Spectrogram,
        frames: PerClip,
        partners: PerClip,
        keys: PerClip,
        *,
        seed: int,
        step: int,
        view: int,
    ) -> Spectrogram:
        """Return the spectrograms of a view of a batch.

        Args:
            spectrogram: what the front end returned for this view, before an encoder's own
                normalisation.
            frames: valid frames of each clip.
            partners: row of the clip that each is mixed with; its own row for none.
            keys: keys of the clips.
            seed: seed of the run.
            step: step of the run.
            view: number of the view; each has its own random numbers.
        """
        config = self.config

        def state(name: str) -> PerClip:
            return stream(seed, f"view {view}/{name}", keys, step)

        with full_precision(spectrogram.device.type):
            if config.mix:
                most = config.mix
                spectrogram = mix_energies(
                    spectrogram, frames, partners, state("mix"), most, self.front_end
                )
            if config.crop_mels or config.crop_frames:
                sizes = (config.crop_mels, config.crop_frames)
                spectrogram = random_resize_crop(
                    spectrogram, frames, state("resize_crop"), *sizes, config.crop_canvas
                )
            if config.fader:
                most = config.fader / self.front_end.config.scale
                spectrogram = linear_fader(spectrogram, frames, state("fader"), most)
            if config.pixel_noise:
                most = config.pixel_noise
                spectrogram = pixel_noise(spectrogram, frames, state("pixel_noise"), most)
        return spectrogram

    def _played(self, wave: Wave, lengths: PerClip, state: Callable[[str], PerClip]) -> Wave:
        """Return the waves after time stretch and pitch shift, which are made at once."""
        config = self.config
        if not config.stretch and not config.pitch:
            return wave
        stretch = uniform(state("stretch"), 2)
        pitch = uniform(state("pitch"), 2)
        stretched = stretch[:, 0] < config.stretch
        shifted = pitch[:, 0] < config.pitch
        slow, fast = config.stretch_rates
        rate = torch.where(stretched, slow + stretch[:, 1] * (fast - slow), 1.0)
        semitones = torch.where(shifted, config.pitch_semitones * (2.0 * pitch[:, 1] - 1.0), 0.0)
        factor = 2.0 ** (semitones / 12.0)
        sample_rate = self.front_end.sample_rate

        def change(wave: Wave, lengths: PerClip, rows: PerClip) -> Wave:
            return play(wave, lengths, rate[rows], factor[rows], sample_rate)

        rows = torch.arange(len(wave), device=wave.device)
        return _where(stretched | shifted, change, wave, lengths, rows)

    def _changes(self) -> list[tuple[str, Change]]:
        """Return the changes that are made to a share of the clips each, in their order."""
        config = self.config
        rate = self.front_end.sample_rate
        return [
            ("polarity", _inverted),
            ("noise", lambda x, n, state: noise(x, n, state, config.noise_snr_db)),
            ("gain", lambda x, n, state: gain(x, n, state, config.gain_db)),
            ("high_pass", lambda x, n, state: high_pass(x, n, state, rate, config.high_pass_hz)),
            (
                "band_stop",
                lambda x, n, state: band_stop(
                    x, n, state, rate, config.band_stop_hz, config.band_stop_width
                ),
            ),
            ("fade", lambda x, n, state: fade(x, n, state, config.fade_length)),
            (
                "burst",
                lambda x, n, state: noise_burst(
                    x, n, state, config.burst_length, config.burst_deviation
                ),
            ),
        ]


def _inverted(wave: Wave, lengths: PerClip, state: PerClip) -> Wave:
    return wave.where(torch.arange(wave.shape[1], device=wave.device) >= lengths[:, None], -wave)


def _where(
    chosen: Bool[Tensor, " clip"], change: Change, wave: Wave, lengths: PerClip, state: PerClip
) -> Wave:
    """Return the waves with a change made to the chosen clips, but where it leaves silence."""
    if wave.device.type == "cpu":
        # There the clips that are not chosen cost time, and a clip fits into the cache.
        return _one_by_one(chosen, change, wave, lengths, state)
    return _batched(chosen, change, wave, lengths, state)


def _one_by_one(
    chosen: Bool[Tensor, " clip"], change: Change, wave: Wave, lengths: PerClip, state: PerClip
) -> Wave:
    out = wave.clone()
    for row in chosen.nonzero()[:, 0].tolist():
        rows = slice(row, row + 1)
        samples = int(lengths[row])
        own = wave[rows, :samples]
        alone = torch.ones(1, dtype=torch.bool)
        out[rows, :samples] = _batched(alone, change, own, lengths[rows], state[rows])
    return out


def _batched(
    chosen: Bool[Tensor, " clip"], change: Change, wave: Wave, lengths: PerClip, state: PerClip
) -> Wave:
    changed = change(wave, lengths, state)
    return torch.where(chosen[:, None] & still_sounds(changed, wave, lengths), changed, wave)


def _check_range(name: str, value: tuple[float, float] | None, least: float, most: float) -> None:
    """Raise a ConfigError unless a pair of numbers is ordered and within limits."""
    if value is not None:
        low, high = value
        allowed = f"two numbers of {least:g} to {most:g}, the smaller one first"
        check(least <= low <= high <= most, name, value, allowed)
