"""Corrupted spectrograms: random rectangles of each clip are overwritten, and a model is to rebuild what was there."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check
from melpatch.nn.rectangles import rectangles
from melpatch.rng import normal, stream, uniform

MAX_RATIO = 0.9
"""Largest share of a clip that may be asked for; more would need thousands of rectangles."""


class Corrupted(NamedTuple):
    """Corrupted spectrograms, and where they are."""

    spectrogram: Float[Tensor, "clip mel frame"]
    mask: Bool[Tensor, "clip mel frame"]
    """True at every pixel that was overwritten, be it with the same value by chance."""


class Corruption:
    """The block corruption of GMML and ASiT: a clip's rectangles show one fill, or all of them another clip.

    Atito, Awais and Kittler 2022 (arXiv 2205.14986); Atito et al. 2022 (ASiT, arXiv 2211.13189). The defaults are those
    of the published ASiT (commit 1f1d63c), which reads the paper's "70 %" as the upper end of a range of areas.

    *Differs:* there a clip's donor is any one of the batch, itself too, which then counts as corrupted but is not. Here
    it is the other one of a pair, so that a step is the same however its pairs are divided among processes; without
    such a partner a clip shows the fill.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the corruption."""

        fill: Literal["zeros", "noise", "silence"] = "zeros"
        """What is written: 0, the mean of all data; standard normal noise; or the level of digital silence."""
        ratio: tuple[float, float] = (0.5, 0.7)
        """Lowest and highest share of a clip's pixels that the fill overwrites; drawn evenly for each clip."""
        alien_ratio: float = 0.3
        """Share of a clip's pixels that another clip overwrites."""
        alien_probability: float = 0.5
        """Probability that a clip shows parts of its partner, the other one of a pair, instead of the fill, 0 to 1."""
        max_block_ratio: float = 0.3
        """What the sides of a rectangle stay below, as a share of the clip's frames and mels."""
        aligned: bool = False
        """Whether rectangles consist of whole patches."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            (low, high), met = (
                self.ratio,
                f"above 0 and up to {MAX_RATIO}, since more cannot be met",
            )
            check(
                0 < low <= high <= MAX_RATIO,
                "ratio",
                self.ratio,
                f"two shares, low <= high, {met}",
            )
            check(0 < self.alien_ratio <= MAX_RATIO, "alien_ratio", self.alien_ratio, met)
            check(
                0 <= self.alien_probability <= 1,
                "alien_probability",
                self.alien_probability,
                "0 to 1",
            )
            check(
                0.01 <= self.max_block_ratio <= 1,
                "max_block_ratio",
                self.max_block_ratio,
                "0.01 to 1",
            )

    def __init__(self, config: Config, patch: tuple[int, int]) -> None:
        self.config = config
        self.align = patch if config.aligned else (1, 1)

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
        """Return normalised spectrograms with some of each clip's own frames' pixels overwritten.

        What is hidden, and the fill, depend on (seed, purpose, key, step) and the clip's length alone.

        Args:
            spectrogram: normalised log-mel values.
            frames: each clip's own frames; what follows stays as it is, and is not looked at.
            keys: the clips' keys.
            partners: row of the clip that each one may show parts of; one of the same key is none.
            seed: the run's seed.
            step: the step of training.
            purpose: tells several views of a clip apart.
            silence: the normalised value of digital silence.
        """
        config, (_, n_mels, width) = self.config, spectrogram.shape
        chance = uniform(stream(seed, f"{purpose}/choice", keys, step), 2)
        alien = (chance[:, 0] < config.alien_probability) & (keys[partners] != keys)
        low, high = config.ratio
        share = torch.where(alien, config.alien_ratio, low + (high - low) * chance[:, 1].double())
        states = stream(seed, f"{purpose}/blocks", keys, step)
        hidden = rectangles(
            states,
            frames,
            n_mels,
            width,
            share,
            max_block_ratio=config.max_block_ratio,
            align=self.align,
        )
        written: Tensor | float = silence if config.fill == "silence" else 0.0
        if config.fill == "noise":
            # Numbered frame by frame, so that a longer neighbour leaves a pixel its number.
            noise = normal(stream(seed, f"{purpose}/noise", keys, step), width, n_mels)
            written = noise.transpose(1, 2).to(spectrogram.dtype)
        donated = _repeated(spectrogram, frames, partners)
        written = torch.where(alien[:, None, None], donated, written)
        return Corrupted(torch.where(hidden, written, spectrogram), hidden)


def _repeated(
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    rows: Int[Tensor, " clip"],
) -> Float[Tensor, "clip mel frame"]:
    """Return these rows of the batch, each one's own frames repeated from its start to the full width."""
    frame = (
        torch.arange(spectrogram.shape[2], device=rows.device) % frames[rows].clamp(min=1)[:, None]
    )
    mel = torch.arange(spectrogram.shape[1], device=rows.device)
    return spectrogram[rows[:, None, None], mel[:, None], frame[:, None]]
