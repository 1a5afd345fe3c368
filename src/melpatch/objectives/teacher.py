"""A trained network that teaches another one: frozen, at its own front end and sampling rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.audio.resampling import resample
from melpatch.config import owner, piece
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoded, Encoder
from melpatch.nn.columns import Columns, Timing, columns_of, joined_columns
from melpatch.nn.grid import PatchGrid
from melpatch.nn.pooling import Pooling, pool
from melpatch.objectives.base import Features, Objective
from melpatch.rng import seeded

MEAN = "mean"
"""The pooling of a teacher that is no classifier."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """What a teacher is, read from it, so that a run does not depend on where it lies."""

    front_end: LogMel.Config
    """Its front end."""
    encoder: Any = field(metadata=piece("encoders"))
    """Its encoder."""
    objective: Any = field(metadata=piece("objectives"))
    """Its classifier, or an encoder alone."""
    labels: tuple[str, ...] = ()
    """Classes of its classifier."""
    longest: float
    """Longest clip that it hears at once, in seconds."""
    vector_dim: int
    """Numbers of its vector of a clip."""
    token_dim: int
    """Channels of its tokens."""
    layer_dims: tuple[int, ...]
    """Channels of each layer."""


class Heard(NamedTuple):
    """What a teacher makes of some clips."""

    vector: Float[Tensor, "clip dim"]
    """One vector per clip."""
    tokens: Columns
    """Its tokens after the final norm."""
    layers: tuple[Columns, ...]
    """The outputs of the layers that were asked for."""
    logits: Float[Tensor, "clip label"] | None
    """Its scores, of a classifier."""

    def clip(self, row: int) -> "Heard":
        """Return what it makes of one clip, without the columns of padding."""
        rows = slice(row, row + 1)
        tokens, *layers = [
            Columns(columns.values[rows], columns.valid[rows], columns.timing).without_padding()
            for columns in (self.tokens, *self.layers)
        ]
        logits = None if self.logits is None else self.logits[rows]
        return Heard(self.vector[rows], tokens, tuple(layers), logits)

    def tensors(self) -> list[Tensor]:
        """Return all tensors in it."""
        columns = [part for columns in (self.tokens, *self.layers) for part in columns[:2]]
        return [self.vector, *columns, *([] if self.logits is None else [self.logits])]


def joined(parts: Sequence[Heard]) -> Heard:
    """Return what was made of several clips as one, with columns of padding."""
    logits = [part.logits for part in parts if part.logits is not None]
    layers = zip(*(part.layers for part in parts), strict=True)
    return Heard(
        torch.cat([part.vector for part in parts]),
        joined_columns([part.tokens for part in parts]),
        tuple(map(joined_columns, layers)),
        torch.cat(logits) if logits else None,
    )


class Teacher:
    """A frozen network. It is no module, and so no part of the weights of what it teaches.

    Args:
        config: what it is.
        objective: its network; None for one at random weights, which are the same in every run.

    Attributes:
        config: what it is.
        objective: its network.
    """

    def __init__(self, config: TeacherConfig, objective: Objective | None = None) -> None:
        if objective is None:
            objective = _at_random(config)
        self.config = config
        self.objective = objective.eval().requires_grad_(False)

    @property
    def encoder(self) -> Encoder:
        """Its encoder."""
        return self.objective.encoder

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Apply a function to its weights: move them to a device, or change their precision."""
        self.objective._apply(function)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def hear(self, batch: Batch, rate: int, pooling: str | None, layers: Sequence[int]) -> Heard:
        """Return what it makes of the clips of a batch, none of which depends on the others.

        Args:
            batch: the clips.
            rate: their sampling rate, in Hz.
            pooling: tokens to vector; None takes the classifier's, or the mean.
            layers: numbers of the layers that are returned, from 1.
        """
        if self._depends_on_padding and len(batch) > 1:
            # Each clip alone, which waits for the device.
            ends = enumerate(batch.lengths.tolist())
            return joined(
                [self.hear(_clip(batch, row, end), rate, pooling, layers) for row, end in ends]
            )
        wave, lengths = resample(batch.wave, batch.lengths, rate, self.config.front_end.sample_rate)
        own = Batch(wave, lengths, batch.keys)
        own.shortest = -(-batch.shortest * self.config.front_end.sample_rate // rate)
        spectrogram, valid = self.objective.features(own)
        classifier: Any = self.objective if self.config.labels else None
        wanted = as_pooling(self, pooling)
        outputs = bool(layers) or wanted.layer_outputs
        if classifier is not None and classifier.takes_layers:
            outputs = classifier.takes_layers
        encoded = self.encoder(spectrogram, valid, layers=outputs)
        logits = None
        if classifier is not None:
            logits = classifier.logits_of(encoded, Features(spectrogram, valid))
        statistics = self.encoder.input_statistics(spectrogram, wanted)
        patches, cls = encoded.pooled_tokens(wanted, statistics)
        vector = pool(patches, cls, valid, self.encoder.grid.rows, wanted)
        return Heard(
            vector,
            self._columns(encoded.patches, valid),
            tuple(self._columns(_layer(encoded, number), valid) for number in layers),
            logits,
        )

    @property
    def _depends_on_padding(self) -> bool:
        """Whether what it makes of a clip depends on the longest clip of its batch."""
        front_end = self.config.front_end
        to_the_longest = front_end.padding == "legacy" and front_end.target_frames is None
        return to_the_longest or self.encoder.length_dependent

    def _columns(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> Columns:
        grid = self.encoder.grid
        return columns_of(tokens, valid, grid.rows, timing(self.config.front_end, grid))


def as_pooling(teacher: Teacher, pooling: str | None) -> Pooling:
    """Return a pooling of a teacher by its spelling; None for that of its classifier, or the mean."""
    if pooling is None:
        pooling = MEAN
        if teacher.config.labels:
            pooling = teacher.config.objective.pooling
    return Pooling.parse(pooling)


def timing(front_end: LogMel.Config, grid: PatchGrid) -> Timing:
    """Return where the columns of a grid lie in time.

    A column stands for the stride around the middle of its patch.
    """
    hop = front_end.hop_length / front_end.sample_rate
    middle = 0.0 if front_end.centred else front_end.win_length / front_end.sample_rate / 2
    inset = (grid.patch[1] - grid.stride[1]) / 2
    return Timing(middle + (inset - 0.5) * hop, grid.stride[1] * hop)


def _clip(batch: Batch, row: int, end: int) -> Batch:
    """Return a batch of one clip, without padding."""
    rows = slice(row, row + 1)
    return Batch(batch.wave[rows, :end], batch.lengths[rows], batch.keys[rows])


def _layer(encoded: Encoded, number: int) -> Float[Tensor, "clip token dim"]:
    """Return the patch tokens of a layer, which is numbered from 1."""
    return encoded.layers[number - 1][:, encoded.cls.shape[1] :]


def _at_random(config: TeacherConfig) -> Objective:
    """Return a network of these settings at random weights."""
    with seeded(0, "teacher"):
        front_end = LogMel(config.front_end)
        encoder: Encoder = owner(config.encoder)(config.encoder, config.front_end.n_mels)
        objective: Objective = owner(config.objective)(
            config.objective, front_end, encoder, config.labels
        )
    return objective


class Memory:
    """What a teacher made of clips, kept by their keys up to a number of bytes.

    What does not fit any more is heard again in each epoch: clips come in another order each time,
    so that there is none worth giving up for another.

    Args:
        most_bytes: the most that is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[int, Heard] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, batch: Batch, hear: Callable[[Batch], Heard]) -> Heard:
        """Return what was made of the clips of a batch; those that are not kept are heard now.

        Args:
            batch: the clips.
            hear: what the teacher makes of a batch.
        """
        keys = batch.keys.tolist()
        new = [row for row, key in enumerate(keys) if key not in self._kept]
        fresh: dict[int, Heard] = {}
        if new:
            rows = torch.tensor(new, device=batch.keys.device)
            heard = hear(Batch(batch.wave[rows], batch.lengths[rows], batch.keys[rows]))
            fresh = {row: heard.clip(number) for number, row in enumerate(new)}
        parts = [fresh[row] if row in fresh else self._kept[key] for row, key in enumerate(keys)]
        for row, part in fresh.items():
            self._keep(keys[row], part)
        return joined(parts)

    def _keep(self, key: int, heard: Heard) -> None:
        size = sum(value.numel() * value.element_size() for value in heard.tensors())
        if key not in self._kept and self._bytes + size <= self._most_bytes:
            # Copies, since these are views of a whole batch.
            self._kept[key] = joined([heard])
            self._bytes += size
