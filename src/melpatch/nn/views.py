"""Views: pieces cut at random from spectrograms, so that a batch shows every clip several times."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.rng import uniform


class Crops(NamedTuple):
    """Pieces: the first ones of all clips, then the second ones, and so on."""

    spectrogram: Float[Tensor, "piece mel frame"]
    frames: Int[Tensor, " piece"]
    """Valid frames of each piece; fewer than it has where the clip is shorter."""
    start: Int[Tensor, " piece"]
    """Frame of the clip at which the piece starts."""


def random_crop(
    states: Int[Tensor, " clip"],
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    width: int,
    most: Int[Tensor, " clip"] | None = None,
) -> Crops:
    """Return a piece of ``width`` frames from anywhere in each clip, every place alike; short clips stay whole.

    Cutting at a frame is cutting the wave at a multiple of the hop, at half the price: views that overlap share it.

    Args:
        states: one stream per clip.
        spectrogram: padded with zeros past each clip's frames.
        frames: valid frames of each clip.
        width: frames of a piece, if any clip has so many.
        most: frames that a piece of each clip may have, where that is fewer; None where it is not.
    """
    width = min(width, spectrogram.shape[2])
    own = frames.clamp(max=width) if most is None else torch.minimum(frames, most).clamp(max=width)
    start = (uniform(states, 1)[:, 0].double() * (frames - own + 1)).long()
    place = torch.arange(width, device=start.device)
    index = (start[:, None] + place).clamp(max=spectrogram.shape[2] - 1)
    piece = spectrogram.gather(2, index[:, None].expand(-1, spectrogram.shape[1], -1))
    return Crops(piece.masked_fill((place >= own[:, None])[:, None], 0.0), own, start)


def random_crops(
    states: Iterable[Int[Tensor, " clip"]],
    spectrogram: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    width: int,
) -> Crops:
    """Return as many pieces of every clip as there are groups of streams; see :func:`random_crop`."""
    pieces = (random_crop(state, spectrogram, frames, width) for state in states)
    return Crops(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def averaging_weights(
    chosen: Float[Tensor, "piece ..."], pieces: int, *, by_clip: bool
) -> Float[Tensor, "piece ..."]:
    """Return weights whose sum over everything, divided by the number of clips, is a mean over what is chosen.

    Args:
        chosen: 1 for what is in the mean, 0 for the rest; pieces in the order of :class:`Crops`.
        pieces: pieces of each clip.
        by_clip: take the mean within each clip, then over clips, which any division of the batch leaves as it is; else
            over all that is chosen in the batch, so that clips with more of it weigh more.
    """
    items = chosen.view(pieces, len(chosen) // pieces, *chosen.shape[1:]).flatten(2)
    total = items.sum(dim=(0, 2) if by_clip else (0, 1, 2), keepdim=True).clamp(
        min=1e-6
    )  # 0 of 0 is 0
    weights: Tensor = items / total * (1 if by_clip else items.shape[1])
    return weights.view_as(chosen)
