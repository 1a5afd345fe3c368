"""Which patches are hidden: :class:`Masking` ranks those of each clip (:mod:`melpatch.nn.mask_samplers`), hides the
first of the ranking, and shows the others.

A clip's mask is the same alone, in a batch, and beside a longer clip.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check
from melpatch.nn import mask_samplers
from melpatch.nn.grid import PatchGrid
from melpatch.nn.mask_samplers import Priority
from melpatch.rng import stream


class Subset(NamedTuple):
    """Some patches of each clip: token numbers, and which of them count (clips may have different numbers)."""

    indices: Int[Tensor, "clip place"]
    """Never the same one twice in a clip, not even where ``valid`` is False."""
    valid: Bool[Tensor, "clip place"]

    def as_mask(self, tokens: int) -> Bool[Tensor, "clip token"]:
        """Return True at every token of the subset."""
        empty = torch.zeros(len(self.indices), tokens, dtype=torch.bool, device=self.indices.device)
        return empty.scatter(1, self.indices, self.valid)

    def gather(self, values: Float[Tensor, "clip token dim"]) -> Float[Tensor, "clip place dim"]:
        """Return the values of the subset's tokens."""
        return values.gather(1, self.indices[..., None].expand(-1, -1, values.shape[-1]))

    def scatter(
        self, values: Float[Tensor, "clip place dim"], into: Float[Tensor, "clip token dim"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return ``into`` with these values at the subset's tokens; the inverse of :meth:`gather`."""
        index = self.indices[..., None].expand_as(values)
        return into.scatter(
            1, index, torch.where(self.valid[..., None], values, into.gather(1, index))
        )


class PatchSplit(NamedTuple):
    """The real patches of a batch in two parts; padding is in neither."""

    masked: Subset
    """In the order of the ranking."""
    visible: Subset
    """In the order of the tokens."""


class Masking:
    """Hides a share of each clip's own patches, and never all of them.

    Attributes:
        fields: what the user calls ``ratio`` and ``number``, for errors.
        window: patches of a clip that fills the window; known after :meth:`begin`. Until then, as in pictures of a
            model that is not in training, it is what each batch is padded to.
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
            "span",
            "time",
            "frequency",
        ] = "random"
        """What is hidden: single patches; squares, also as the published SSAST draws them (without padding only);
        rectangles; all but squares; spans in the order of time; whole columns or whole rows of patches."""
        ratio: float = 0.75
        """Share of a clip's patches that is hidden, in (0, 1)."""
        num_masked: int | None = None
        """Patches hidden in a clip that fills the window; shorter clips hide the same share. Overrides ratio."""
        sides: tuple[int, ...] | None = None
        """Sides of squares and rectangles, in patches; each is equally likely. None is 3, 4 and 5, and 5 alone for
        inverse_block."""
        span: int = 10
        """Length of a span, in patches."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(0 < self.ratio < 1, "ratio", self.ratio, "between 0 and 1, both excluded")
            check(
                self.num_masked is None or self.num_masked > 0,
                "num_masked",
                self.num_masked,
                "1 or more",
            )
            sides = (1,) if self.sides is None else self.sides
            check(min(sides, default=0) > 0, "sides", self.sides, "one or more sides of 1 or more")
            check(self.span > 0, "span", self.span, "1 or more")

    def __init__(
        self,
        config: Config,
        grid: PatchGrid,
        fields: tuple[str, str] = ("objective.mask.ratio", "objective.mask.num_masked"),
    ) -> None:
        self.config, self.grid, self.fields = config, grid, fields
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
        grid, config = self.grid, self.config
        check(
            grid.stride == grid.patch,
            "encoder.stride",
            grid.stride,
            f"{grid.patch}; overlaps tell what is hidden",
        )
        window = grid.count(window_frames)
        most = window - (3 if config.kind == "cluster_legacy" else 1)
        field, value, wanted = self.fields[0], config.ratio, window * config.ratio
        if config.num_masked is not None:
            field, value, wanted = self.fields[1], config.num_masked, config.num_masked
        check(
            1 <= wanted <= most,
            field,
            value,
            f"1 to {most} hidden patches, since {window_frames} frames give {grid.rows} x {window // grid.rows} = "
            f"{window}; hide fewer, or take longer segments or smaller patches",
        )

    def __call__(
        self,
        keys: Int[Tensor, " clip"],
        valid: Bool[Tensor, "clip token"] | None,
        width: int,
        *,
        seed: int,
        step: int,
        purpose: str = "mask",
    ) -> PatchSplit:
        """Return which patches of each clip are hidden, and which are not.

        What is hidden depends on (seed, purpose, key, step) and the clip's own columns alone.

        Args:
            keys: the clips' keys.
            valid: False for padding; None where there is none.
            width: columns of the batch, padding included.
            seed: the run's seed.
            step: the step of training.
            purpose: tells several masks of a clip apart.
        """
        rows, config = self.grid.rows, self.config
        allowed = "another one where clips are padded, since it knows no padding; --short-clips repeat leaves none"
        check(
            config.kind != "cluster_legacy" or valid is None,
            "objective.mask.kind",
            config.kind,
            allowed,
        )
        columns = (
            torch.full_like(keys, width)
            if valid is None
            else valid.view(-1, rows, width)[:, 0].sum(dim=1)
        )
        window = self.window if self.window is not None else rows * width
        counts, full = (
            num_masked(patches, ratio=config.ratio, number=config.num_masked, window=window)
            for patches in (columns * rows, torch.tensor([rows * width]))
        )
        most = int(full)  # lies on the CPU: nothing waits for the device
        states, ties = (
            stream(seed, purpose, keys, step),
            stream(seed, f"{purpose} ties", keys, step),
        )
        return split_patches(self._rank(states, ties, columns, width, most), counts, most)

    def _rank(
        self,
        states: Int[Tensor, " clip"],
        ties: Int[Tensor, " clip"],
        columns: Int[Tensor, " clip"],
        width: int,
        most: int,
    ) -> Priority:
        """Return the ranking of each clip's patches."""
        rows, kind = self.grid.rows, self.config.kind
        sides = self.config.sides or ((5,) if kind == "inverse_block" else (3, 4, 5))
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
            case "span":
                return mask_samplers.span(*clips, self.config.span)
            case "time":
                return mask_samplers.time(*clips)
            case "frequency":
                return mask_samplers.frequency(*clips)


def num_masked(
    patches: Int[Tensor, " clip"], *, ratio: float, number: int | None, window: int
) -> Int[Tensor, " clip"]:
    """Return how many patches each clip hides: its share of its own patches, and never all of them.

    Args:
        patches: real patches per clip.
        ratio: share to hide, used when ``number`` is None.
        number: patches to hide in a clip that fills the window; a shorter clip hides the same share of its own.
        window: patches of a clip that fills the window.
    """
    share = ratio if number is None else number / window
    wanted = torch.floor(
        patches.double() * share + 1e-9
    ).long()  # 1e-9: 400 / 512 * 512 is to be 400
    return torch.minimum(wanted, (patches - 1).clamp(min=0))


def first_patches(priority: Priority, counts: Int[Tensor, " clip"], most: int) -> Subset:
    """Return the ``counts`` first patches of each clip's ranking; ``most`` is the largest count, known without a look.

    There is always one place, if need be an invalid one, so that losses never meet an empty axis.
    """
    index = priority.argsort(dim=1, stable=True)[:, : max(most, 1)]
    return Subset(index, torch.arange(index.shape[1], device=index.device) < counts[:, None])


def split_patches(priority: Priority, counts: Int[Tensor, " clip"], most: int) -> PatchSplit:
    """Return the ``counts`` first patches of each clip's ranking, and the other real ones.

    Args:
        priority: the ranking.
        counts: hidden patches, as :func:`num_masked` says.
        most: what it says of a clip without padding.
    """
    hidden, tokens = first_patches(priority, counts, most), priority.shape[1]
    shown = priority.isfinite() & ~hidden.as_mask(tokens)
    order = torch.arange(tokens, device=priority.device, dtype=priority.dtype).masked_fill(
        ~shown, torch.inf
    )
    # No clip shows more than one without padding does, since of one patch more at most one more is hidden: a share up
    # to 1 hides at most one more, and so does num_masked()'s cap, which decides alone where the share is larger.
    return PatchSplit(hidden, first_patches(order, shown.sum(dim=1), tokens - most))
