"""Log-mel spectrograms on the device: Kaldi's by default, for any rate and length."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args, overload

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from melpatch.audio.framing import (
    Window,
    check_level,
    mirror,
    window_weights,
    within_range,
    zero_padding,
)
from melpatch.audio.front_end_limits import check_bins, check_sizes
from melpatch.audio.mel import MelScale, mel_filters
from melpatch.config import check

LOG_FLOOR = 2.0**-23
"""Least energy of a mel bin, float32's epsilon as in Kaldi: silence is ln(2^-23) = -15.94."""

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
    """The front end: waveforms to normalised log-mel spectrograms, without parameters or state.

    By default, the features are those of Kaldi's ``compute-fbank-feats`` with ``--dither=0`` and
    ``--window-type=hanning`` on samples in [-1, 1], the input of the published SSAST and AST (Gong
    et al. 2022, arXiv 2110.09784). :mod:`melpatch.audio.front_ends` has those of other systems.

    Used alone, it takes one clip or a batch of clips of one length, as a tensor or an array::

        log_mel = LogMel()                             # or LogMel(sample_rate=32000, n_mels=64)
        spectrogram = log_mel(wave)                    # (sample,) -> (mel, frame)
        spectrograms = log_mel(waves)                  # (clip, sample) -> (clip, mel, frame)
        padded, frames = log_mel(waves, lengths)       # clips of different lengths
        decibels = 10 / math.log(10) * log_mel.denormalise(spectrogram)

    *Differs:* the published code also subtracts the mean of the whole clip, which has no effect
    because every frame loses its own mean.

    Args:
        config: the settings.
        settings: fields of :class:`LogMel.Config` by keyword, which replace those of ``config``.

    Attributes:
        config: the settings.
        sample_rate: sampling rate of the input, in Hz.
        n_mels: number of mel bins of the output.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the spectrogram; the defaults are those of the published SSAST and AST."""

        sample_rate: int = 16000
        """Sampling rate of the waves, in Hz."""
        window_ms: float = 25.0
        """Length of a frame, in milliseconds."""
        hop_ms: float = 10.0
        """Distance between the starts of successive frames, in milliseconds."""
        n_mels: int = 128
        """Number of mel bins."""
        low_hz: float = 20.0
        """Lower edge of the lowest mel bin, in Hz."""
        high_hz: float | None = None
        """Upper edge of the highest mel bin, in Hz; None is half the sampling rate."""
        unit_norm: bool = False
        """Whether each clip is first scaled to an L2 norm of 1, by at most 3.2e4."""
        preemphasis: float = 0.97
        """Share of the previous sample that is subtracted from each sample, from 0 to 1."""
        preemphasis_over: Span = "frame"
        """Scope: "frame", each frame, or "wave", the whole clip, which loses its first sample."""
        centred: bool = False
        """Whether frame t is centred on sample t * hop of the mirrored clip, or starts there."""
        remove_offset: bool = True
        """Whether the mean of each frame is subtracted from it."""
        window: Window = "hann"
        """Window: Hann's, symmetric or periodic (SciPy, librosa, TensorFlow), or Povey's."""
        fft_length: int | None = None
        """Points of the Fourier transform, even; None: the next power of two, as in Kaldi."""
        spectrum: Spectrum = "power"
        """Input of the mel filters: squared magnitudes ("power") or magnitudes."""
        mel: MelScale = "kaldi"
        """Filters: "kaldi" (HTK's mels, height 1; as TensorFlow), "htk" (the same, but straight
        over hertz; as torchaudio) or "slaney" (area 1; as librosa)."""
        floor: float = LOG_FLOOR
        """Least value of a mel bin before the logarithm."""
        floor_added: bool = False
        """Whether the floor is added to every mel bin, instead of replacing smaller values."""
        range_db: float | None = None
        """Most decibels that a value lies below the loudest of its clip, lower ones being raised;
        None: no limit."""
        mean: float = -4.2677393
        """Mean of the log-mel values (natural log), AudioSet's; `melpatch stats` measures yours."""
        std: float = 4.5689974
        """Standard deviation of the log-mel values (natural log), AudioSet's by default."""
        scale: float = 2.0
        """Divisor in standard deviations: the output is (x - mean) / (scale * std)."""
        padding: Padding = "masked"
        """Frames past the end: "masked", 0, not valid, or "legacy", log-mel 0, valid (SSAST)."""
        target_frames: int | None = None
        """With "legacy" padding: frames of every clip; None: those of the longest of the batch."""

        def __post_init__(self) -> None:
            for name in ("sample_rate", "n_mels"):
                value = getattr(self, name)
                check(isinstance(value, int), name, value, "a whole number")
            for name in ("sample_rate", "window_ms", "hop_ms", "std", "scale"):
                value = getattr(self, name)
                fits = isinstance(value, int | float) and 0.0 < value < math.inf
                check(fits, name, value, "a finite number above 0")
            for name, choices in _CHOICES.items():
                value = getattr(self, name)
                allowed = get_args(choices)
                check(value in allowed, name, value, " or ".join(map(repr, allowed)))
            check(math.isfinite(self.mean), "mean", self.mean, "a finite number")
            check(0.0 <= self.preemphasis <= 1.0, "preemphasis", self.preemphasis, "0 to 1")
            # Smaller numbers have fewer digits in float32: the log of silence could be -inf.
            floor_allowed = "1.2e-38 (2^-126) or more, and finite"
            check(2.0**-126 <= self.floor < math.inf, "floor", self.floor, floor_allowed)
            check_sizes(self)
            self._check_frames()
            check_bins(self)

        def _check_frames(self) -> None:
            shortest = f"{3000 / self.sample_rate:g} (3 samples) or more"
            check(self.win_length >= 3, "window_ms", self.window_ms, shortest)
            shortest = f"{1000 / self.sample_rate:g} (1 sample) or more"
            check(self.hop_length >= 1, "hop_ms", self.hop_ms, shortest)
            if self.target_frames is not None:
                fits = self.target_frames >= 1 and self.padding == "legacy"
                allowed = "1 or more, and only with padding = 'legacy'"
                check(fits, "target_frames", self.target_frames, allowed)

        @property
        def win_length(self) -> int:
            """Samples in a frame."""
            return int(self.sample_rate * self.window_ms / 1000)

        @property
        def hop_length(self) -> int:
            """Samples between the starts of successive frames."""
            return int(self.sample_rate * self.hop_ms / 1000)

        @property
        def n_fft(self) -> int:
            """Points of the Fourier transform."""
            if self.fft_length is not None:
                return self.fft_length
            return 1 << (self.win_length - 1).bit_length()

        @property
        def top_hz(self) -> float:
            """Upper edge of the highest mel bin, in Hz."""
            if self.high_hz is None:
                return self.sample_rate / 2
            return self.high_hz

        @property
        def overhead(self) -> int:
            """Samples that one frame takes: a clip has 1 + (samples - overhead) // hop frames."""
            # Pre-emphasis of the whole clip drops its first sample.
            dropped = int(self.preemphasis_over == "wave")
            if self.centred:
                return dropped
            return dropped + self.win_length

    def __init__(self, config: Config = Config(), **settings: Any) -> None:
        super().__init__()
        self.config = replace(config, **settings)
        self.sample_rate = self.config.sample_rate
        self.n_mels = self.config.n_mels

    @property
    def hop_seconds(self) -> float:
        """Seconds between the starts of successive frames, a whole number of samples."""
        return self.config.hop_length / self.sample_rate

    @overload
    def frames(self, samples: int) -> int: ...
    @overload
    def frames(self, samples: Int[Tensor, "*clip"]) -> Int[Tensor, "*clip"]: ...
    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Return the number of frames of a clip of this many samples, at least 1.

        These are the whole frames that fit; a clip shorter than one frame is padded with zeros.
        With ``centred``, they are the hops that fit and one more; a clip shorter than half a frame
        is mirrored repeatedly.
        """
        frames = 1 + (samples - self.config.overhead) // self.config.hop_length
        if isinstance(frames, Tensor):
            return frames.clamp(min=1)
        return max(frames, 1)

    @overload
    def forward(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> tuple[Float[Tensor, "clip mel frame"], Int[Tensor, " clip"]]: ...
    @overload
    def forward(
        self, wave: Float[Tensor, "*clip sample"] | Float[np.ndarray, "*clip sample"]
    ) -> Float[Tensor, "*clip mel frame"]: ...
    def forward(
        self, wave: Tensor | np.ndarray, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Return normalised spectrograms; with ``lengths`` also the number of valid frames of each.

        Without ``lengths``, all samples are valid, and the result is the spectrogram alone:
        ``(sample,) -> (mel, frame)`` or ``(clip, sample) -> (clip, mel, frame)``. With ``lengths``,
        it is ``(clip, sample), (clip,) -> (clip, mel, frame), (clip,)``.

        Computed in float32 whatever the autocast, or in float64 if ``wave`` is a float64 tensor;
        arrays are taken as float32. The valid frames of a clip depend on its own samples only, not
        on other clips and not on samples beyond ``lengths``.

        Args:
            wave: samples in [-1, 1] at ``sample_rate``.
            lengths: samples of each clip; the rest of its row is padding.

        Raises:
            ConfigError: ``wave`` holds integers, NaN, infinity or values far above 1, or is neither
                a clip nor a batch of clips.
        """
        if lengths is not None:
            return self._padded_batch(torch.as_tensor(wave), lengths)
        if isinstance(wave, np.ndarray) and wave.dtype.kind == "f":
            wave = wave.astype(np.float32, copy=False)
        wave = torch.as_tensor(wave)
        allowed = "floating point in [-1, 1]; divide 16-bit samples by 32768"
        check(wave.is_floating_point(), "wave", f"{wave.dtype} samples", allowed)
        shape = tuple(wave.shape)
        check(wave.ndim in (1, 2), "wave", f"shape {shape}", "(sample,) or (clip, sample)")
        if wave.ndim == 1:
            return self.forward(wave[None])[0]
        check_level(wave)
        lengths = torch.full((len(wave),), wave.shape[1], device=wave.device)
        spectrogram, _ = self._padded_batch(wave, lengths)
        return spectrogram

    def _padded_batch(
        self, wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"]
    ) -> tuple[Float[Tensor, "clip mel frame"], Int[Tensor, " clip"]]:
        wave = wave.to(torch.promote_types(wave.dtype, torch.float32))
        # On a CPU a whole batch exceeds the cache: one clip at a time is several times as fast.
        compute = self._clip_by_clip if wave.device.type == "cpu" else self._batched
        with full_precision(wave.device.type):
            spectrogram = compute(wave, lengths)
        if self.config.padding == "masked":
            return spectrogram, self.frames(lengths)
        frames = self.config.target_frames or spectrogram.shape[2]
        padded = F.pad(spectrogram, (0, frames - spectrogram.shape[2]), value=self._fill)
        return padded, torch.full_like(lengths, frames)

    def denormalise(
        self, spectrogram: Float[Tensor, "*clip mel frame"]
    ) -> Float[Tensor, "*clip mel frame"]:
        """Return the log-mel values (natural log) of a normalised spectrogram."""
        return spectrogram * (self.config.scale * self.config.std) + self.config.mean

    @property
    def silence(self) -> float:
        """Value of digital silence in a normalised spectrogram, the lowest possible."""
        return self._normalised(math.log(self.config.floor))

    @property
    def _fill(self) -> float:
        """Value of a frame past the end of its clip."""
        if self.config.padding == "masked":
            return 0.0
        return self._normalised(0.0)

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
        features = self._features(zero_padding(wave, lengths), lengths)
        frames = torch.arange(features.shape[2], device=wave.device)
        valid = frames < self.frames(lengths)[:, None, None]
        return torch.where(valid, features, self._fill)

    def _features(
        self, wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
    ) -> Float[Tensor, "*clip mel frame"]:
        """Return the normalised spectrograms of waves whose padding is 0."""
        config = self.config
        window, filters = _constants(config, wave.device, wave.dtype)
        frames = self._prepared(wave, lengths).unfold(-1, config.win_length, config.hop_length)
        if config.remove_offset:
            frames = frames - frames.mean(-1, keepdim=True)

        # All windows are 0 at the first sample, so it is dropped. The FFT then starts one sample
        # later, which rotates phases and leaves magnitudes as they are.
        inner = frames[..., 1:]
        if config.preemphasis_over == "frame" and config.preemphasis:
            inner = inner - config.preemphasis * frames[..., :-1]
        spectrum = torch.fft.rfft(inner * window[1:], n=config.n_fft)
        if config.spectrum == "power":
            energy = _power(spectrum)
        else:
            energy = spectrum.abs()

        # The floor keeps the logarithm of silence finite.
        mel = torch.matmul(filters, energy.mT)
        if config.floor_added:
            mel = mel + config.floor
        else:
            mel = mel.clamp(min=config.floor)
        log_mel = mel.log()
        if config.range_db is not None:
            frame = torch.arange(log_mel.shape[-1], device=log_mel.device)
            inside = frame < self.frames(lengths)[..., None]
            log_mel = within_range(log_mel, inside, config.range_db)
        return self._normalised(log_mel)

    def _prepared(
        self, wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
    ) -> Float[Tensor, "*clip prepared"]:
        """Return the waves after whole-clip scaling, pre-emphasis and padding, before framing."""
        config = self.config
        if config.unit_norm:
            # 1 / sqrt(1e-9) limits the gain to 3.2e4.
            wave = wave * wave.square().sum(-1, keepdim=True).clamp(min=1e-9).rsqrt()
        if config.preemphasis_over == "wave":
            lengths = lengths - 1
            wave = wave[..., 1:] - config.preemphasis * wave[..., :-1]
            # The first sample of padding now holds a share of the clip's last sample.
            wave = zero_padding(wave, lengths)
        if config.centred:
            # Mirroring needs at least one sample.
            wave = F.pad(wave, (0, max(0, 1 - wave.shape[-1])))
            return mirror(wave, lengths, config.win_length)
        return F.pad(wave, (0, max(0, config.win_length - wave.shape[-1])))


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast, which the meta device does not have."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _power(spectrum: Complex[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    # Twice as fast as abs().square().
    return spectrum.real.square() + spectrum.imag.square()


@lru_cache(maxsize=16)
def _constants(
    config: LogMel.Config, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, " sample"], Float[Tensor, "mel bin"]]:
    """Return the window and the mel filters on a device, rounded once from float64.

    They are cached instead of being buffers of the module, which would lose precision when a model
    is cast to bfloat16, and their values when it is built on the meta device. They are computed and
    rounded on the CPU, because Apple's GPUs have no float64.
    """
    filters = mel_filters(
        config.mel,
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        low_hz=config.low_hz,
        high_hz=config.top_hz,
    )
    window = window_weights(config.window, config.win_length)
    # Tensors made in inference mode could not be used in later calls that record gradients.
    with torch.inference_mode(False):
        window_on_cpu = torch.from_numpy(window).to(dtype)
        filters_on_cpu = torch.from_numpy(filters).to(dtype)
        return window_on_cpu.to(device), filters_on_cpu.to(device)
