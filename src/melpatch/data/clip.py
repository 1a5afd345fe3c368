"""Clips and batches: a :class:`Clip` locates audio, a :class:`Batch` holds it decoded."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.atomic import file_state
from melpatch.audio.files import Channel
from melpatch.data.file_names import path_text
from melpatch.data.parquet import is_parquet
from melpatch.rng import hash_text, hash_texts


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, or a part of one: where it is stored, and its labels.

    Attributes:
        path: the sound file, or the shard that holds the clip; for a remote shard, its local copy.
        key: signed 64-bit number from :func:`clip_key`, which seeds all randomness of the clip.
        start: start of the clip in the file, in seconds.
        duration: length in seconds.
        labels: the clip's classes; empty if it is unlabelled.
        split: ``train``, ``val``, ``test``, a fold number, or ``""`` for none.
        group: the recording, speaker or patient that the clip belongs to; ``""`` if unknown.
        offset: first byte of the clip in a shard; in a Parquet file, its row.
        size: length in bytes in a shard or Parquet file; 0 for a file or a part of one.
        crc32: checksum of these bytes.
        url: where the shard is fetched from; ``""`` for a local one.
        channel: what is taken of several channels.
    """

    path: Path
    key: int
    start: float
    duration: float
    labels: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    offset: int = 0
    size: int = 0
    crc32: int = 0
    url: str = ""
    channel: Channel = "mean"

    @property
    def state(self) -> tuple[int, int] | None:
        """Size and checksum in a shard, or size and time of a file: they change with the audio.

        None if there is no such file.
        """
        state = (self.size, self.crc32) if self.size else file_state(self.path)
        if state is None or self.channel == "mean":
            return state
        # Another channel is other audio.
        return state[0], state[1] ^ hash_text(self.channel)

    @property
    def identities(self) -> tuple[int, ...]:
        """Numbers by which the clip is recognised in other listings.

        These are its key and, for a file, a hash of its absolute path and start, which stays the
        same where another listing gives it another key.
        """
        if self.size:
            return (self.key,)
        # Path.resolve would access the disk for every clip.
        absolute = os.path.abspath(self.path)  # noqa: PTH100
        return self.key, hash_text(f"{absolute}\0{self.start:.6f}")

    @property
    def location(self) -> str:
        """Name of the clip in messages and lists: its file, or its shard with member and offset."""
        file = self.url or path_text(self.path)
        if not self.size:
            return file
        unit = "row" if is_parquet(self.path) else "byte"
        return f"{file}[{member_name(self.key)} at {unit} {self.offset}]"


def member_name(key: int) -> str:
    """Return a clip's file name in a shard without extension: its key as 16 hexadecimal digits."""
    # A negative key becomes the unsigned number with the same 64 bits.
    return f"{key & (1 << 64) - 1:016x}"


def clip_key(dataset: str, relative_path: str, start: float) -> int:
    """Return the key of a clip, which does not depend on machine, folder or order of listing.

    Args:
        dataset: name of the data set.
        relative_path: the file's path below the data set's folder, with forward slashes.
        start: start of the clip in the file, in seconds, with a resolution of a microsecond.
    """
    return hash_text(f"{dataset}\0{relative_path}\0{start:.6f}")


def clip_keys(
    dataset: str, relative_paths: Sequence[str], starts: Sequence[float]
) -> Int[np.ndarray, " clip"]:
    """Return the keys of clips, as from :func:`clip_key`."""
    # Many clips begin at the same few times.
    shown = {start: f"\0{start:.6f}" for start in {*starts}}
    prefix = f"{dataset}\0"
    pairs = zip(relative_paths, starts, strict=True)
    return hash_texts([prefix + path + shown[start] for path, start in pairs])


PARTNERS = (1, 2)
"""What the number of a clip in its step differs in, bit by bit, from those of its two partners."""


@dataclass
class Batch:
    """Decoded clips of one sampling rate, zero-padded at the end to the longest.

    Attributes:
        wave: samples, float32, nominally in [-1, 1].
        lengths: samples of each clip without padding.
        keys: keys of the clips.
        targets: 1 where a clip has a label, else 0; None without labels.
        partner: rows of the two clips that each may be mixed with, its own row where there is none:
            the other one of its pair, and the one in its place in the next pair; None: by rows, 0
            with 1 and 2, 1 with 0 and 3, 2 with 3 and 0, and so on.
    """

    wave: Float[Tensor, "clip sample"]
    lengths: Int[Tensor, " clip"]
    keys: Int[Tensor, " clip"]
    targets: Float[Tensor, "clip label"] | None = None
    partner: Int[Tensor, "clip 2"] | None = None

    @property
    def partners(self) -> Int[Tensor, " clip"]:
        """Row of each clip's partner, the other one of its pair."""
        return self.partners_of(0)

    def partners_of(self, view: int) -> Int[Tensor, " clip"]:
        """Return the row of the clip that each is mixed with in one of two views.

        Views that were mixed with the same clip would have that clip in common, too.

        Args:
            view: 0 or 1.
        """
        if self.partner is not None:
            return self.partner[:, view]
        own = torch.arange(len(self), device=self.keys.device)
        other = own ^ PARTNERS[view]
        return torch.where(other < len(self), other, own)

    @cached_property
    def shortest(self) -> int:
        """Samples of the shortest clip; kept when the batch moves, to avoid a synchronisation."""
        if not len(self):
            return self.wave.shape[1]
        return int(self.lengths.min())

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device; copies from pinned memory do not block."""
        return self._moved(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory; torch's DataLoader calls this method by name."""
        return self._moved(lambda value: value.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = Batch(**{name: move(value) for name, value in tensors.items()})
        # Computed here, before the lengths are on the device.
        moved.shortest = self.shortest
        return moved

    @classmethod
    def empty(cls, samples: int, labels: int | None = None) -> "Batch":
        """Return a batch without clips, for a rank that can read none of its own in a step."""
        none = torch.zeros(0, dtype=torch.int64)
        targets = None
        if labels is not None:
            targets = torch.zeros(0, labels)
        return cls(torch.zeros(0, samples), none, none, targets)
