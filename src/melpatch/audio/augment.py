"""Augmentation of waves and spectrograms: pure functions of a clip and its random state.

All are off by default and leave padding unchanged. All but :func:`mixup` give a clip the same
result alone and in a batch.
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
    """The augmentations of a run: waves, mixup first (SSAST); spectrograms, masks first (PANNs)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the augmentation; by default there is none."""

        mixup_rate: float = 0.0
        """Share of clips that are mixed with their partner in a pair, from 0 to 1."""
        mixup_alpha: int = 10
        """The mixing weight is Beta(alpha, alpha) distributed; a whole number."""
        mixup_on: Literal["wave", "spectrogram"] = "wave"
        """Input that is mixed: waves (SSAST, AST) or normalised log-mel spectrograms (PANNs)."""
        roll: float = 0.0
        """Largest cyclic shift in time, as a share of the clip's length, from 0 to 1."""
        gain_db: float = 0.0
        """Largest change of level, up or down, in dB."""
        gain_beta: int = 0
        """Samples are multiplied by 1/2 + Beta(gain_beta, gain_beta); a whole number, 0: they are not."""
        noise_snr_db: tuple[float, float] | None = None
        """Lowest and highest signal-to-noise ratio of added white noise, in dB; None: none."""
        masks: int = 1
        """Number of frequency masks and of time masks, where these have a width."""
        freq_mask: int = 0
        """Frequency masks are narrower than this many mel bins; 0: no frequency masks."""
        time_mask: int = 0
        """Time masks are narrower than this many frames; 0: no time masks."""
        pixel_noise: float = 0.0
        """Largest noise added to the normalised values of a spectrogram (AST, SSAST); 0: none."""

        def __post_init__(self) -> None:
            check(0.0 <= self.mixup_rate <= 1.0, "mixup_rate", self.mixup_rate, "0 to 1")
            whole = "a whole number of 1 or more"
            check(self.mixup_alpha >= 1, "mixup_alpha", self.mixup_alpha, whole)
            check(self.gain_beta >= 0, "gain_beta", self.gain_beta, "a whole number of 0 or more")
            check(0.0 <= self.roll <= 1.0, "roll", self.roll, "0 to 1")
            check(0.0 <= self.gain_db < math.inf, "gain_db", self.gain_db, "0 dB or more")
            check(0.0 <= self.pixel_noise < math.inf, "pixel_noise", self.pixel_noise, "0 or more")
            low, high = self.noise_snr_db or (0.0, 0.0)
            ordered = -math.inf < low <= high < math.inf
            check(ordered, "noise_snr_db", self.noise_snr_db, "two numbers in dB, low <= high")
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
        """Return the augmented waves of a batch, and its targets mixed like the waves."""
        config = self.config
        if config.mixup_on == "wave":
            wave, targets = self._mixup(wave, lengths, targets, keys, partners, seed, step)
        if config.roll:
            wave = roll(wave, lengths, stream(seed, "augment/roll", keys, step), config.roll)
        if config.gain_db:
            wave = gain(wave, lengths, stream(seed, "augment/gain", keys, step), config.gain_db)
        if config.gain_beta:
            state = stream(seed, "augment/gain_beta", keys, step)
            wave = beta_gain(wave, lengths, state, config.gain_beta)
        if config.noise_snr_db is not None:
            state = stream(seed, "augment/noise", keys, step)
            wave = noise(wave, lengths, state, config.noise_snr_db)
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
        """Return the augmented spectrograms of a batch, and its targets mixed like them."""
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
    """Mix a share of the clips with their partners, cut or zero-padded to the clip's length.

    A clip that is its own partner is not mixed. Waves lose their mean first; spectrograms are mixed
    as they are. The weight is Beta(alpha, alpha) distributed.

    Source: Zhang et al. 2018 (arXiv 1710.09412); on waves as in the published SSAST, on
    spectrograms as in PANNs (Kong et al. 2020, arXiv 1912.10211).
    *Differs:* SSAST draws the partner from the whole corpus, and subtracts the mean of the mixture
    again, which the front end does in every frame anyway. PANNs draws twice as many clips and
    merges each pair into one. Here both clips of a pair are mixed independently, so a step is the
    same however its pairs are split over ranks.
    """
    draws = uniform(state, 2 * alpha)
    mixed = draws[:, 0] < rate
    mixed &= partners != torch.arange(len(sound), device=sound.device)
    weight = _beta(draws[:, 1:])
    inside = _inside(sound, sizes)
    clean = torch.where(inside, sound, 0.0)
    if sound.ndim == 2:
        # Waves; spectrograms have three dimensions.
        mean = clean.sum(1, keepdim=True) / sizes.clamp(min=1)[:, None]
        clean = torch.where(inside, sound - mean, 0.0)
    sound = torch.where(inside & _per_clip(mixed, sound), _blend(clean, partners, weight), sound)
    if targets is not None:
        targets = torch.where(mixed[:, None], _blend(targets, partners, weight), targets)
    return sound, targets


def _beta(draws: Float[Tensor, "clip draw"]) -> Float[Tensor, " clip"]:
    """Return a number of each clip that is Beta(alpha, alpha) distributed, of 2 alpha - 1 uniform ones."""
    # For whole alpha that is the median. It takes a fixed count of numbers, as counter-based draws
    # need; rejection sampling does not.
    return draws.median(dim=1).values


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
    """Return one value per clip in a shape that broadcasts against ``x``."""
    return values.view(-1, *[1] * (x.ndim - 1))


def roll(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    share: float,
) -> Float[Tensor, "clip sample"]:
    """Roll every clip in time, cyclically, by up to a share of its length in either direction."""
    # The shift is uniform between -share and share of the clip's length, in whole samples.
    shift = ((2.0 * uniform(state, 1) - 1.0) * share * lengths[:, None]).round().long()
    sample = torch.arange(wave.shape[1], device=wave.device)
    rolled = (sample - shift) % lengths.clamp(min=1)[:, None]
    source = torch.where(_inside(wave, lengths), rolled, sample)
    return wave.gather(1, source)


def gain(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    most_db: float,
) -> Float[Tensor, "clip sample"]:
    """Make every clip up to ``most_db`` louder or softer, uniformly in dB, without clipping."""
    # Amplitude is 10^(dB / 20).
    factor = 10.0 ** ((2.0 * uniform(state, 1) - 1.0) * (most_db / 20.0))
    return torch.where(_inside(wave, lengths), wave * factor, wave)


def beta_gain(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    alpha: int,
) -> Float[Tensor, "clip sample"]:
    """Multiply every clip by 1/2 + Beta(alpha, alpha), which is 1 on average, without clipping.

    Source: the published code of Audio-MAE, with alpha 10.
    """
    factor = 0.5 + _beta(uniform(state, 2 * alpha - 1))
    return torch.where(_inside(wave, lengths), wave * factor[:, None], wave)


def noise(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    snr_db: tuple[float, float],
) -> Float[Tensor, "clip sample"]:
    """Add white noise at a signal-to-noise ratio drawn uniformly in dB; silence stays silent."""
    low, high = snr_db
    inside = _inside(wave, lengths)
    energy = torch.where(inside, wave, 0.0).square().sum(1, keepdim=True)
    power = energy / lengths.clamp(min=1)[:, None]
    # Noise power is signal power / 10^(SNR / 10). The first number of the stream gives the ratio,
    # the others give the noise.
    scale = (power * 10.0 ** (-(low + uniform(state, 1) * (high - low)) / 10.0)).sqrt()
    added = normal(state, wave.shape[1] + 1)[:, 1:]
    return torch.where(inside, wave + scale * added, wave)


def spec_augment(
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    freq_mask: int,
    time_mask: int,
    masks: int = 1,
) -> Float[Tensor, "clip mel frame"]:
    """Set bands of frequency and of time to 0, the mean after normalisation, in the valid frames.

    Widths are uniform from 0 to below ``freq_mask`` mels or ``time_mask`` frames, and shorter than
    the clip.

    Source: Park et al. 2019 (arXiv 1904.08779), section 2, without time warping.
    *Differs:* the published SSAST fills with 0 before normalisation, and its time mask may fall
    into padding.
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
    """Add uniform noise from 0 to a strength that is drawn per clip, uniformly up to ``most``.

    Source: the published code of AST and SSAST, which adds up to 0.1 to normalised values after
    masking them.
    """
    _, n_mels, width = spectrogram.shape
    # Numbers are drawn frame by frame, so those of a clip do not depend on the batch's width.
    draws = uniform(state, 1 + width * n_mels)
    added = most * draws[:, :1, None] * draws[:, 1:].view(-1, width, n_mels).mT
    return torch.where(_inside(spectrogram, frames), spectrogram + added, spectrogram)


def _bands(
    draws: Float[Tensor, "clip mask 2"], limit: int, sizes: Int[Tensor, " clip"], total: int
) -> Bool[Tensor, "clip place"]:
    """Return a mask of ``total`` places, true in random bands within the first ``sizes`` places."""
    # The width is uniform up to the limit, the start uniform over all places where the band fits.
    width = (draws[..., 0] * sizes[:, None].clamp(max=limit)).long()
    start = (draws[..., 1] * (sizes[:, None] - width + 1)).long()
    place = torch.arange(total, device=sizes.device)
    in_band = (place >= start[..., None]) & (place < (start + width)[..., None])
    return in_band.any(1)


def _inside(
    sound: Float[Tensor, "clip *mel time"], sizes: Int[Tensor, " clip"]
) -> Bool[Tensor, "clip *ones time"]:
    """Return a mask of the samples or frames that are not padding."""
    return torch.arange(sound.shape[-1], device=sound.device) < _per_clip(sizes, sound)
