"""Pool the tokens of a clip into one vector: statistics over time, spelled like ``rows+mean+std``.

A pooling is spelled as parts joined by ``+``, in any order:

- statistics over time, side by side: ``mean``; ``std``, the deviation; ``delta``, the mean absolute
  difference of neighbouring columns; ``max``; and ``cls``, the mean of the class tokens. Without
  any of them it is the mean.
- ``rows`` takes the statistics of each frequency row, rows side by side, which keeps pitch. Without
  it the rows of a column are averaged first (for ``max``, the largest is taken).
- ``segments=2`` cuts a clip into segments of equal length and takes the statistics of each.
- ``layers=4,8,12`` takes the outputs of these layers side by side, counted from 1, before the final
  norm; ``normed-layers=4,8,12`` passes each through the final norm; ``layer-mean=4,8,12`` takes
  their average. ``all`` stands for all layers.
- ``input`` puts beside each token what it was made of: mean and deviation over time of every mel bin
  of its patch, so that a vector never holds less than statistics of the spectrogram.

``frequency`` is another name for ``rows+mean``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.config import check
from melpatch.nn.masked import at_least_float32
from melpatch.nn.summaries import STATISTICS, Statistic, fields_of, statistic, summarise

TOKEN_POOLING = "rows+mean+std+delta"
"""The pooling of heads that start at random and of comparisons in training: of tokens alone."""
DEFAULT_POOLING = f"{TOKEN_POOLING}+input"
"""The pooling of embeddings and probes, unless another is asked for."""

ALL_LAYERS = (0,)
"""The layers of a pooling that takes all of an encoder's, which are counted from 1."""

_SPELLING = (
    "mean, std, delta, max, cls, rows (or frequency), input, segments=N, layers=A,B, normed-layers=A,B and "
    "layer-mean=A,B, "
    "joined by + as in 'rows+mean+std'"
)
_LAYERS = ("layers", "normed-layers", "layer-mean")
_MOST_SEGMENTS = 64

LayerOutputs = bool | Literal["normed"]
"""Which outputs of layers an encoder returns: none, those before its final norm, or after it."""


@dataclass(frozen=True)
class Pooling:
    """How tokens become one vector; the head of the file says how it is spelled.

    The numbers of a vector are ordered by segment, statistic, row, layer and channel, the first
    changing slowest; those of the class tokens follow, ordered by layer and channel.

    >>> str(Pooling.parse("std+mean+frequency"))
    'rows+mean+std'
    """

    statistics: tuple[Statistic, ...] = ("mean",)
    """Statistics over time, in the order of :data:`melpatch.nn.summaries.STATISTICS`."""
    takes_cls: bool = False
    """Whether the mean of the class tokens follows."""
    rows: bool = False
    """Whether frequency rows stay side by side."""
    segments: int = 1
    """Parts of equal length whose statistics stay side by side."""
    layers: tuple[int, ...] = ()
    """Layers whose outputs are taken, counted from 1; empty for the tokens after the final norm."""
    average_layers: bool = False
    """Whether these layers are averaged instead of put side by side."""
    normed: bool = False
    """Whether these layers pass through the encoder's final norm, where it has one."""
    takes_input: bool = False
    """Whether the statistics of its patch stand beside each token, see
    :meth:`melpatch.nn.grid.PatchGrid.statistics`."""

    @classmethod
    def parse(cls, text: Any) -> "Pooling":
        """Return the pooling that a text spells.

        Raises:
            ConfigError: it spells none.
        """
        check(isinstance(text, str), "pooling", text, _SPELLING)
        return _parse(text)

    @property
    def layer_outputs(self) -> LayerOutputs:
        """What an encoder has to return besides its tokens."""
        return "normed" if self.normed else bool(self.layers)

    def require(self, num_layers: int, cls_tokens: int) -> None:
        """Raise ConfigError unless an encoder has what is pooled.

        Args:
            num_layers: its layers.
            cls_tokens: its class tokens.
        """
        fits = max(self.layers, default=0) <= num_layers
        check(fits, "pooling", str(self), f"layers from 1 to {num_layers}, those of this encoder")
        fits = cls_tokens > 0 or not self.takes_cls
        allowed = "mean, std, delta and max, since this encoder has no class token"
        check(fits, "pooling", str(self), allowed)

    def token_dim(self, embed_dim: int, num_layers: int) -> int:
        """Return the channels of the tokens that are pooled, without those of the input.

        Args:
            embed_dim: channels of a token, the same in all layers.
            num_layers: layers of the encoder.
        """
        if not self.layers or self.average_layers:
            return embed_dim
        return embed_dim * (num_layers if self.layers == ALL_LAYERS else len(self.layers))

    def finish(self, vector: Float[Tensor, "*clip number"]) -> Float[Tensor, "*clip out"]:
        """Return what becomes of a pooled vector: of most poolings the vector itself."""
        return vector

    def __str__(self) -> str:
        """Return the spelling, which is the same for equal poolings."""
        parts = ["rows"] if self.rows else []
        parts.extend(self.statistics)
        if self.takes_cls:
            parts.append("cls")
        if self.takes_input:
            parts.append("input")
        if self.segments > 1:
            parts.append(f"segments={self.segments}")
        if self.layers:
            name = "layer-mean" if self.average_layers else "layers"
            if self.normed:
                name = "normed-layers"
            numbers = "all" if self.layers == ALL_LAYERS else ",".join(map(str, self.layers))
            parts.append(f"{name}={numbers}")
        return "+".join(parts)


def pool(
    patches: Float[Tensor, "clip token dim"],
    cls: Float[Tensor, "clip cls dim"],
    valid: Bool[Tensor, "clip token"] | None,
    rows: int,
    how: str | Pooling,
) -> Float[Tensor, "clip out"]:
    """Return one vector per clip, in float32, or float64 where the tokens are.

    Args:
        patches: tokens of a grid with ``rows`` frequency rows, numbered frequency-major, with the
            channels of several layers side by side.
        cls: class tokens, if any.
        valid: False for padding, None if there is none.
        rows: frequency rows of the grid.
        how: a pooling or its spelling.

    Raises:
        ConfigError: there is no such pooling, or it needs class tokens where there are none.
    """
    pooler = Pooler(as_pooling(how), rows)
    pooler.pooling.require(max(pooler.pooling.layers, default=0), cls.shape[1])
    columns, weight = pooler.columns(patches, cls, valid)
    whole = summarise(columns, weight, pooler.fields)
    if pooler.pooling.segments == 1:
        return pooler.vector(whole, [whole])
    segments = [
        summarise(columns, inside, pooler.fields)
        for inside in _segment_weights(columns, weight, pooler.pooling.segments)
    ]
    return pooler.vector(whole, segments)


def pooled_dim(token_dim: int, rows: int, how: str | Pooling) -> int:
    """Return the length of the vector that :func:`pool` returns.

    Args:
        token_dim: channels of a token, see :meth:`Pooling.token_dim`.
        rows: frequency rows of the grid.
        how: a pooling or its spelling.
    """
    pooling = as_pooling(how)
    per_statistic = token_dim * rows if pooling.rows else token_dim
    over_time = pooling.segments * len(pooling.statistics) * per_statistic
    return over_time + token_dim * pooling.takes_cls


class Pooler:
    """A pooling on a grid: from tokens to columns, and from summaries of columns to vectors.

    Attributes:
        pooling: the pooling.
        rows: frequency rows of the grid.
        fields: what summaries of columns hold, see :mod:`melpatch.nn.summaries`.
    """

    def __init__(self, pooling: Pooling, rows: int) -> None:
        self.pooling = pooling
        self.rows = rows
        self.fields = fields_of(pooling.statistics)
        # The largest value of a column is not that of its mean: it needs channels of its own.
        self._with_peaks = "max" in pooling.statistics and not pooling.rows

    def columns(
        self,
        patches: Float[Tensor, "clip token dim"],
        cls: Float[Tensor, "clip cls dim"],
        valid: Bool[Tensor, "clip token"] | None,
    ) -> tuple[Float[Tensor, "clip column channel"], Float[Tensor, "clip column _"] | None]:
        """Return the channels that are summarised of each column, and their weights.

        Weights, None if all are equal, have one channel where all channels share it. The class
        tokens stand in every column, so that recordings of several windows have their mean.
        """
        # (clip, row * column, dim) -> (clip, column, row, dim)
        shape = (patches.shape[0], self.rows, patches.shape[1] // self.rows)
        grid = at_least_float32(patches).reshape(*shape, patches.shape[2]).transpose(1, 2)
        inside = None
        if valid is not None:
            inside = valid.reshape(shape).transpose(1, 2)
        channels: list[Tensor] = []
        by_row: Tensor | None = None
        if self.pooling.statistics and self.pooling.rows:
            channels.append(grid.flatten(2))
            if inside is not None:
                by_row = inside.repeat_interleave(grid.shape[3], dim=2).to(grid.dtype)
        elif self.pooling.statistics:
            channels.append(_mean_over_rows(grid, inside))
        if self._with_peaks:
            channels.append(_peak_over_rows(grid, inside))
        if self.pooling.takes_cls:
            mean = at_least_float32(cls).mean(dim=1, keepdim=True)
            channels.append(mean.expand(-1, grid.shape[1], -1))
        together = torch.cat(channels, dim=2)
        if inside is None:
            return together, None
        # The mean over all tokens of a clip weights a column by the share of its rows that is
        # valid.
        weight = inside.to(together.dtype).mean(dim=2, keepdim=True)
        if by_row is not None:
            rest = together.shape[2] - by_row.shape[2]
            weight = torch.cat([by_row, weight.expand(-1, -1, rest)], dim=2)
        return together, weight

    def vector(
        self,
        whole: Float[Tensor, "*clip field channel"],
        segments: list[Float[Tensor, "*clip field channel"]],
    ) -> Float[Tensor, "*clip out"]:
        """Return the vector of a clip.

        Args:
            whole: summary of all its columns.
            segments: summaries of its segments; the whole where there is one.
        """
        # Channels of a summary: the rows' or the token's, then the peaks', then the class tokens'.
        groups = self.rows if self.pooling.rows else 1
        groups *= bool(self.pooling.statistics)
        dim = whole.shape[-1] // (groups + self._with_peaks + self.pooling.takes_cls)
        base = groups * dim
        parts: list[Tensor] = []
        for summary in segments:
            for name in self.pooling.statistics:
                own = summary[..., :base]
                if name == "max" and self._with_peaks:
                    own = summary[..., base : 2 * base]
                parts.append(statistic(name, own, self.fields))
        if self.pooling.takes_cls:
            parts.append(statistic("mean", whole[..., -dim:], self.fields))
        return self.pooling.finish(torch.cat(parts, dim=-1))


def segment_bounds(steps: int, segments: int) -> list[tuple[int, int]]:
    """Return where segments of equal length begin and end, as in adaptive average pooling.

    Neighbours share a step where the edge falls into it, so that none is empty.
    """
    return [
        (number * steps // segments, ((number + 1) * steps + segments - 1) // segments)
        for number in range(segments)
    ]


def require_final_tokens(how: str | Pooling) -> None:
    """Raise a ConfigError if a pooling takes more than final tokens, which training does not keep."""
    pooling = as_pooling(how)
    fits = not pooling.layers and not pooling.takes_input
    check(fits, "pooling", str(how), "no layers and no input, which training does not keep")


def as_pooling(how: str | Pooling) -> Pooling:
    """Return a pooling that may be given by its spelling."""
    return how if isinstance(how, Pooling) else Pooling.parse(how)


def _mean_over_rows(
    grid: Float[Tensor, "clip column row dim"], inside: Bool[Tensor, "clip column row"] | None
) -> Float[Tensor, "clip column dim"]:
    if inside is None:
        return grid.mean(dim=2)
    kept = grid * inside[..., None]
    return kept.sum(dim=2) / inside.sum(dim=2).clamp(min=1)[..., None]


def _peak_over_rows(
    grid: Float[Tensor, "clip column row dim"], inside: Bool[Tensor, "clip column row"] | None
) -> Float[Tensor, "clip column dim"]:
    if inside is None:
        return grid.amax(dim=2)
    peak = grid.masked_fill(~inside[..., None], -torch.inf).amax(dim=2)
    # Columns of padding weigh nothing, but infinity times nothing would be no number.
    return peak.masked_fill(~inside.any(dim=2)[..., None], 0.0)


def _segment_weights(
    columns: Float[Tensor, "clip column channel"],
    weight: Float[Tensor, "clip column _"] | None,
    segments: int,
) -> Iterator[Float[Tensor, "clip column _"]]:
    """Yield the weights of the columns in each segment of :func:`segment_bounds`."""
    if weight is None:
        weight = columns.new_ones(*columns.shape[:2], 1)
    step = torch.arange(columns.shape[1], device=columns.device)
    present = (weight > 0).any(dim=2)
    # A clip ends after its last column that is no padding: (clip, 1).
    steps = (step + 1).where(present, 0).amax(dim=1, keepdim=True)
    for number in range(segments):
        begin = number * steps // segments
        end = -((number + 1) * steps // -segments)
        inside = (step >= begin) & (step < end)
        yield weight * inside[..., None]


@lru_cache(maxsize=256)
def _parse(text: str) -> Pooling:
    names: list[str] = []
    settings: dict[str, str] = {}
    for part in text.split("+"):
        name, equals, value = part.partition("=")
        allowed = (*STATISTICS, "cls", "rows", "frequency", "input")
        if equals:
            allowed = ("segments", *_LAYERS)
        check(name in allowed, "pooling", text, _SPELLING)
        once = name not in names and name not in settings
        check(once, "pooling", text, "each part once")
        if equals:
            settings[name] = value
        else:
            names.append(name)
    chosen = [settings[name] for name in _LAYERS if name in settings]
    check(len(chosen) < 2, "pooling", text, f"one of {', '.join(_LAYERS)}")
    if "frequency" in names:
        names.extend(("rows", "mean"))
    rows = "rows" in names
    statistics = tuple(name for name in STATISTICS if name in names)
    takes_cls = "cls" in names
    takes_input = "input" in names
    check(
        not (takes_cls and takes_input), "pooling", text, "cls or input: a class token has no patch"
    )
    if not statistics and (rows or "segments" in settings or not takes_cls):
        statistics = ("mean",)
    return Pooling(
        statistics=statistics,
        takes_cls=takes_cls,
        rows=rows,
        segments=_segments(text, settings.get("segments", "1")),
        layers=_layers(text, chosen[0]) if chosen else (),
        average_layers="layer-mean" in settings,
        normed="normed-layers" in settings,
        takes_input=takes_input,
    )


def _segments(text: str, value: str) -> int:
    fits = value.isdecimal() and 1 <= int(value[:4]) <= _MOST_SEGMENTS
    check(fits, "pooling", text, f"1 to {_MOST_SEGMENTS} segments")
    return int(value)


def _layers(text: str, value: str) -> tuple[int, ...]:
    if value == "all":
        return ALL_LAYERS
    numbers = value.split(",")
    fits = all(number.isdecimal() and 1 <= int(number[:4]) < 1000 for number in numbers)
    fits = fits and len({*map(int, numbers)}) == len(numbers)
    check(fits, "pooling", text, "layers from 1, each once, or all, as in layers=4,8,12")
    return tuple(map(int, numbers))
