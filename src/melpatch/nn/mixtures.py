"""Mixtures of clips with their partners, of which both sources can be predicted.

A mixture holds the larger value of both log-mel spectrograms, since the louder of two sounds covers
the other, but for two stretches of time in which the clip is left alone.

Source: SSLAM (Alex et al. 2025, arXiv 2506.12222), section 3, and the published code.

>>> state = torch.tensor([1, 2])  # of random numbers, one per clip
>>> stretches(state, torch.tensor([64, 32]), 64, share=15 / 64).sum(dim=1)  # columns of each clip
tensor([30, 14])
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check
from melpatch.nn.grid import PatchGrid
from melpatch.rng import uniform

Spectrograms = Float[Tensor, "clip mel frame"]


@dataclass(frozen=True, kw_only=True)
class Mixtures:
    """Settings of mixtures."""

    use: bool = False
    """Whether each clip is trained on mixed with its partner too, and not only as it is."""
    retention_weight: float = 1.0
    """Weight of source retention: the mean target of both sources, predicted from their mixture."""
    alone: float = 15 / 64
    """Share of a clip, twice, in which it is left alone; at most a quarter."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        weight = self.retention_weight
        check(weight >= 0, "retention_weight", weight, "0 or more")
        check(0 <= self.alone <= 0.25, "alone", self.alone, "0 to 0.25")


class Mixture(NamedTuple):
    """Clips mixed with their partners."""

    spectrogram: Spectrograms
    mixed: Bool[Tensor, "clip token"]
    """Patches in which the partner can be heard."""


def mix(
    spectrogram: Spectrograms,
    frames: Int[Tensor, " clip"],
    partners: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    grid: PatchGrid,
    share: float,
) -> Mixture:
    """Return clips mixed with their partners; a clip that is its own partner stays as it is.

    Args:
        spectrogram: of the clips.
        frames: valid frames of each clip.
        partners: row of each clip's partner.
        state: state of the random numbers of each clip.
        grid: the geometry of patches; stretches are whole columns of it.
        share: share of a clip in each of the two stretches in which it is left alone.
    """
    width = spectrogram.shape[2]
    columns = grid.columns(width)
    inside = grid.valid(frames, columns).view(-1, grid.rows, columns)[:, 0]
    alone = stretches(state, inside.sum(dim=1), columns, share)
    has_partner = partners != torch.arange(len(partners), device=partners.device)
    mixed = inside & inside[partners] & ~alone & has_partner[:, None]
    # From columns of patches to frames; those beyond the last column are left alone.
    in_frames = mixed.repeat_interleave(grid.patch[1], dim=1)[:, :width]
    in_frames = torch.nn.functional.pad(in_frames, (0, width - in_frames.shape[1]))
    both = torch.minimum(frames, frames[partners])
    in_frames = in_frames & (torch.arange(width, device=frames.device) < both[:, None])
    louder = torch.maximum(spectrogram, spectrogram[partners])
    mixture = louder.where(in_frames[:, None], spectrogram)
    return Mixture(mixture, mixed[:, None].expand(-1, grid.rows, -1).flatten(1))


def stretches(
    state: Int[Tensor, " clip"], own_columns: Int[Tensor, " clip"], columns: int, share: float
) -> Bool[Tensor, "clip column"]:
    """Return the columns of two stretches of each clip, which do not overlap.

    The first begins in the first half of the clip, the second after its end: on 64 columns with
    stretches of 15 at 0 to 31, and before 49, as published. *Differs:* each clip has its own; there
    all clips of a batch have the same.

    Args:
        state: state of the random numbers of each clip.
        own_columns: columns of each clip.
        columns: columns of the batch.
        share: share of the clip in each stretch, at most a quarter.
    """
    chance = uniform(state, 2)
    # 1e-6: 15 / 64 * 64 must be 15.
    length = (own_columns * share + 1e-6).floor()
    first = (chance[:, 0] * (own_columns // 2)).floor()
    left = own_columns - 2 * length - first
    second = first + length + (chance[:, 1] * left).floor()
    place = torch.arange(columns, device=state.device)
    starts = torch.stack([first, second], dim=1)[..., None]
    after = place >= starts
    before = place < starts + length[:, None, None]
    return (after & before).any(dim=1)
