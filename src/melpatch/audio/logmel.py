"""Kaldi-compatible log-mel spectrograms: any sampling rate and length, batched on the device, each clip as if alone."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from melpatch.config import check

LOG_FLOOR = 2.0**-23
"""Least energy of a mel bin (float32's machine epsilon, as in Kaldi): digital silence is ln(2^-23) = -15.94."""


class LogMel(nn.Module):
    """The front end: waveforms to normalised log-mel spectrograms, with no parameters and nothing in the state dict.

    The features are those of Kaldi's ``compute-fbank-feats`` with ``--window-type=hanning --dither=0`` on samples in
    [-1, 1], which is what the published SSAST and AST are given (Gong et al. 2022, arXiv 2110.09784).

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
        preemphasis: float = 0.97
        """How much of the previous sample is subtracted from each, from 0 to 1."""
        mean: float = -4.2677393
        """Mean of the log-mel values (natural log); AudioSet's by default, `melpatch stats` measures yours."""
        std: float = 4.5689974
        """Standard deviation of the log-mel values (natural log); AudioSet's by default."""
        scale: float = 2.0
        """Standard deviations that become 1: the output is (x - mean) / (scale * std)."""
        padding: Literal["masked", "legacy"] = "masked"
        """"masked": frames past a clip's end are 0 and not valid. "legacy": log-mel 0 and valid, as published."""
        target_frames: int | None = None
        """With "legacy": the frames that every clip is padded or cut to; None is the longest of the batch."""

        def __post_init__(self) -> None:
            for name in ("sample_rate", "window_ms", "hop_ms", "std", "scale"):
                check(0.0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")
            check(math.isfinite(self.mean), "mean", self.mean, "a finite number")
            check(self.win_length >= 3, "window_ms", self.window_ms, f"{3000 / self.sample_rate:g} (3 samples) or more")
            check(self.hop_length >= 1, "hop_ms", self.hop_ms, f"{1000 / self.sample_rate:g} (1 sample) or more")
            bins, nyquist, top = self.n_fft // 2, self.sample_rate / 2, self.top_hz
            check(1 <= self.n_mels <= bins, "n_mels", self.n_mels, f"1 to {bins}, or more with a longer window_ms")
            check(top <= nyquist, "high_hz", self.high_hz, f"at most {nyquist:g} Hz, half the sampling rate")
            check(0.0 <= self.low_hz < top, "low_hz", self.low_hz, f"0 to below {top:g} Hz, the upper edge")
            check(0.0 <= self.preemphasis <= 1.0, "preemphasis", self.preemphasis, "0 to 1")
            check(self.padding in ("masked", "legacy"), "padding", self.padding, "'masked' or 'legacy'")
            fits = self.target_frames is None or (self.target_frames >= 1 and self.padding == "legacy")
            check(fits, "target_frames", self.target_frames, "1 or more, and only with padding = 'legacy'")

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
            """Points of the Fourier transform: the next power of two, as in Kaldi."""
            return 1 << (self.win_length - 1).bit_length()

        @property
        def top_hz(self) -> float:
            """Upper edge of the highest mel bin, in Hz."""
            return self.sample_rate / 2 if self.high_hz is None else self.high_hz

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
        """Return the whole frames in so many samples; at least 1, as a shorter clip is completed with zeros."""
        frames = 1 + (samples - self.config.win_length) // self.config.hop_length
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
            spectrogram = (self._clip_by_clip if wave.device.type == "cpu" else self._batched)(wave, lengths)
        if self.config.padding == "masked":
            return spectrogram, self.frames(lengths)
        wanted = self.config.target_frames or spectrogram.shape[2]
        padded = F.pad(spectrogram, (0, wanted - spectrogram.shape[2]), value=self._fill)
        return padded, torch.full_like(lengths, wanted)

    def denormalise(self, spectrogram: Float[Tensor, "*clip mel frame"]) -> Float[Tensor, "*clip mel frame"]:
        """Return the log-mel values (natural log of power) behind a normalised spectrogram, for pictures."""
        return spectrogram * (self.config.scale * self.config.std) + self.config.mean

    @property
    def _fill(self) -> float:
        """Value of a frame past the end of its clip."""
        config = self.config
        return 0.0 if config.padding == "masked" else (0.0 - config.mean) / (config.scale * config.std)

    def _clip_by_clip(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> Float[Tensor, "clip mel frame"]:
        out = wave.new_full((len(wave), self.n_mels, self.frames(wave.shape[1])), self._fill)
        for i, length in enumerate(lengths.tolist()):
            out[i, :, : self.frames(length)] = self._features(wave[i, :length])
        return out

    def _batched(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> Float[Tensor, "clip mel frame"]:
        inside = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
        features = self._features(torch.where(inside, wave, 0.0))
        valid = torch.arange(features.shape[2], device=wave.device) < self.frames(lengths)[:, None, None]
        return torch.where(valid, features, self._fill)

    def _features(self, wave: Float[Tensor, "*clip sample"]) -> Float[Tensor, "*clip mel frame"]:
        config = self.config
        window, filters = _constants(config, wave.device, wave.dtype)
        wave = F.pad(wave, (0, max(0, config.win_length - wave.shape[-1])))
        frames = wave.unfold(-1, config.win_length, config.hop_length)
        frames = frames - frames.mean(-1, keepdim=True)
        # Within the frame, and without its first sample, where the window is 0: that only turns phases, not the power.
        emphasised = frames[..., 1:] - config.preemphasis * frames[..., :-1]
        spectrum = torch.fft.rfft(emphasised * window[1:], n=config.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()  # twice as fast as abs().square()
        log_mel = torch.matmul(filters, power.mT).clamp(min=LOG_FLOOR).log()
        return (log_mel - config.mean) / (config.scale * config.std)


def mel_filters(config: LogMel.Config) -> Float[np.ndarray, "mel bin"]:
    """Return the weight of every FFT bin in every mel bin: Kaldi's triangles, straight on the mel scale, in float64.

    At 16 kHz and 128 mels the fourth mel bin is empty: its triangle falls between two FFT bins, in Kaldi as well.
    """
    bins = _mel(np.arange(config.n_fft // 2) * config.sample_rate / config.n_fft)
    edges = np.linspace(_mel(config.low_hz), _mel(config.top_hz), config.n_mels + 2)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(min=0.0)
    return np.pad(triangles, [(0, 0), (0, 1)])  # Kaldi leaves the Nyquist bin out


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log1p(hz / 700.0)


@lru_cache(maxsize=16)
def _constants(config: LogMel.Config, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the window and the mel filters, rounded once from float64.

    Cached rather than buffers of the module: those would lose precision when a model is cast to bfloat16, and their
    values when it is built on the meta device.
    """
    with torch.inference_mode(False):  # or no later call could record gradients through them
        window, filters = torch.from_numpy(np.hanning(config.win_length)), torch.from_numpy(mel_filters(config))
        return window.to(device, dtype), filters.to(device, dtype)
