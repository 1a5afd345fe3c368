"""Masks: which patches of each clip are masked and which stay visible.

:class:`Masking` ranks the patches of a clip (:mod:`melpatch.nn.mask_samplers`) and masks the first
of the ranking. A clip's mask is the same alone, in a batch, and beside a longer clip.

>>> grid = PatchGrid(n_mels=128)  # patches of 16 x 16: 8 rows
>>> split = Masking(Masking.Config(ratio=0.75), grid)(clips=4, columns=32)
>>> split.masked.indices.shape, split.visible.indices.shape  # of 256 patches
(torch.Size([4, 192]), torch.Size([4, 64]))
>>> split.masked.as_mask(256)  # True at masked patches: (clip, token)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.nn import mask_samplers
from melpatch.nn.grid import PatchGrid
from melpatch.nn.mask_samplers import PADDING, Priority
from melpatch.rng import stream

_SAMPLERS_OF_LINES = {
    "time": mask_samplers.time,
    "frequency": mask_samplers.frequency,
    "time_legacy": mask_samplers.time_legacy,
    "frequency_legacy": mask_samplers.frequency_legacy,
}


class Subset(NamedTuple):
    """Some patches of each clip: their token numbers, and which entries are valid."""

    indices: Int[Tensor, "clip place"]
    """Token numbers, all different within a clip, even where ``valid`` is False."""
    valid: Bool[Tensor, "clip place"]

    def as_mask(self, tokens: int) -> Bool[Tensor, "clip token"]:
        """Return a mask over all ``tokens``: True at those of the subset."""
        mask = torch.zeros(len(self.indices), tokens, dtype=torch.bool, device=self.indices.device)
        return mask.scatter(1, self.indices, self.valid)

    def gather(self, values: Float[Tensor, "clip token dim"]) -> Float[Tensor, "clip place dim"]:
        """Return the values of the subset's tokens."""
        return values.gather(1, self.indices[..., None].expand(-1, -1, values.shape[-1]))

    def scatter(
        self, values: Float[Tensor, "clip place dim"], into: Float[Tensor, "clip token dim"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return ``into`` with values at the subset's tokens; the inverse of :meth:`gather`."""
        index = self.indices[..., None].expand_as(values)
        values = torch.where(self.valid[..., None], values, into.gather(1, index))
        return into.scatter(1, index, values)


class PatchSplit(NamedTuple):
    """The patches of each clip, split into masked and visible ones; padding is in neither."""

    masked: Subset
    """In the order of the ranking."""
    visible: Subset
    """In the order of the tokens."""


def join_splits(views: Sequence[PatchSplit]) -> PatchSplit:
    """Return the patches of several views of the same clips as one split, view after view."""
    masked = Subset(*map(torch.cat, zip(*[view.masked for view in views], strict=True)))
    visible = Subset(*map(torch.cat, zip(*[view.visible for view in views], strict=True)))
    return PatchSplit(masked, visible)


class Masking:
    """Masks a share of each clip's patches, and never all of them.

    Attributes:
        fields: flags that the user knows ``ratio`` and ``num_masked`` by, for error messages.
        window: patches of a clip that fills the window; set by :meth:`begin`. Until then (a picture
            of a loaded model, a mask used alone) it is the padded size of each batch.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the mask."""

        kind: Literal[
            "random",
            "cluster",
            "cluster_legacy",
            "block",
            "inverse_block",
            "inverse_block_legacy",
            "span",
            "time",
            "frequency",
            "time_legacy",
            "frequency_legacy",
        ] = "random"
        """What is masked: single patches; squares, also as the published SSAST draws them (without
        padding only); rectangles; all but squares, also as the published EAT draws them; spans in
        the order of time; whole columns or whole rows of patches, also what the published
        AudioMosaic takes for them."""
        ratio: float = 0.75
        """Share of a clip's patches that is masked, in (0, 1)."""
        num_masked: int | None = None
        """Masked patches of a clip that fills the window; shorter clips mask the same share.
        Overrides ratio."""
        sides: tuple[int, ...] | None = None
        """Sides of squares and rectangles, in patches; each is equally likely. None is 3, 4 and 5,
        and 5 alone for inverse_block and inverse_block_legacy."""
        surplus: float = 0.07
        """Share of a clip's patches that the squares of inverse_block_legacy hold beyond the visible
        ones, before they overlap and are cut off; 0.1 in the published large EAT."""
        span: int = 10
        """Length of a span, in patches."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(0 < self.ratio < 1, "ratio", self.ratio, "between 0 and 1, both excluded")
            positive = self.num_masked is None or self.num_masked > 0
            check(positive, "num_masked", self.num_masked, "1 or more")
            positive = self.sides is None or min(self.sides, default=0) > 0
            check(positive, "sides", self.sides, "one or more sides of 1 or more")
            in_range = 0 <= self.surplus < 1
            check(in_range, "surplus", self.surplus, "from 0 up to, not including, 1")
            check(self.span > 0, "span", self.span, "1 or more")

    def __init__(
        self,
        config: Config,
        grid: PatchGrid,
        fields: tuple[str, str] = ("objective.mask.ratio", "objective.mask.num_masked"),
    ) -> None:
        self.config = config
        self.grid = grid
        self.fields = fields
        self.window: int | None = None

    def begin(self, window_frames: int) -> None:
        """Note how many patches a clip has that fills the window, given its frames.

        Raises:
            ConfigError: :meth:`check_window` refuses the window.
        """
        self.check_window(window_frames)
        self.window = self.grid.count(window_frames)

    def check_window(self, window_frames: int) -> None:
        """Refuse a window in which this mask leaves no patch visible, or none masked.

        Raises:
            ConfigError: patches overlap, or too few or too many would be masked.
        """
        grid = self.grid
        config = self.config
        allowed = f"{grid.patch}; overlapping patches would show what is masked"
        check(grid.stride == grid.patch, "encoder.stride", grid.stride, allowed)
        window = grid.count(window_frames)
        patches = f"{window_frames} frames give {grid.rows} x {window // grid.rows} = {window}"
        most = window - 1
        # Its squares never hold patch 0, and have to cover more patches than are masked.
        if config.kind == "cluster_legacy":
            most = window - 3
        if most < 1:
            raise ConfigError(
                f"no patch of a segment can be masked while another stays visible, since {patches} "
                f"(mask kind {config.kind}); take longer segments (--seconds, longer clips) or "
                f"smaller patches than {grid.patch} (--encoder.patch)"
            )
        allowed = (
            f"1 to {most} masked patches, since {patches}; mask fewer, or take longer segments or "
            "smaller patches"
        )
        if config.num_masked is None:
            check(1 <= window * config.ratio <= most, self.fields[0], config.ratio, allowed)
        else:
            check(1 <= config.num_masked <= most, self.fields[1], config.num_masked, allowed)

    def least_columns(self, window_frames: int) -> int:
        """Return how many columns of patches a clip has at least of which a patch is masked.

        Args:
            window_frames: frames of a clip that fills the window, which :meth:`check_window`
                allows.
        """
        rows = self.grid.rows
        window = self.grid.count(window_frames)
        return next(own for own in count(1) if self.masked_of(rows * own, window) > 0)

    def masked_of(self, patches: int, window: int) -> int:
        """Return how many of a clip's patches are masked, see :func:`num_masked`."""
        return num_masked(patches, self.config.ratio, self.config.num_masked, window)

    def __call__(
        self,
        clips: int | Int[Tensor, " clip"],
        columns: int,
        valid: Bool[Tensor, "clip token"] | None = None,
        *,
        seed: int = 0,
        step: int = 0,
        purpose: str = "mask",
    ) -> PatchSplit:
        """Return the masked and the visible patches of each clip.

        The mask depends on (seed, purpose, key, step) and the clip's own number of columns alone.

        Args:
            clips: the clips' keys, or how many clips there are, which are then numbered from 0.
            columns: columns of patches in the batch, padding included.
            valid: False for padding; None if there is none.
            seed: the run's seed.
            step: the step of training.
            purpose: a name that distinguishes several masks of a clip.

        Raises:
            ConfigError: the kind is cluster_legacy, and clips are padded.
        """
        config = self.config
        rows = self.grid.rows
        allowed = (
            "another kind for padded clips, since it knows no padding; --short-clips repeat "
            "leaves none"
        )
        knows_padding = config.kind != "cluster_legacy" or valid is None
        flag = f"{self.fields[0].rpartition('.')[0]}.kind"
        check(knows_padding, flag, config.kind, allowed)
        if isinstance(clips, int):
            keys = torch.arange(clips, device=None if valid is None else valid.device)
        else:
            keys = clips
        if valid is None:
            own_columns = torch.full_like(keys, columns)
        else:
            own_columns = valid.view(-1, rows, columns)[:, 0].sum(dim=1)
        # Numbers of patches are looked up in a table that the CPU fills: exact, without float64 on
        # the device, and without waiting for the device to learn the largest one.
        window = self.window
        if window is None:
            window = rows * columns
        sizes = tuple(rows * own for own in range(columns + 1))
        table = _count_table(sizes, config.ratio, config.num_masked, window, keys.device)
        most = self.masked_of(rows * columns, window)
        states = stream(seed, purpose, keys, step)
        ties = stream(seed, f"{purpose} ties", keys, step)
        masked = table[own_columns]
        priority = self._rank(states, ties, own_columns, columns, masked, most)
        return split_patches(priority, masked, most)

    def _rank(
        self,
        states: Int[Tensor, " clip"],
        ties: Int[Tensor, " clip"],
        columns: Int[Tensor, " clip"],
        width: int,
        masked: Int[Tensor, " clip"],
        most: int,
    ) -> Priority:
        """Return the ranking of each clip's patches, of which ``masked`` are to be masked."""
        rows = self.grid.rows
        kind = self.config.kind
        sides = self.config.sides
        if sides is None:
            sides = (5,) if kind.startswith("inverse_block") else (3, 4, 5)
        clips = (states, ties, rows, columns, width)
        match kind:
            case "random":
                return mask_samplers.random(states, rows, columns, width)
            case "cluster":
                return mask_samplers.cluster(*clips, sides)
            case "cluster_legacy":
                return mask_samplers.cluster_legacy(states, rows, width, most, sides)
            case "block":
                return mask_samplers.block(*clips, sides)
            case "inverse_block":
                return mask_samplers.inverse_block(*clips, sides)
            case "inverse_block_legacy":
                sizes = tuple(rows * own for own in range(width + 1))
                surplus = _count_table(sizes, self.config.surplus, None, 1, columns.device)
                cover = rows * columns - masked + surplus[columns]
                return mask_samplers.inverse_block_legacy(*clips, sides, cover)
            case "span":
                return mask_samplers.span(*clips, self.config.span)
            case _:
                return _SAMPLERS_OF_LINES[kind](*clips)


def num_masked(patches: int, ratio: float, number: int | None, window: int) -> int:
    """Return how many of a clip's patches are masked: its share of them, and never all.

    Args:
        patches: the clip's patches, without padding.
        ratio: share to mask, used when ``number`` is None.
        number: patches to mask in a clip that fills the window; a shorter clip masks the same share
            of its own.
        window: patches of a clip that fills the window.
    """
    share = ratio
    if number is not None:
        share = number / window
    wanted = math.floor(patches * share + 1e-9)  # 1e-9: 400 / 512 * 512 must be 400
    return min(wanted, max(patches - 1, 0))


@lru_cache(maxsize=64)
def _count_table(
    sizes: tuple[int, ...], ratio: float, number: int | None, window: int, device: torch.device
) -> Int[Tensor, " size"]:
    """Return :func:`num_masked` for each size, on the device."""
    with torch.inference_mode(False):
        counts = [num_masked(size, ratio, number, window) for size in sizes]
        return torch.tensor(counts, dtype=torch.int64, device=device)


def first_patches(priority: Priority, counts: Int[Tensor, " clip"], most: int) -> Subset:
    """Return the ``counts`` first patches of each clip's ranking.

    There is always one place, if need be an invalid one, so that losses never meet an empty axis.

    Args:
        priority: the ranking.
        counts: how many patches to take of each clip.
        most: the largest of the counts, known without waiting for the device.
    """
    indices = priority.argsort(dim=1, stable=True)[:, : max(most, 1)]
    place = torch.arange(indices.shape[1], device=indices.device)
    return Subset(indices, place < counts[:, None])


def split_patches(priority: Priority, counts: Int[Tensor, " clip"], most: int) -> PatchSplit:
    """Return the ``counts`` first patches of each clip's ranking, and the other real ones.

    Args:
        priority: the ranking.
        counts: masked patches of each clip, by :func:`num_masked`.
        most: the same of a clip without padding.
    """
    tokens = priority.shape[1]
    masked = first_patches(priority, counts, most)
    is_visible = (priority != PADDING) & ~masked.as_mask(tokens)
    order = torch.arange(tokens, device=priority.device).masked_fill(~is_visible, PADDING)
    # No clip has more visible patches than one without padding: with one patch more, at most one
    # more is masked, since the share is at most 1; where it is larger, the cap of num_masked
    # alone decides, and leaves one patch visible.
    visible = first_patches(order, is_visible.sum(dim=1), tokens - most)
    return PatchSplit(masked, visible)
