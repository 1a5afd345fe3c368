"""All geometry of spectrogram patches: how many there are, where they lie, cutting them out and laying them back."""

from dataclasses import dataclass
from typing import Literal, overload

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """The grid of patches that covers a log-mel spectrogram of any length.

    Tokens are numbered frequency-major, ``index = row * columns + column``, and row 0 holds the lowest mels. The pixels
    of a patch are row-major, (mel, frame). Both as in the published SSAST and in ``torch.nn.functional.unfold``.

    Raises:
        ConfigError: a field is out of range; with "drop", also where there are fewer mels than one patch has.
    """

    n_mels: int
    """Mel bins of the spectrogram."""
    patch: tuple[int, int] = (16, 16)
    """Patch size (mels, frames)."""
    stride: tuple[int, int] = (16, 16)
    """Distance between the starts of neighbouring patches (mels, frames); smaller than the patch, they overlap."""
    partial: Literal["pad", "drop"] = "pad"
    """Bins and frames left over at the end: "pad" completes their patch with zeros, "drop" ignores them (published),
    but completes a spectrogram that is shorter than one patch."""

    def __post_init__(self) -> None:
        check(min(self.patch) >= 1, "patch", self.patch, "two sizes (mels, frames) of 1 or more")
        check(self.n_mels >= 1, "n_mels", self.n_mels, "1 or more")
        fits = all(1 <= step <= size for step, size in zip(self.stride, self.patch, strict=True))
        check(
            fits,
            "stride",
            self.stride,
            f"from 1 to the patch size {self.patch} on each axis, so that patches leave no gaps",
        )
        check(self.partial in ("pad", "drop"), "partial", self.partial, "'pad' or 'drop'")
        whole = self.partial == "pad" or self.n_mels >= self.patch[0]
        check(
            whole,
            "n_mels",
            self.n_mels,
            f"the patch height {self.patch[0]} or more, or partial = 'pad'",
        )

    @property
    def rows(self) -> int:
        """Patches along frequency."""
        return max(1, self._number(self.n_mels, 0))

    @property
    def pixels(self) -> int:
        """Values in one patch."""
        return self.patch[0] * self.patch[1]

    def columns(self, frames: int) -> int:
        """Return the number of patches along time in a spectrogram of so many frames: at least one."""
        return max(1, self._number(frames, 1))

    def count(self, frames: int) -> int:
        """Return the number of patches in a spectrogram of so many frames."""
        return self.rows * self.columns(frames)

    def valid(self, frames: Int[Tensor, " clip"], columns: int) -> Bool[Tensor, "clip token"]:
        """Return which tokens of a grid with so many columns hold sound of the clip, given each clip's own frames.

        A clip's valid columns are those it would have alone, so they do not depend on the batch. A clip shorter than
        one patch has one column, with "drop" too.
        """
        own = self._number(frames, 1).clamp(min=1)
        valid = torch.arange(columns, device=frames.device) < own[:, None]
        return valid[:, None].expand(-1, self.rows, -1).flatten(1)

    def pad(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip paddedmel paddedframe"]:
        """Return the spectrogram extended with zeros at the end of both axes, or with "drop" cut, to whole patches."""
        _, n_mels, frames = spectrogram.shape
        check(
            n_mels == self.n_mels, "n_mels", n_mels, f"{self.n_mels}, for which this grid was made"
        )
        height, width = self._extent(self.columns(frames))
        return F.pad(spectrogram, (0, width - frames, 0, height - n_mels))

    def split(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token pixel"]:
        """Return the patches of a spectrogram, one row of pixels each. Frames past a clip's own end should be 0."""
        padded = self.pad(spectrogram)
        patches = padded.unfold(1, self.patch[0], self.stride[0]).unfold(
            2, self.patch[1], self.stride[1]
        )
        return patches.reshape(len(padded), patches.shape[1] * patches.shape[2], self.pixels)

    def join(
        self, patches: Float[Tensor, "clip token pixel"], frames: int
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrogram of so many frames that these patches make up; the inverse of :meth:`split`.

        Overlapping pixels are averaged; pixels that no patch covers are 0.
        """
        height, width = self._extent(self.columns(frames))
        lay = {"output_size": (height, width), "kernel_size": self.patch, "stride": self.stride}
        summed = F.fold(patches.transpose(1, 2), **lay)[:, 0]
        times = F.fold(torch.ones_like(patches[:1]).transpose(1, 2), **lay)[:, 0]
        return F.pad(summed / times, (0, frames - width, 0, self.n_mels - height))

    def _extent(self, columns: int) -> tuple[int, int]:
        """Mels and frames that whole patches span."""
        counts = (self.rows, columns)
        height, width = (
            (n - 1) * step + size
            for n, step, size in zip(counts, self.stride, self.patch, strict=True)
        )
        return height, width

    @overload
    def _number(self, size: int, axis: int) -> int: ...
    @overload
    def _number(self, size: Tensor, axis: int) -> Tensor: ...
    def _number(self, size: int | Tensor, axis: int) -> int | Tensor:
        """Patches along an axis; less than 1 where the axis is shorter than the patch."""
        left = size - self.patch[axis]
        return 1 + (
            -(-left // self.stride[axis]) if self.partial == "pad" else left // self.stride[axis]
        )
