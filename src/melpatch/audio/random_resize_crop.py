"""Random-resize-crop of log-mel spectrograms: a rectangle of each clip, stretched to its own size.

Source: BYOL for Audio (Niizumi et al. 2021, arXiv 2103.06695). A clip lies in the
middle of a longer canvas of zeros, the mean level; a rectangle is drawn on it, and brought back to
the clip's size by bicubic interpolation with aligned corners.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.rng import uniform

_CUBIC = -0.75  # of the bicubic kernel, as in torch and OpenCV

Spectrogram = Float[Tensor, "clip mel frame"]
PerClip = Int[Tensor, " clip"]


def random_resize_crop(
    spectrogram: Spectrogram,
    frames: PerClip,
    state: PerClip,
    mels: tuple[float, float] | None,
    times: tuple[float, float] | None,
    canvas: float = 1.5,
) -> Spectrogram:
    """Return a random rectangle of each clip, stretched to its valid frames and to all mels.

    Args:
        spectrogram: normalised, so that 0 is the mean level; padding is returned as it is.
        frames: valid frames of each clip.
        state: one stream per clip.
        mels: smallest and largest height as a share of the mels, of which the rectangle has at most
            all; None: all mels.
        times: smallest and largest width as a share of the clip; None: the clip's frames as they
            are, so that frames stay aligned (ATST-Frame).
        canvas: length of the canvas, in clips.
    """
    draws = uniform(state, 4)
    width = spectrogram.shape[2]
    if times is not None:
        length = (frames * canvas + 1e-4).long()  # 1e-4: 1.2 * 5 is 6
        extent, start = _piece(draws[:, :2], frames, times, length)
        # From places of the canvas to frames. A frame of the clip at least is in the rectangle.
        start = start - (length - frames) // 2
        start = start.maximum(1 - extent).minimum(frames - 1)
        cropped = _stretched(spectrogram, start, extent, frames, frames, width)
        inside = torch.arange(width, device=frames.device) < frames[:, None, None]
        spectrogram = torch.where(inside, cropped, spectrogram)
    if mels is not None:
        count = torch.full_like(frames, spectrogram.shape[1])
        extent, start = _piece(draws[:, 2:], count, mels, count)
        cropped = _stretched(spectrogram.mT, start, extent, count, count, spectrogram.shape[1]).mT
        inside = torch.arange(width, device=frames.device) < frames[:, None, None]
        spectrogram = torch.where(inside, cropped, spectrogram)
    return spectrogram


def _piece(
    draws: Float[Tensor, "clip 2"], size: PerClip, share: tuple[float, float], room: PerClip
) -> tuple[PerClip, PerClip]:
    """Return extent and start of a piece within a room, given its share of a size."""
    low, high = share
    extent = (size * (low + draws[:, 0] * (high - low))).long().clamp(min=1).minimum(room)
    start = (draws[:, 1] * (room - extent + 1)).long().minimum(room - extent)
    return extent, start


def _stretched(
    x: Float[Tensor, "clip row place"],
    start: PerClip,
    extent: PerClip,
    valid: PerClip,
    size: PerClip,
    width: int,
) -> Float[Tensor, "clip row width"]:
    """Interpolate a piece of each clip to ``size`` places, of which there are up to ``width``.

    Args:
        x: what is cut.
        start: first place of the piece; may lie before the clip.
        extent: places of the piece.
        valid: places of the clip; around them there are zeros.
        size: places that the piece is stretched to.
        width: places of the output.
    """
    place = torch.arange(width, device=x.device)
    # Corners are aligned: the first place and the last one stay where they are.
    scale = (extent - 1) / (size - 1).clamp(min=1)
    position = place * scale[:, None]
    left = position.floor()
    after = position - left
    out = x.new_zeros(*x.shape[:2], width)
    for tap, weight in zip((-1, 0, 1, 2), _cubic_weights(after), strict=True):
        # Beyond its edges a piece goes on with its last value.
        within = (left.long() + tap).clamp(min=0).minimum((extent - 1)[:, None])
        source = within + start[:, None]
        sounds = (source >= 0) & (source < valid[:, None])
        index = source.clamp(0, x.shape[2] - 1)[:, None].expand(-1, x.shape[1], -1)
        out += x.gather(2, index).masked_fill(~sounds[:, None], 0.0) * weight[:, None]
    return out


def _cubic_weights(after: Float[Tensor, "clip place"]) -> list[Float[Tensor, "clip place"]]:
    """Return the weights of the four places around a position, given its distance from the second."""
    distances = (1.0 + after, after, 1.0 - after, 2.0 - after)
    far, near, next_near, next_far = distances
    return [_outer(far), _inner(near), _inner(next_near), _outer(next_far)]


def _inner(d: Float[Tensor, "clip place"]) -> Float[Tensor, "clip place"]:
    return ((_CUBIC + 2.0) * d - (_CUBIC + 3.0)) * d * d + 1.0


def _outer(d: Float[Tensor, "clip place"]) -> Float[Tensor, "clip place"]:
    return ((_CUBIC * d - 5.0 * _CUBIC) * d + 8.0 * _CUBIC) * d - 4.0 * _CUBIC
