"""Augmentation of waves and spectrograms: pure functions of a clip and its random state, all off unless asked for.

Every function leaves padding as it is. All but :func:`mixup` give a clip the same result alone and in a batch.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from melpatch.config import check
from melpatch.rng import normal, stream, uniform


class Augment:
    """The augmentations of one run: of waves, mixup first, as in SSAST; of spectrograms, masks first, as in PANNs."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the augmentation; by default there is none."""

        mixup_rate: float = 0.0
        """Share of clips that are mixed with their partner, the other one of a pair, from 0 to 1."""
        mixup_alpha: int = 10
        """Both parameters of the Beta distribution of the mixing weight, a whole number; the larger, the nearer 1/2."""
        mixup_on: Literal["wave", "spectrogram"] = "wave"
        """What is mixed: waves, as in SSAST and AST, or normalised log-mel spectrograms, as in PANNs."""
        roll: float = 0.0
        """Farthest that a clip is rolled in time, either way, as a share of its length, from 0 to 1."""
        gain_db: float = 0.0
        """Largest change of loudness, either way, in dB."""
        noise_snr_db: tuple[float, float] | None = None
        """Lowest and highest ratio of clip to added white noise, in dB; None adds none."""
        masks: int = 1
        """Number of frequency masks and of time masks, where those have a width."""
        freq_mask: int = 0
        """Width that every frequency mask stays below, in mel bins; 0 is no mask."""
        time_mask: int = 0
        """Width that every time mask stays below, in frames; 0 is no mask."""
        pixel_noise: float = 0.0
        """Largest noise added to the normalised values of a spectrogram, as in AST and SSAST; 0 adds none."""

        def __post_init__(self) -> None:
            check(0.0 <= self.mixup_rate <= 1.0, "mixup_rate", self.mixup_rate, "0 to 1")
            check(
                self.mixup_alpha >= 1,
                "mixup_alpha",
                self.mixup_alpha,
                "a whole number of 1 or more",
            )
            check(0.0 <= self.roll <= 1.0, "roll", self.roll, "0 to 1")
            check(0.0 <= self.gain_db < math.inf, "gain_db", self.gain_db, "0 dB or more")
            check(0.0 <= self.pixel_noise < math.inf, "pixel_noise", self.pixel_noise, "0 or more")
            low, high = self.noise_snr_db or (0.0, 0.0)
            check(
                -math.inf < low <= high < math.inf,
                "noise_snr_db",
                self.noise_snr_db,
                "two numbers in dB, low <= high",
            )
            for name in ("masks", "freq_mask", "time_mask"):
                check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")

    def __init__(self, config: Config = Config()) -> None:
        self.config = config

    def wave(
        self,
        wave: Float[Tensor, "clip sample"],
        lengths: Int[Tensor, " clip"],
        targets: Float[Tensor, "clip label"] | None,
        keys: Int[Tensor, " clip"],
        partners: Int[Tensor, " clip"],
        seed: int,
        step: int,
    ) -> tuple[Float[Tensor, "clip sample"], Float[Tensor, "clip label"] | None]:
        """Return the augmented waves of a batch and their targets, mixed where the waves were."""
        config = self.config
        if config.mixup_on == "wave":
            wave, targets = self._mixup(wave, lengths, targets, keys, partners, seed, step)
        if config.roll:
            wave = roll(wave, lengths, stream(seed, "augment/roll", keys, step), config.roll)
        if config.gain_db:
            wave = gain(wave, lengths, stream(seed, "augment/gain", keys, step), config.gain_db)
        if config.noise_snr_db is not None:
            wave = noise(
                wave, lengths, stream(seed, "augment/noise", keys, step), config.noise_snr_db
            )
        return wave, targets

    def spectrogram(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        frames: Int[Tensor, " clip"],
        targets: Float[Tensor, "clip label"] | None,
        keys: Int[Tensor, " clip"],
        partners: Int[Tensor, " clip"],
        seed: int,
        step: int,
    ) -> tuple[Float[Tensor, "clip mel frame"], Float[Tensor, "clip label"] | None]:
        """Return the normalised spectrograms of a batch, masked, noisy and mixed, and their targets, mixed alike."""
        config = self.config
        if config.masks and (config.freq_mask or config.time_mask):
            state = stream(seed, "augment/spec_augment", keys, step)
            spectrogram = spec_augment(
                spectrogram, frames, state, config.freq_mask, config.time_mask, config.masks
            )
        if config.pixel_noise:
            state = stream(seed, "augment/pixel_noise", keys, step)
            spectrogram = pixel_noise(spectrogram, frames, state, config.pixel_noise)
        if config.mixup_on == "spectrogram":
            spectrogram, targets = self._mixup(
                spectrogram, frames, targets, keys, partners, seed, step
            )
        return spectrogram, targets

    def _mixup(
        self,
        sound: Float[Tensor, "clip *mel time"],
        sizes: Int[Tensor, " clip"],
        targets: Float[Tensor, "clip label"] | None,
        keys: Int[Tensor, " clip"],
        partners: Int[Tensor, " clip"],
        seed: int,
        step: int,
    ) -> tuple[Float[Tensor, "clip *mel time"], Float[Tensor, "clip label"] | None]:
        if not self.config.mixup_rate:
            return sound, targets
        state = stream(seed, "augment/mixup", keys, step)
        return mixup(
            sound, sizes, targets, partners, state, self.config.mixup_rate, self.config.mixup_alpha
        )


def mixup(
    sound: Float[Tensor, "clip *mel time"],
    sizes: Int[Tensor, " clip"],
    targets: Float[Tensor, "clip label"] | None,
    partners: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    rate: float,
    alpha: int,
) -> tuple[Float[Tensor, "clip *mel time"], Float[Tensor, "clip label"] | None]:
    """Mix a share of the clips with their partners, cut or zero-padded to their length; one that is its own partner is
    left alone.

    Takes waves, whose mean is taken off first, or spectrograms, which are mixed as they are. The weight is Beta(alpha,
    alpha) distributed: the middle one of 2 alpha - 1 uniform numbers, which holds for whole alpha only but needs a
    fixed count of numbers, as counter-based draws do (rejection sampling does not).

    Source: Zhang et al. 2018 (arXiv 1710.09412), on waves as in the published SSAST, on spectrograms as in PANNs (Kong
    et al. 2020, arXiv 1912.10211).
    *Differs:* SSAST's partner is any clip of the corpus, and the mixture's mean is taken off once more, which the front
    end does in every frame anyway; PANNs draw twice the clips and make one of each pair. Here each of a pair may take
    the other into itself, so that a step is the same however its pairs are divided among processes.
    """
    draws = uniform(state, 2 * alpha)
    mixed, weight = draws[:, 0] < rate, draws[:, 1:].median(dim=1).values
    mixed &= partners != torch.arange(len(sound), device=sound.device)
    inside = _inside(sound, sizes)
    clean = torch.where(inside, sound, 0.0)
    if sound.ndim == 2:  # waves
        clean = torch.where(
            inside, sound - clean.sum(1, keepdim=True) / sizes.clamp(min=1)[:, None], 0.0
        )
    sound = torch.where(inside & _per_clip(mixed, sound), _blend(clean, partners, weight), sound)
    if targets is not None:
        targets = torch.where(mixed[:, None], _blend(targets, partners, weight), targets)
    return sound, targets


def _blend(
    x: Float[Tensor, "clip *mel time"],
    partner: Int[Tensor, " clip"],
    weight: Float[Tensor, " clip"],
) -> Float[Tensor, "clip *mel time"]:
    weight = _per_clip(weight, x)
    return weight * x + (1.0 - weight) * x[partner]


def _per_clip(
    values: Shaped[Tensor, " clip"], x: Float[Tensor, "clip *mel time"]
) -> Shaped[Tensor, "clip *ones 1"]:
    """Return one value per clip in a shape that goes with ``x``."""
    return values.view(-1, *[1] * (x.ndim - 1))


def roll(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    share: float,
) -> Float[Tensor, "clip sample"]:
    """Roll every clip in time by up to a share of its length, either way; what leaves one end enters at the other."""
    shift = ((2.0 * uniform(state, 1) - 1.0) * share * lengths[:, None]).round().long()
    at = torch.arange(wave.shape[1], device=wave.device)
    source = torch.where(_inside(wave, lengths), (at - shift) % lengths.clamp(min=1)[:, None], at)
    return wave.gather(1, source)


def gain(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    most_db: float,
) -> Float[Tensor, "clip sample"]:
    """Make every clip up to so many dB louder or softer, evenly in dB. Samples may then lie outside [-1, 1]."""
    factor = 10.0 ** ((2.0 * uniform(state, 1) - 1.0) * (most_db / 20.0))
    return torch.where(_inside(wave, lengths), wave * factor, wave)


def noise(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    snr_db: tuple[float, float],
) -> Float[Tensor, "clip sample"]:
    """Add white noise at a ratio of powers drawn evenly in dB from a range. Silence stays silent."""
    low, high = snr_db
    inside = _inside(wave, lengths)
    power = (
        torch.where(inside, wave, 0.0).square().sum(1, keepdim=True) / lengths.clamp(min=1)[:, None]
    )
    scale = (power * 10.0 ** (-(low + uniform(state, 1) * (high - low)) / 10.0)).sqrt()
    added = normal(state, wave.shape[1] + 1)[:, 1:]  # the stream's first number has drawn the ratio
    return torch.where(inside, wave + scale * added, wave)


def spec_augment(
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    freq_mask: int,
    time_mask: int,
    masks: int = 1,
) -> Float[Tensor, "clip mel frame"]:
    """Set bands of frequency and of time to 0, the mean after normalisation, within every clip's valid frames.

    Widths are drawn evenly from 0 to below ``freq_mask`` mels and ``time_mask`` frames, and below the whole clip.

    Source: Park et al. 2019 (arXiv 1904.08779), section 2, without time warping.
    *Differs:* the published SSAST fills with 0 before normalisation and lets the time mask fall into padding.
    """
    _, n_mels, width = spectrogram.shape
    draws = uniform(state, masks, 4)
    hidden_mels = _bands(draws[..., :2], freq_mask, torch.full_like(frames, n_mels), n_mels)
    hidden_frames = _bands(draws[..., 2:], time_mask, frames, width)
    hidden = hidden_mels[:, :, None] | hidden_frames[:, None, :]
    return torch.where(hidden & _inside(spectrogram, frames), 0.0, spectrogram)


def pixel_noise(
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    most: float,
) -> Float[Tensor, "clip mel frame"]:
    """Add noise to every value, drawn evenly from 0 to a strength, which is drawn once per clip, evenly up to ``most``.

    Source: the published code of AST and SSAST, which adds up to 0.1 to normalised values after masking them.
    """
    _, n_mels, width = spectrogram.shape
    draws = uniform(
        state, 1 + width * n_mels
    )  # frame by frame, so that a clip's do not hang on the batch's width
    added = most * draws[:, :1, None] * draws[:, 1:].view(-1, width, n_mels).mT
    return torch.where(_inside(spectrogram, frames), spectrogram + added, spectrogram)


def _bands(
    draws: Float[Tensor, "clip mask 2"], limit: int, sizes: Int[Tensor, " clip"], total: int
) -> Bool[Tensor, "clip place"]:
    """Return which of ``total`` places lie in a random band, narrower than the limit, of the first ``sizes`` places."""
    width = (draws[..., 0] * sizes[:, None].clamp(max=limit)).long()
    start = (draws[..., 1] * (sizes[:, None] - width + 1)).long()
    at = torch.arange(total, device=sizes.device)
    return ((at >= start[..., None]) & (at < (start + width)[..., None])).any(1)


def _inside(
    sound: Float[Tensor, "clip *mel time"], sizes: Int[Tensor, " clip"]
) -> Bool[Tensor, "clip *ones time"]:
    return torch.arange(sound.shape[-1], device=sound.device) < _per_clip(sizes, sound)
