"""Corrupted spectrograms: random rectangles of each clip are overwritten, to be reconstructed.

>>> spectrogram = torch.zeros(4, 128, 592)  # (clip, mel, frame), normalised
>>> frames = torch.full((4,), 592)  # valid frames of each clip
>>> keys = torch.arange(4)
>>> partners = keys.flip(0)  # clip 0 may show blocks of clip 3, and so on
>>> corruption = Corruption(Corruption.Config(), patch=(16, 16))
>>> corrupted, mask = corruption(
...     spectrogram, frames, keys, partners, seed=0, step=0, purpose="view 0", silence=-1.0
... )
>>> corrupted.shape, mask.float().mean()  # 30 % of a clip, or 50 to 70 %, are overwritten
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check
from melpatch.nn.rectangles import pixel_targets, rectangles
from melpatch.rng import normal, stream, uniform, uniform_bits

MAX_RATIO = 0.9
"""Largest share of a clip that can be corrupted; more would need thousands of rectangles."""


class Corrupted(NamedTuple):
    """Corrupted spectrograms and their masks."""

    spectrogram: Float[Tensor, "clip mel frame"]
    mask: Bool[Tensor, "clip mel frame"]
    """True at every pixel that was overwritten, even if it happens to have kept its value."""


class Corruption:
    """The block corruption of GMML and ASiT: rectangles of one fill, or of another clip.

    Atito, Awais and Kittler 2022 (arXiv 2205.14986); Atito et al. 2022 (ASiT, arXiv 2211.13189).
    The defaults are those of the published ASiT (commit 1f1d63c), which reads the paper's "70 %" as
    the upper end of a range of areas. Blocks of another clip are the papers' "alien concepts".

    *Differs:* there a clip's donor is any clip of the batch, even itself, which then counts as
    corrupted but is not. Here it is the other clip of a pair, so that a step is the same however
    its pairs are divided among processes; a clip without such a partner shows the fill.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the corruption."""

        fill: Literal["zeros", "noise", "silence"] = "zeros"
        """What is written: 0, the mean of all data; standard normal noise; or the level of digital
        silence."""
        ratio: tuple[float, float] = (0.5, 0.7)
        """Lowest and highest share of a clip's pixels that the fill overwrites; drawn uniformly for
        each clip."""
        alien_ratio: float = 0.3
        """Share of a clip's pixels that another clip overwrites."""
        alien_probability: float = 0.5
        """Probability that a clip shows blocks of its partner, the other clip of a pair, instead of
        the fill."""
        max_block_ratio: float = 0.3
        """Upper limit of a rectangle's sides, as a share of the clip's frames and mels."""
        aligned: bool = False
        """Whether rectangles consist of whole patches."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            low, high = self.ratio
            limit = f"above 0 and up to {MAX_RATIO}, since more cannot be met"
            fits = 0 < low <= high <= MAX_RATIO
            check(fits, "ratio", self.ratio, f"two shares, low <= high, {limit}")
            check(0 < self.alien_ratio <= MAX_RATIO, "alien_ratio", self.alien_ratio, limit)
            probability = self.alien_probability
            check(0 <= probability <= 1, "alien_probability", probability, "0 to 1")
            block = self.max_block_ratio
            check(0.01 <= block <= 1, "max_block_ratio", block, "0.01 to 1")

    def __init__(self, config: Config, patch: tuple[int, int]) -> None:
        self.config = config
        self.align = (1, 1)
        if config.aligned:
            self.align = patch

    def __call__(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        frames: Int[Tensor, " clip"],
        keys: Int[Tensor, " clip"],
        partners: Int[Tensor, " clip"],
        *,
        seed: int,
        step: int,
        purpose: str,
        silence: float,
    ) -> Corrupted:
        """Return normalised spectrograms with some of each clip's own pixels overwritten.

        Mask and fill depend on (seed, purpose, key, step) and the clip's length alone.

        Args:
            spectrogram: normalised log-mel values.
            frames: valid frames of each clip; later frames are neither read nor changed.
            keys: the clips' keys.
            partners: row of the clip whose blocks each clip may show; a clip of the same key is no
                partner.
            seed: the run's seed.
            step: the step of training.
            purpose: a name that distinguishes several views of a clip.
            silence: the normalised value of digital silence.
        """
        config = self.config
        _, n_mels, width = spectrogram.shape
        choice = stream(seed, f"{purpose}/choice", keys, step)
        alien = uniform(choice, 1)[:, 0] < config.alien_probability
        alien = alien & (keys[partners] != keys)
        # Pixels to overwrite: a fixed share for alien blocks, one between two shares for the fill.
        position = uniform_bits(choice, 2)[:, 1]
        alien_target = pixel_targets(frames, n_mels, width, (config.alien_ratio,) * 2, position)
        fill_target = pixel_targets(frames, n_mels, width, config.ratio, position)
        mask = rectangles(
            stream(seed, f"{purpose}/blocks", keys, step),
            frames,
            n_mels,
            width,
            torch.where(alien, alien_target, fill_target),
            max_block_ratio=config.max_block_ratio,
            align=self.align,
        )
        written: Tensor | float = 0.0
        if config.fill == "silence":
            written = silence
        elif config.fill == "noise":
            # Numbered frame by frame, so that a longer neighbour leaves a pixel its number.
            noise = normal(stream(seed, f"{purpose}/noise", keys, step), width, n_mels)
            written = noise.transpose(1, 2).to(spectrogram.dtype)
        # A shorter donor starts again, so that none of its padding is shown.
        donated = _repeated(spectrogram, frames, partners)
        written = torch.where(alien[:, None, None], donated, written)
        return Corrupted(torch.where(mask, written, spectrogram), mask)


def corrupt_views(
    corruption: Corruption | None,
    clean: Float[Tensor, "view mel frame"],
    frames: Int[Tensor, " view"],
    views: int,
    keys: Int[Tensor, " clip"],
    partners: Int[Tensor, " clip"],
    *,
    seed: int,
    step: int,
    silence: float,
) -> Corrupted:
    """Return several views of each clip, corrupted each with blocks of its own.

    Args:
        corruption: what is done to each view; None for nothing.
        clean: the first views of all clips, then the second ones, and so on.
        frames: valid frames of each.
        views: number of views per clip.
        keys: see :class:`Corruption`, as the following.
        partners: of each clip.
        seed: the run's seed.
        step: the step of training.
        silence: the normalised value of digital silence.
    """
    if corruption is None:
        return Corrupted(clean, torch.zeros_like(clean, dtype=torch.bool))
    parts = [
        corruption(
            spectrogram,
            own_frames,
            keys,
            partners,
            seed=seed,
            step=step,
            purpose=f"corruption {number}",
            silence=silence,
        )
        for number, (spectrogram, own_frames) in enumerate(
            zip(clean.chunk(views), frames.chunk(views), strict=True)
        )
    ]
    spectrograms = torch.cat([part.spectrogram for part in parts])
    return Corrupted(spectrograms, torch.cat([part.mask for part in parts]))


def _repeated(
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    rows: Int[Tensor, " clip"],
) -> Float[Tensor, "clip mel frame"]:
    """Return these rows of the batch, their valid frames repeated until the width is full."""
    own = frames[rows].clamp(min=1)
    frame = torch.arange(spectrogram.shape[2], device=rows.device) % own[:, None]
    mel = torch.arange(spectrogram.shape[1], device=rows.device)
    return spectrogram[rows[:, None, None], mel[:, None], frame[:, None]]
