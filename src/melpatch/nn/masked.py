"""Tokens and images without padding: their mean and maximum, zeros at padding, halved lengths."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the mean over the valid tokens, in float32, or float64 where the values are."""
    values = at_least_float32(values)
    if valid is None:
        return values.mean(dim=-2)
    weight = valid[..., None].to(values.dtype)
    return (values * weight).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)


def masked_max(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the maximum over the valid tokens, of which there is at least one, in float32."""
    values = at_least_float32(values)
    if valid is not None:
        values = values.masked_fill(~valid[..., None], -torch.inf)
    return values.amax(dim=-2)


def at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def sounding_frames(
    spectrogram: Float[Tensor, "clip mel frame"],
    valid: Bool[Tensor, "clip column"] | None,
    width: int,
) -> Bool[Tensor, "clip keptframe"] | None:
    """Return the valid frames, those after a clip's last whole column too; None without padding.

    The columns do not tell these frames. Padding is 0 in all mels, which a normalised frame is not.

    Args:
        spectrogram: the spectrograms, with zeros at padding.
        valid: columns that are not padding.
        width: frames of a column; a shorter spectrogram is one column.
    """
    if valid is None:
        return None
    inside: Tensor = valid.repeat_interleave(width, dim=1)
    frames = spectrogram.shape[2]
    if frames <= width:
        return inside
    # The frames that follow the last valid column of a clip, up to the next column.
    rest = torch.arange(frames, device=valid.device) - width * valid.sum(dim=1)[:, None]
    sounding = (spectrogram != 0).any(dim=1)
    follows = sounding & (rest >= 0) & (rest < width)
    whole = F.pad(inside, (0, frames - inside.shape[1]))
    joined: Tensor = whole | follows
    return joined


def silenced(
    images: Float[Tensor, "clip channel mel frame"], inside: Bool[Tensor, "clip frame"] | None
) -> Float[Tensor, "clip channel mel frame"]:
    """Return the images with zeros at padding, as past the end of a clip that is alone."""
    return images if inside is None else images.masked_fill(~inside[:, None, None], 0.0)


def halved(inside: Bool[Tensor, "clip frame"] | None) -> Bool[Tensor, "clip half"] | None:
    """Return which frames are valid after a pooling: those that were made of two valid ones."""
    if inside is None:
        return None
    pairs = inside[:, : inside.shape[1] // 2 * 2]
    return pairs[:, ::2] & pairs[:, 1::2]
