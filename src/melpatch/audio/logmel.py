"""Log-mel spectrograms, Kaldi's by default: any rate and length, batched on the device, each clip as if alone."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar, get_args, overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from melpatch.audio.mel import MelScale, mel_filters
from melpatch.config import check

LOG_FLOOR = 2.0**-23
"""Least energy of a mel bin (float32's machine epsilon, as in Kaldi): digital silence is ln(2^-23) = -15.94."""

Window = Literal["hann", "hann_periodic", "povey"]
Span = Literal["frame", "wave"]
Spectrum = Literal["power", "magnitude"]
Padding = Literal["masked", "legacy"]
_CHOICES = {
    "window": Window,
    "preemphasis_over": Span,
    "spectrum": Spectrum,
    "mel": MelScale,
    "padding": Padding,
}
_Value = TypeVar("_Value", float, Tensor)


class LogMel(nn.Module):
    """The front end: waveforms to normalised log-mel spectrograms, with no parameters and nothing in the state dict.

    By default, the features are those of Kaldi's ``compute-fbank-feats`` with ``--window-type=hanning --dither=0`` on
    samples in [-1, 1], which is what the published SSAST and AST are given (Gong et al. 2022, arXiv 2110.09784);
    :mod:`melpatch.audio.front_ends` has the settings of other systems.

    *Differs:* the published code also subtracts the mean of the whole clip. Here it is left out: every frame loses its
    own mean anyway.

    Attributes:
        config: the settings.
        sample_rate: sampling rate of the waves that it takes, in Hz.
        n_mels: height of the spectrograms that it returns.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the spectrogram; the defaults are those of the published SSAST and AST."""

        sample_rate: int = 16000
        """Sampling rate of the waves, in Hz."""
        window_ms: float = 25.0
        """Length of a frame, in milliseconds."""
        hop_ms: float = 10.0
        """Distance between the starts of neighbouring frames, in milliseconds."""
        n_mels: int = 128
        """Number of mel bins."""
        low_hz: float = 20.0
        """Lower edge of the lowest mel bin, in Hz."""
        high_hz: float | None = None
        """Upper edge of the highest mel bin, in Hz; None is half the sampling rate."""
        unit_norm: bool = False
        """Whether a clip is first scaled to an L2 norm of 1, but by 3.2e4 at most."""
        preemphasis: float = 0.97
        """How much of the previous sample is subtracted from each, from 0 to 1."""
        preemphasis_over: Span = "frame"
        """"frame": in each frame. "wave": in the clip, whose first sample, having no previous one, is then dropped."""
        centred: bool = False
        """Whether frame t is centred on sample t * hop, of a clip mirrored at both ends, rather than starting there."""
        remove_offset: bool = True
        """Whether each frame loses its own mean."""
        window: Window = "hann"
        """Weights of a frame: Hann's (symmetric, or periodic as SciPy, librosa and TensorFlow have it) or Povey's."""
        fft_length: int | None = None
        """Points of the Fourier transform, an even number; None is the next power of two, as in Kaldi."""
        spectrum: Spectrum = "power"
        """What the mel bins add up: squared magnitudes, or magnitudes."""
        mel: MelScale = "kaldi"
        """Filters: "kaldi" (HTK's mels, height 1; also TensorFlow's) or "slaney" (area 1; librosa's)."""
        floor: float = LOG_FLOOR
        """Least value of a mel bin before the logarithm."""
        floor_added: bool = False
        """Whether the floor is added to every mel bin, rather than put in the place of what is below it."""
        mean: float = -4.2677393
        """Mean of the log-mel values (natural log); AudioSet's by default, `melpatch stats` measures yours."""
        std: float = 4.5689974
        """Standard deviation of the log-mel values (natural log); AudioSet's by default."""
        scale: float = 2.0
        """Standard deviations that become 1: the output is (x - mean) / (scale * std)."""
        padding: Padding = "masked"
        """"masked": frames past a clip's end are 0 and not valid. "legacy": log-mel 0 and valid, as published."""
        target_frames: int | None = None
        """With "legacy": the frames that every clip is padded or cut to; None is the longest of the batch."""

        def __post_init__(self) -> None:
            for name in ("sample_rate", "window_ms", "hop_ms", "std", "scale"):
                check(
                    0.0 < getattr(self, name) < math.inf,
                    name,
                    getattr(self, name),
                    "a finite number above 0",
                )
            for name, choices in _CHOICES.items():
                allowed = " or ".join(map(repr, get_args(choices)))
                check(getattr(self, name) in get_args(choices), name, getattr(self, name), allowed)
            check(math.isfinite(self.mean), "mean", self.mean, "a finite number")
            check(
                self.win_length >= 3,
                "window_ms",
                self.window_ms,
                f"{3000 / self.sample_rate:g} (3 samples) or more",
            )
            check(
                self.hop_length >= 1,
                "hop_ms",
                self.hop_ms,
                f"{1000 / self.sample_rate:g} (1 sample) or more",
            )
            holds = self.fft_length is None or (
                self.fft_length >= self.win_length and self.fft_length % 2 == 0
            )
            check(
                holds,
                "fft_length",
                self.fft_length,
                f"even numbers from {self.win_length} (window_ms), or None",
            )
            bins, nyquist, top = self.n_fft // 2, self.sample_rate / 2, self.top_hz
            longer = "window_ms" if self.fft_length is None else "fft_length"
            check(
                1 <= self.n_mels <= bins,
                "n_mels",
                self.n_mels,
                f"1 to {bins}, or more with a longer {longer}",
            )
            check(
                top <= nyquist,
                "high_hz",
                self.high_hz,
                f"at most {nyquist:g} Hz, half the sampling rate",
            )
            check(
                0.0 <= self.low_hz < top,
                "low_hz",
                self.low_hz,
                f"0 to below {top:g} Hz, the upper edge",
            )
            check(0.0 <= self.preemphasis <= 1.0, "preemphasis", self.preemphasis, "0 to 1")
            # Below it, float32 has fewer digits and at last none: the logarithm of silence would be -infinity.
            check(
                2.0**-126 <= self.floor < math.inf,
                "floor",
                self.floor,
                "1.2e-38 (2^-126) or more, and finite",
            )
            fits = self.target_frames is None or (
                self.target_frames >= 1 and self.padding == "legacy"
            )
            check(
                fits,
                "target_frames",
                self.target_frames,
                "1 or more, and only with padding = 'legacy'",
            )

        @property
        def win_length(self) -> int:
            """Samples in a frame."""
            return int(self.sample_rate * self.window_ms / 1000)

        @property
        def hop_length(self) -> int:
            """Samples between the starts of neighbouring frames."""
            return int(self.sample_rate * self.hop_ms / 1000)

        @property
        def n_fft(self) -> int:
            """Points of the Fourier transform."""
            return (
                1 << (self.win_length - 1).bit_length()
                if self.fft_length is None
                else self.fft_length
            )

        @property
        def top_hz(self) -> float:
            """Upper edge of the highest mel bin, in Hz."""
            return self.sample_rate / 2 if self.high_hz is None else self.high_hz

        @property
        def overhead(self) -> int:
            """Samples of a clip beyond its hops: it has ``1 + (samples - overhead) // hop_length`` frames, or 1."""
            return (self.preemphasis_over == "wave") + (0 if self.centred else self.win_length)

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.sample_rate, self.n_mels = config.sample_rate, config.n_mels

    @property
    def hop_seconds(self) -> float:
        """Seconds between the starts of neighbouring frames, a whole number of samples."""
        return self.config.hop_length / self.sample_rate

    @overload
    def frames(self, samples: int) -> int: ...
    @overload
    def frames(self, samples: Int[Tensor, "*clip"]) -> Int[Tensor, "*clip"]: ...
    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Return the frames of so many samples, at least 1.

        They are the whole frames that fit, and a clip shorter than one is completed with zeros; with ``centred``, the
        hops that fit and one more, and a clip shorter than half a frame is mirrored again and again.
        """
        frames = 1 + (samples - self.config.overhead) // self.config.hop_length
        return frames.clamp(min=1) if isinstance(frames, Tensor) else max(frames, 1)

    def forward(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> tuple[Float[Tensor, "clip mel frame"], Int[Tensor, " clip"]]:
        """Return the normalised spectrograms and the number of valid frames of each.

        Computed in float32 whatever the autocast, or in float64 if the wave is. A clip's valid frames depend on nothing
        but its own samples: not on its neighbours, and not on what the wave holds beyond ``lengths``.

        Args:
            wave: samples in [-1, 1] at ``sample_rate``.
            lengths: samples of each clip; the rest of its row is padding.
        """
        wave = wave.to(torch.promote_types(wave.dtype, torch.float32))
        with torch.autocast(wave.device.type, enabled=False):
            # On a CPU a whole batch falls out of the cache: one clip at a time is several times as fast.
            spectrogram = (self._clip_by_clip if wave.device.type == "cpu" else self._batched)(
                wave, lengths
            )
        if self.config.padding == "masked":
            return spectrogram, self.frames(lengths)
        wanted = self.config.target_frames or spectrogram.shape[2]
        padded = F.pad(spectrogram, (0, wanted - spectrogram.shape[2]), value=self._fill)
        return padded, torch.full_like(lengths, wanted)

    def denormalise(
        self, spectrogram: Float[Tensor, "*clip mel frame"]
    ) -> Float[Tensor, "*clip mel frame"]:
        """Return the log-mel values (natural log) behind a normalised spectrogram, for pictures."""
        return spectrogram * (self.config.scale * self.config.std) + self.config.mean

    @property
    def silence(self) -> float:
        """Value of digital silence in a normalised spectrogram, the lowest there is."""
        return self._normalised(math.log(self.config.floor))

    @property
    def _fill(self) -> float:
        """Value of a frame past the end of its clip."""
        return 0.0 if self.config.padding == "masked" else self._normalised(0.0)

    def _normalised(self, log_mel: _Value) -> _Value:
        return (log_mel - self.config.mean) / (self.config.scale * self.config.std)

    def _clip_by_clip(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> Float[Tensor, "clip mel frame"]:
        out = wave.new_full((len(wave), self.n_mels, self.frames(wave.shape[1])), self._fill)
        for i, length in enumerate(lengths.tolist()):
            out[i, :, : self.frames(length)] = self._features(wave[i, :length], lengths[i])
        return out

    def _batched(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> Float[Tensor, "clip mel frame"]:
        features = self._features(_cut(wave, lengths), lengths)
        valid = (
            torch.arange(features.shape[2], device=wave.device)
            < self.frames(lengths)[:, None, None]
        )
        return torch.where(valid, features, self._fill)

    def _features(
        self, wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
    ) -> Float[Tensor, "*clip mel frame"]:
        """Return the normalised spectrograms of waves that are 0 past their ends."""
        config = self.config
        window, filters = _constants(config, wave.device, wave.dtype)
        frames = self._prepared(wave, lengths).unfold(-1, config.win_length, config.hop_length)
        if config.remove_offset:
            frames = frames - frames.mean(-1, keepdim=True)
        # Without its first sample, where all windows are 0: that only turns phases, not the power.
        inner = frames[..., 1:]
        if config.preemphasis_over == "frame" and config.preemphasis:
            inner = inner - config.preemphasis * frames[..., :-1]
        spectrum = torch.fft.rfft(inner * window[1:], n=config.n_fft)
        energy = _power(spectrum) if config.spectrum == "power" else spectrum.abs()
        mel = torch.matmul(filters, energy.mT)
        return self._normalised(
            (mel + config.floor if config.floor_added else mel.clamp(min=config.floor)).log()
        )

    def _prepared(
        self, wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
    ) -> Float[Tensor, "*clip prepared"]:
        """Return what is cut into frames: the waves with what concerns the whole clip done, and one frame or more."""
        config = self.config
        if config.unit_norm:
            wave = wave * wave.square().sum(-1, keepdim=True).clamp(min=1e-9).rsqrt()
        if config.preemphasis_over == "wave":
            lengths = lengths - 1
            # Cut again, as the clip's last sample has been subtracted from the first of its padding.
            wave = _cut(wave[..., 1:] - config.preemphasis * wave[..., :-1], lengths)
        least = 1 if config.centred else config.win_length
        wave = F.pad(wave, (0, max(0, least - wave.shape[-1])))
        return _mirrored(wave, lengths, config.win_length) if config.centred else wave


def _cut(
    wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
) -> Float[Tensor, "*clip sample"]:
    """Return the waves with zeros past their ends."""
    return torch.where(
        torch.arange(wave.shape[-1], device=wave.device) < lengths[..., None], wave, 0.0
    )


def _mirrored(
    wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"], win_length: int
) -> Float[Tensor, "*clip mirrored"]:
    """Return the waves with half a window more at both ends of each clip: its own samples, mirrored at its first and
    last one as often as need be, as by ``numpy.pad(mode="reflect")``."""
    left, right = (
        win_length - win_length // 2,
        win_length // 2,
    )  # an odd window lies as in torch.stft
    start, last = torch.arange(-left, 0, device=wave.device), (lengths - 1).clamp(min=0)[..., None]
    beyond = torch.cat(
        [start.expand(*lengths.shape, -1), last + 1 + torch.arange(right, device=wave.device)],
        dim=-1,
    )
    source = last - (last - beyond % (2 * last).clamp(min=1)).abs()
    return F.pad(wave, (left, right)).scatter(-1, beyond + left, wave.gather(-1, source))


def _power(spectrum: Complex[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return spectrum.real.square() + spectrum.imag.square()  # twice as fast as abs().square()


@lru_cache(maxsize=16)
def _constants(
    config: LogMel.Config, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the window and the mel filters, rounded once from float64.

    Cached rather than buffers of the module: those would lose precision when a model is cast to bfloat16, and their
    values when it is built on the meta device.
    """
    filters = mel_filters(
        config.mel,
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        low_hz=config.low_hz,
        high_hz=config.top_hz,
    )
    with torch.inference_mode(False):  # or no later call could record gradients through them
        window = torch.from_numpy(_window(config.window, config.win_length))
        return window.to(device, dtype), torch.from_numpy(filters).to(device, dtype)


def _window(kind: Window, size: int) -> Float[np.ndarray, " sample"]:
    if kind == "hann_periodic":
        return np.hanning(size + 1)[:-1]
    return np.hanning(size) ** (0.85 if kind == "povey" else 1.0)
