"""Random crops of spectrograms, and the weights of means over several crops of a clip."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.rng import uniform_bits


class Crops(NamedTuple):
    """Random crops: the first of every clip, then the second of every clip, and so on."""

    spectrogram: Float[Tensor, "crop mel frame"]
    frames: Int[Tensor, " crop"]
    """Valid frames of each crop; fewer than its width if the clip is shorter."""
    start: Int[Tensor, " crop"]
    """Frame of the clip at which the crop starts."""


def random_crop(
    states: Int[Tensor, " clip"],
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    width: int,
    most: Int[Tensor, " clip"] | None = None,
) -> Crops:
    """Return a crop of ``width`` frames from each clip, its start drawn uniformly; shorter clips stay whole.

    Cropping a spectrogram is cropping the wave at a multiple of the hop, at half the cost: overlapping views share it.

    Args:
        states: one stream per clip.
        spectrogram: padded with zeros past each clip's frames.
        frames: valid frames of each clip.
        width: frames of a crop; at most those of the batch.
        most: frames that a crop of each clip may have, if fewer; None for no such limit.
    """
    width = min(width, spectrogram.shape[2])
    longest = frames if most is None else torch.minimum(frames, most)
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


def averaging_weights(
    chosen: Float[Tensor, "crop ..."], crops: int, *, by_clip: bool
) -> Float[Tensor, "crop ..."]:
    """Return weights whose sum over everything, divided by the number of clips, is a mean over what is chosen.

    Args:
        chosen: 1 for what is in the mean, 0 for the rest; crops in the order of :class:`Crops`.
        crops: crops per clip.
        by_clip: average within each clip, then over clips, which does not depend on how a batch is divided; else over
            all that is chosen in the batch, so that clips with more of it have more weight.
    """
    items = chosen.view(crops, len(chosen) // crops, *chosen.shape[1:]).flatten(2)
    axes = (0, 2) if by_clip else (0, 1, 2)
    total = items.sum(dim=axes, keepdim=True).clamp(min=1e-6)  # 0 / 0 is 0
    scale = 1 if by_clip else items.shape[1]
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
    """Return the averaging weights of tokens; 0 for those that are not in the mean, such as padding.

    Args:
        valid: how many pixels of each token are not padding.
        corrupted: how many of them are corrupted.
        crops: crops per clip.
        tokens: the mean over all tokens, over the corrupted ones, or a weighted mean of the means of both kinds.
        threshold: smallest share of corrupted pixels that makes a token corrupted; with 0 any pixel does.
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
