"""Views of clips for student and teacher, and the weights of means over several views of a clip.

>>> spectrogram = torch.zeros(4, 128, 998)  # (clip, mel, frame)
>>> frames = torch.full((4,), 998)  # valid frames of each clip
>>> keys = torch.arange(4)
>>> states = [stream(0, f"view {number}", keys, step=0) for number in range(2)]  # melpatch.rng
>>> crops = random_crops(states, spectrogram, frames, width=592)
>>> crops.spectrogram.shape  # the first view of every clip, then the second of every clip
torch.Size([8, 128, 592])
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.nn.grid import PatchGrid
from melpatch.rng import uniform_bits


class Crops(NamedTuple):
    """Random crops: the first of every clip, then the second of every clip, and so on."""

    spectrogram: Float[Tensor, "crop mel frame"]
    frames: Int[Tensor, " crop"]
    """Valid frames of each crop; fewer than its width if the clip is shorter."""
    start: Int[Tensor, " crop"]
    """Frame of the clip at which the crop starts."""


class Views(NamedTuple):
    """Views of a batch: the first of every clip, then the second of every clip, and so on."""

    clean: Float[Tensor, "view mel frame"]
    """The teacher's input."""
    corrupted: Float[Tensor, "view mel frame"]
    """The student's input."""
    mask: Bool[Tensor, "view mel frame"]
    """Which pixels are corrupted."""
    valid_pixels: Bool[Tensor, "view mel frame"]
    """Which pixels are not padding."""
    valid: Bool[Tensor, "view token"] | None
    """Which tokens are not padding; None if all are."""
    local_crops: (
        tuple[Float[Tensor, "crop mel short"], Bool[Tensor, "crop token"] | None] | None
    ) = None
    """Short clean crops and their padding mask, whose class tokens match the teacher's."""
    start: Int[Tensor, " view"] | None = None
    """Frame of the clip's spectrogram at which a view starts."""

    def first(self) -> "Views":
        """Return the first view of the first clip, as a batch of one; without local crops."""
        valid = self.valid
        if valid is not None:
            valid = valid[:1]
        start = self.start
        if start is not None:
            start = start[:1]
        images = (self.clean[:1], self.corrupted[:1], self.mask[:1], self.valid_pixels[:1])
        return Views(*images, valid, None, start)

    def pixels(self, which: Literal["corrupted", "all"]) -> Bool[Tensor, "view mel frame"]:
        """Return which pixels a loss covers: the corrupted ones, or all that are not padding."""
        if which == "corrupted":
            return self.mask
        return self.valid_pixels


def random_crop(
    states: Int[Tensor, " clip"],
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    width: int,
    most: Int[Tensor, " clip"] | None = None,
) -> Crops:
    """Return a random crop of ``width`` frames from each clip; shorter clips stay whole.

    Cropping a spectrogram is cropping the wave at a multiple of the hop, at half the cost:
    overlapping views share it.

    Args:
        states: one stream per clip.
        spectrogram: padded with zeros past each clip's frames.
        frames: valid frames of each clip.
        width: frames of a crop; at most those of the batch.
        most: frames that a crop of each clip may have, if fewer; None for no such limit.
    """
    width = min(width, spectrogram.shape[2])
    longest = frames
    if most is not None:
        longest = torch.minimum(frames, most)
    own = longest.clamp(max=width)
    # floor(uniform * places), exactly, without float64
    start = (uniform_bits(states, 1)[:, 0] * (frames - own + 1)) >> 24
    place = torch.arange(width, device=start.device)
    index = (start[:, None] + place).clamp(max=spectrogram.shape[2] - 1)
    crop = spectrogram.gather(2, index[:, None].expand(-1, spectrogram.shape[1], -1))
    padding = place >= own[:, None]
    return Crops(crop.masked_fill(padding[:, None], 0.0), own, start)


def random_crops(
    states: Iterable[Int[Tensor, " clip"]],
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    width: int,
) -> Crops:
    """Return one crop of every clip for each group of streams; see :func:`random_crop`."""
    crops = [random_crop(state, spectrogram, frames, width) for state in states]
    return Crops(*(torch.cat(parts) for parts in zip(*crops, strict=True)))


def by_view(cls: Float[Tensor, "row cls dim"], clips: int) -> Float[Tensor, "view clip dim"]:
    """Return the mean class token of each view and clip, given the tokens of :class:`Views`."""
    return cls.mean(dim=1).view(len(cls) // max(1, clips), clips, cls.shape[2])


def whole_patches(crops: Crops, grid: PatchGrid) -> Crops:
    """Return crops padded with zeros to whole patches."""
    frames = crops.spectrogram.shape[2]
    padding = grid.columns(frames) * grid.patch[1] - frames
    return crops._replace(spectrogram=F.pad(crops.spectrogram, (0, padding)))


def pixels_in_patches(
    frames: Int[Tensor, " crop"], width: int, grid: PatchGrid
) -> tuple[Int[Tensor, " crop"], Bool[Tensor, "crop 1 frame"]]:
    """Return how many valid frames of each crop are in patches, and which of all frames.

    Args:
        frames: valid frames of each crop.
        width: frames of the crops with padding.
        grid: the patches; with ``partial = "drop"`` the last frames may be in none.
    """
    if grid.partial == "drop":
        in_patches = grid.patch[1] * (frames // grid.patch[1]).clamp(min=1)
        frames = torch.minimum(frames, in_patches)
    frame = torch.arange(width, device=frames.device)
    return frames, frame < frames[:, None, None]


def averaging_weights(
    chosen: Float[Tensor, "crop ..."], crops: int, *, by_clip: bool
) -> Float[Tensor, "crop ..."]:
    """Return weights whose sum over all values, divided by the number of clips, makes a mean.

    The mean is over the chosen values.

    Args:
        chosen: 1 for what is in the mean, 0 for the rest; crops in the order of :class:`Crops`.
        crops: crops per clip.
        by_clip: average within each clip, then over clips, which does not depend on how a batch is
            divided; else over all that is chosen in the batch, so that clips with more of it have
            more weight.
    """
    items = chosen.view(crops, len(chosen) // crops, *chosen.shape[1:]).flatten(2)
    # Sums over (crop, item) of each clip; or over the batch too, times the clips that are divided
    # by.
    axes: tuple[int, ...] = (0, 2)
    scale = 1
    if not by_clip:
        axes = (0, 1, 2)
        scale = items.shape[1]
    total = items.sum(dim=axes, keepdim=True).clamp(min=1e-6)  # 0 / 0 is 0
    weights: Tensor = items / total * scale
    return weights.view_as(chosen)


def token_weights(
    valid: Float[Tensor, "crop token"],
    corrupted: Float[Tensor, "crop token"],
    crops: int,
    *,
    tokens: Literal["all", "corrupted", "separate"],
    threshold: float,
    intact_weight: float,
    by_clip: bool,
) -> Float[Tensor, "crop token"]:
    """Return the averaging weights of tokens; 0 for tokens outside of the mean, such as padding.

    Args:
        valid: how many pixels of each token are not padding.
        corrupted: how many of them are corrupted.
        crops: crops per clip.
        tokens: the mean over all tokens, over the corrupted ones, or a weighted mean of the means
            of both kinds.
        threshold: smallest share of corrupted pixels that makes a token corrupted; with 0 any pixel
            does.
        intact_weight: with ``separate``, the weight of the intact tokens' mean.
        by_clip: see :func:`averaging_weights`.
    """
    if tokens == "all":
        return averaging_weights((valid > 0).to(valid.dtype), crops, by_clip=by_clip)
    is_corrupted = (corrupted > 0) & (corrupted >= threshold * valid)
    weights = averaging_weights(is_corrupted.to(valid.dtype), crops, by_clip=by_clip)
    if tokens == "corrupted":
        return weights
    is_intact = (valid > 0) & ~is_corrupted
    intact = averaging_weights(is_intact.to(valid.dtype), crops, by_clip=by_clip)
    mixed = intact_weight * intact + (1 - intact_weight) * weights
    # Averaged once more, for clips that have tokens of one kind only.
    return averaging_weights(mixed, crops, by_clip=by_clip)
