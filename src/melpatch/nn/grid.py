"""Geometry of spectrogram patches: how many there are, cutting them out and joining them again."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check


class Places(NamedTuple):
    """Where tokens lie in a grid."""

    numbers: Int[Tensor, "clip token"]
    """Numbers of the tokens in the grid, see :class:`PatchGrid`."""
    columns: int
    """Columns of the grid."""

    def in_time(self, rows: int) -> Int[Tensor, "clip token"]:
        """Return the numbers counted column by column, which do not depend on the grid's length."""
        row = self.numbers // self.columns
        column = self.numbers % self.columns
        return column * rows + row


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """The grid of patches that covers a log-mel spectrogram of any length.

    >>> grid = PatchGrid()  # 128 mels, patches of 16 x 16 without overlap
    >>> grid.rows, grid.columns(1000), grid.count(1000)
    (8, 63, 504)
    >>> spectrogram = torch.arange(2 * 128 * 100.0).view(2, 128, 100)  # (clip, mel, frame)
    >>> patches = grid.split(spectrogram)
    >>> patches.shape, torch.equal(grid.join(patches, 100), spectrogram)
    (torch.Size([2, 56, 256]), True)

    Tokens are numbered frequency-major, ``index = row * columns + column``, and row 0 holds the
    lowest mels. The pixels of a patch are row-major, (mel, frame). Both as in the published SSAST
    and in ``torch.nn.functional.unfold``.

    Raises:
        ConfigError: a field is out of range, or partial is "drop" and there are fewer mels than one
            patch has.
    """

    n_mels: int = 128
    """Mel bins of the spectrogram."""
    patch: tuple[int, int] = (16, 16)
    """Patch size (mels, frames)."""
    stride: tuple[int, int] = (16, 16)
    """Distance between the starts of neighbouring patches (mels, frames); smaller than the patch,
    they overlap."""
    partial: Literal["pad", "drop"] = "pad"
    """Bins and frames left over at the end: "pad" completes their patch with zeros, "drop" ignores
    them (published), except that a spectrogram shorter than one patch is completed."""

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
        """Return the number of patches along time for this many frames; at least 1."""
        return max(1, self._number(frames, 1))

    def count(self, frames: int) -> int:
        """Return the number of patches in a spectrogram of this many frames."""
        return self.rows * self.columns(frames)

    def valid(self, frames: Int[Tensor, " clip"], columns: int) -> Bool[Tensor, "clip token"]:
        """Return which tokens are valid, not padding, given the number of frames of each clip.

        A clip's valid columns are those it would have alone, so they do not depend on the batch. A
        clip shorter than one patch has one column, even with "drop".

        Args:
            frames: number of frames of each clip.
            columns: columns of the batch's grid.
        """
        own = self._number(frames, 1).clamp(min=1)
        valid = torch.arange(columns, device=frames.device) < own[:, None]
        return valid[:, None].expand(-1, self.rows, -1).flatten(1)

    def pad(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip paddedmel paddedframe"]:
        """Return the spectrogram padded with zeros, or cut ("drop"), to whole patches."""
        n_mels, frames = spectrogram.shape[1:]
        check(n_mels == self.n_mels, "n_mels", n_mels, f"{self.n_mels}, the mels of this grid")
        height, width = self._extent(self.columns(frames))
        if _is_symbol(frames):
            # A graph for any length pads and cuts in one operation.
            return F.pad(spectrogram, (0, width - frames, 0, height - n_mels))
        # Otherwise no padding is negative, which runtimes such as ExecuTorch do not have.
        cut = spectrogram[:, :height, :width]
        return F.pad(cut, (0, max(0, width - frames), 0, max(0, height - n_mels)))

    def split(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token pixel"]:
        """Return the patches of a spectrogram; frames past a clip's end should be 0."""
        padded = self.pad(spectrogram)
        rows = padded.unfold(1, self.patch[0], self.stride[0])
        patches = rows.unfold(2, self.patch[1], self.stride[1])
        return patches.flatten(3).flatten(1, 2)

    def statistics(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token _"]:
        """Return mean and deviation over time of each mel bin of a patch, the means first.

        Completed patches count with the zeros that complete them, as an encoder sees them.
        """
        patches = self.split(spectrogram)
        pixels = patches.view(*patches.shape[:2], *self.patch)
        mean = pixels.mean(dim=3)
        deviation = (pixels - mean[..., None]).square().mean(dim=3).sqrt()
        return torch.cat([mean, deviation], dim=2)

    def join(
        self, patches: Float[Tensor, "clip token pixel"], frames: int
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrogram that patches make up; the inverse of :meth:`split`.

        Overlapping pixels are averaged; pixels that no patch covers are 0.
        """
        height, width = self._extent(self.columns(frames))
        geometry = {"output_size": (height, width), "kernel_size": self.patch}
        # Overlapping pixels are summed, then divided by the number of patches that cover them.
        summed = F.fold(patches.transpose(1, 2), **geometry, stride=self.stride)[:, 0]
        ones = torch.ones_like(patches[:1]).transpose(1, 2)
        covering = F.fold(ones, **geometry, stride=self.stride)[:, 0]
        return F.pad(summed / covering, (0, frames - width, 0, self.n_mels - height))

    def _extent(self, columns: int) -> tuple[int, int]:
        """Return the mels and frames that whole patches span."""
        height = (self.rows - 1) * self.stride[0] + self.patch[0]
        width = (columns - 1) * self.stride[1] + self.patch[1]
        return height, width

    @overload
    def _number(self, size: int, axis: int) -> int: ...
    @overload
    def _number(self, size: Tensor, axis: int) -> Tensor: ...
    def _number(self, size: int | Tensor, axis: int) -> int | Tensor:
        """Return the patches along an axis; below 1 if the axis is shorter than a patch."""
        rest = size - self.patch[axis]
        if self.partial == "pad":
            # Division rounded up: the last patch may be incomplete. Nothing negative is divided,
            # which ONNX would round towards zero.
            return 1 + (rest + self.stride[axis] - 1) // self.stride[axis]
        return 1 + rest // self.stride[axis]


def _is_symbol(size: Any) -> bool:
    """Return whether a size is not known yet, in a graph that is recorded for any length."""
    return isinstance(size, torch.SymInt)
