"""How sound travels: a :class:`Clip` says where a piece of it lies, a :class:`Batch` holds such pieces decoded."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.atomic import file_state
from melpatch.rng import hash_text


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a piece of sound lives, and what is known of it.

    Attributes:
        path: the sound file, or the shard that the clip is packed in; of a remote one, where its copy lies once it is
            fetched.
        key: signed 64-bit number from :func:`clip_key`; all randomness of the clip hangs on it.
        start: first moment of the clip in the file, in seconds.
        duration: length in seconds.
        labels: the clip's classes; empty when it is unlabelled.
        split: ``train``, ``val``, ``test``, a fold number, or ``""`` for none.
        group: the recording, speaker or patient that the clip belongs to, or ``""`` if nobody says.
        offset: first byte of the clip in a shard.
        size: length in bytes in a shard; 0 where the clip is a file of its own, or a part of one.
        crc32: checksum of these bytes.
        url: where the shard is fetched from; ``""`` where it lies on this machine.
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

    @property
    def state(self) -> tuple[int, int] | None:
        """What tells that the sound was changed: the size and checksum of what is packed in a shard, wherever that
        lies, or the size and time of a file; None where there is none."""
        return (self.size, self.crc32) if self.size else file_state(self.path)

    @property
    def identities(self) -> tuple[int, ...]:
        """Numbers that the clip is known by again: its key, and for a file its place on this machine with its start,
        which is the same where another listing gives it another key."""
        if self.size:
            return (self.key,)
        return self.key, hash_text(f"{os.path.abspath(self.path)}\0{self.start:.6f}")  # noqa: PTH100 - asks no disk

    @property
    def location(self) -> str:
        """What messages and lists call the clip: its file, or the shard with its member and offset."""
        file = self.url or str(self.path)
        return f"{file}[{member_name(self.key)} at byte {self.offset}]" if self.size else file


def member_name(key: int) -> str:
    """Return what a clip is called in a shard, without the ending: its key as 16 hexadecimal digits."""
    return f"{key & (1 << 64) - 1:016x}"


def clip_key(dataset: str, relative_path: str, start: float) -> int:
    """Return a clip's number: the same on every machine, wherever the data lie and in whatever order they are listed.

    Args:
        dataset: name of the data set.
        relative_path: the file's path below the data set's folder, with forward slashes.
        start: first moment of the clip in the file, in seconds; told apart to the microsecond.
    """
    return hash_text(f"{dataset}\0{relative_path}\0{start:.6f}")


@dataclass
class Batch:
    """Decoded clips of one sampling rate, padded at the end with zeros to the longest.

    Attributes:
        wave: samples, float32, nominally in [-1, 1].
        lengths: how many samples of each clip are its own.
        keys: the clips' numbers.
        targets: 1 where a clip has a label; None when labels play no part.
        partner: row of the clip that one may be mixed with, its own where there is none; None for the neighbour in a
            pair of rows: 0 with 1, 2 with 3, and so on.
    """

    wave: Float[Tensor, "clip sample"]
    lengths: Int[Tensor, " clip"]
    keys: Int[Tensor, " clip"]
    targets: Float[Tensor, "clip label"] | None = None
    partner: Int[Tensor, " clip"] | None = None

    @property
    def partners(self) -> Int[Tensor, " clip"]:
        """Row of each clip's partner."""
        own = torch.arange(len(self), device=self.keys.device)
        if self.partner is not None:
            return self.partner
        return torch.where((own ^ 1) < len(self), own ^ 1, own)

    @cached_property
    def shortest(self) -> int:
        """Samples of the shortest clip; a batch on its device still knows it, so that nothing has to wait for that."""
        return int(self.lengths.min()) if len(self) else self.wave.shape[1]

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device; a copy from pinned memory does not block."""
        return self._moved(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch from where a GPU copies without a wait; torch's loader asks for it by this name."""
        return self._moved(lambda value: value.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        moved = Batch(
            **{name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        )
        moved.shortest = self.shortest
        return moved

    @classmethod
    def empty(cls, samples: int, labels: int | None = None) -> "Batch":
        """Return a batch without clips: what a process has that can read none of its own, but takes part in a step."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(
            torch.zeros(0, samples), none, none, None if labels is None else torch.zeros(0, labels)
        )
