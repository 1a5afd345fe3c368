"""Position embeddings of a patch grid: fixed sines and cosines, and resizing of learned tables."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Resize = Literal["bilinear", "bicubic", "crop", "legacy"]


def sincos(
    rows: int,
    columns: int,
    dim: int,
    device: torch.device | None = None,
    step: tuple[float, float] = (1.0, 1.0),
    first: Literal["row", "column"] = "row",
) -> Float[Tensor, "token dim"]:
    """Return 2-D sine-cosine positions: half of the channels encode the row, half the column.

    Only the absolute place counts, which is row and column times ``step``: any length works, and a
    longer grid gives the same vectors to the columns it shares with a shorter one. Frequencies as
    in Vaswani et al. 2017 (arXiv 1706.03762), section 3.5; two axes as in the published MAE (He et
    al. 2022, arXiv 2111.06377), whose code puts the column first.

    Args:
        rows: patches along frequency.
        columns: patches along time.
        dim: channels; a multiple of 4.
        device: where to compute them.
        step: distance of neighbouring rows and of neighbouring columns, in patches.
        first: what the first half of the channels encodes; "column" as in the published code of
            MAE, MaskSpec and M2D.
    """
    row = _waves(rows, dim // 2, step[0], device)[:, None].expand(-1, columns, -1)
    column = _waves(columns, dim // 2, step[1], device)[None].expand(rows, -1, -1)
    halves = [row, column]
    if first == "column":
        halves.reverse()
    return torch.cat(halves, dim=-1).flatten(0, 1)


def sequence(
    rows: int,
    columns: int,
    dim: int,
    device: torch.device | None = None,
    step: tuple[float, float] = (1.0, 1.0),
    height: int | None = None,
    interleaved: bool = False,
) -> Float[Tensor, "token dim"]:
    """Return 1-D sine-cosine positions of patches numbered column by column, low mels first.

    As in :func:`sincos`, only the absolute place counts. Source: the positions of MAE-AST (Baade et
    al. 2022, arXiv 2203.16691).

    Args:
        rows: patches along frequency.
        columns: patches along time.
        dim: channels; an even number.
        device: where to compute them.
        step: distance of neighbouring rows and of neighbouring columns, in patches.
        height: numbers that a column takes: the rows there would be without overlap; None:
            ``rows``.
        interleaved: whether sine and cosine take turns, as in the published code, instead of half
            of the channels each.
    """
    column = torch.arange(columns, device=device) * step[1] * (height or rows)
    place = torch.arange(rows, device=device)[:, None] * step[0] + column
    waves = _sines_and_cosines(place.flatten(), dim)
    if interleaved:
        # (sine, channel) -> (channel, sine)
        waves = waves.view(len(waves), 2, -1).transpose(1, 2).flatten(1)
    return waves


def _waves(count: int, dim: int, step: float, device: torch.device | None) -> Tensor:
    return _sines_and_cosines(torch.arange(count, device=device) * step, dim)


def _sines_and_cosines(
    place: Float[Tensor, " place"] | Int[Tensor, " place"], dim: int
) -> Float[Tensor, "place dim"]:
    """Return sine and cosine of each place at falling frequencies."""
    # Frequency k of K is 10000 ** (-k / K): wavelengths from 2 pi to nearly 10000 * 2 pi patches.
    rate = 10000.0 ** (-torch.arange(dim // 2, device=place.device) / (dim // 2))
    angle = place[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def resize(
    table: Float[Tensor, "token dim"], old: tuple[int, int], new: tuple[int, int], how: Resize
) -> Float[Tensor, "newtoken dim"]:
    """Return a learned position table, resized from grid ``old`` to grid ``new``.

    Args:
        table: one vector per patch, frequency-major.
        old: rows and columns the table has.
        new: rows and columns wanted.
        how: "bilinear" and "bicubic" stretch the whole table (half-pixel centres, no antialiasing);
            "crop" keeps the first rows and columns, so that a position keeps its patch index, and
            stretches an axis that grows; "legacy" is as published for fine-tuning SSAST and AST:
            the centre of an axis that shrinks, bilinear where it grows, time before frequency.

    *Differs:* the published code crops frequency at an offset computed from the number of columns,
    and raises if there are fewer rows than before; "legacy" here crops the centre rows, as
    evidently intended.
    """
    image = table.reshape(*old, -1).movedim(-1, 0)[None]
    if how in ("crop", "legacy"):
        image = _crop_or_stretch(image, 3, new[1], centre=how == "legacy")
        image = _crop_or_stretch(image, 2, new[0], centre=how == "legacy")
    else:
        image = _stretch(image, new, how)
    return image[0].movedim(0, -1).flatten(0, 1)


def _crop_or_stretch(image: Tensor, axis: int, size: int, centre: bool) -> Tensor:
    old = image.shape[axis]
    if size < old:
        start = old // 2 - size // 2 if centre else 0
        return image.narrow(axis, start, size)
    new_shape = [*image.shape[2:]]
    new_shape[axis - 2] = size
    return _stretch(image, (new_shape[0], new_shape[1]), "bilinear")


def _stretch(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return F.interpolate(image, size=size, mode=mode, align_corners=False)
