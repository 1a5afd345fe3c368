"""What a frozen encoder says of a corpus: computed once for all layers and poolings, and kept on disk.

A folder of features is named after a hash of all that they hang on: the weights, the settings of front end and encoder,
the clips (their keys, places, and the sizes and times of their files). Whatever changes, another folder is made; one
that lacks clips of shards, which may only have been out of reach, is made anew by the next run. Arrays are written as
they come and stay on the disk: what is asked for is read from there, and nothing else is in memory. Several processes
share the clips out; the first joins what they found, in a folder that all of them can see.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.lib.format import open_memmap
from torch import Tensor

from melpatch.atomic import written_aside
from melpatch.config import to_dict
from melpatch.data.clip import Batch, Clip
from melpatch.data.corpus import Corpus, Rejected
from melpatch.distributed import (
    all_gather_objects,
    barrier,
    broadcast_from_rank_zero,
    is_rank_zero,
    on_rank_zero,
    rank,
    shard_of_rank,
)
from melpatch.errors import CheckpointError, ConfigError
from melpatch.evaluation.features import ClipTokens, ClipVectors, Span, fingerprint_of_clips
from melpatch.inference.corpus import (
    CorpusPass,
    infer_rank_clips,
    merge_ranks,
    rank_rows,
    rejection,
    require_readable,
)
from melpatch.inference.rows import window_rows
from melpatch.inference.windows import RecordingEnd
from melpatch.nn.pooling import POOLINGS, masked_mean, pool
from melpatch.objectives.base import Objective
from melpatch.training.config import RunConfig

_VERSION = 1  # to be raised with every change to what is kept
_ABOUT, _VALUES = "about.json", "values"


class FrozenFeatures:
    """A trained network whose answers are computed once per corpus."""

    def __init__(
        self,
        config: RunConfig,
        objective: Objective,
        folder: Path,
        *,
        seconds: float,
        batch_size: int = 32,
        workers: int = 0,
    ) -> None:
        """Hold a network; its ``fingerprint`` is a hash of all that its answers hang on.

        Args:
            config: its settings.
            objective: the network, on its device.
            folder: where features are kept; all processes can see it.
            seconds: longest window that it is given.
            batch_size: windows at a time.
            workers: decoding processes.
        """
        self.objective, self.encoder = objective.eval(), objective.export_encoder()
        self.folder, self.seconds, self.batch_size, self.workers = (
            folder,
            seconds,
            batch_size,
            workers,
        )
        self.fingerprint = _identity(config, objective.state_dict(), seconds)
        self._made: set[Path] = set()  # folders that this one has written

    def vectors(self, corpus: Corpus) -> ClipVectors:
        """Return the vectors of a corpus; clips that cannot be read are left out and named.

        Of several processes each computes its share, and all get the whole; all must call it.

        Raises:
            CheckpointError: kept features are damaged, or tell of another network.
            DataError: no clip can be read.
        """
        with self._kept("vectors", corpus) as (values, about):
            rows = np.load(values, mmap_mode="c")  # torch takes no array that cannot be written to
            found, begin = {}, 0
            for name, shape in about["shapes"].items():
                end = begin + math.prod(shape)
                found[name], begin = rows[:, begin:end].reshape(-1, *shape), end
        read = np.flatnonzero(about["read"])
        clips = tuple(corpus.clips[row] for row in read)
        at = None if len(read) == len(rows) else read
        return ClipVectors(clips, found, found.pop("layers", None), _rejected(about), at)

    def tokens(self, corpus: Corpus) -> ClipTokens:
        """Return all tokens of a corpus; see :meth:`vectors`."""
        with self._kept("tokens", corpus) as (values, about):
            spans = [[(begin, end) for begin, end in own] for own in about["spans"]]
            rows = np.memmap(
                values, np.float16, "c", shape=(about["tokens"], self.encoder.embed_dim)
            )
        clips = tuple(clip for clip, own in zip(corpus.clips, spans, strict=True) if own)
        return ClipTokens(clips, rows, [own for own in spans if own], _rejected(about))

    @contextmanager
    def _kept(
        self, kind: Literal["vectors", "tokens"], corpus: Corpus
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Give the file of what is kept of a corpus, made now unless it is there, and what stands beside it."""
        folder = on_rank_zero(
            lambda: self.folder / f"{kind}-{fingerprint_of_clips(corpus.clips, self.fingerprint)}"
        )
        if not on_rank_zero(
            lambda: folder.exists() and (folder in self._made or not _lacking(folder, corpus.clips))
        ):
            self._make(kind, corpus.clips, folder)
            self._made.add(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about["fingerprint"] != self.fingerprint:
                another = f"features of another network ({about['fingerprint']}, wanted {self.fingerprint})"
                raise CheckpointError(f"{folder}: {another}; delete the folder")
            yield folder / _VALUES, about
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise CheckpointError(
                f"{folder}: features cannot be read ({error}); delete the folder"
            ) from error

    def _make(
        self, kind: Literal["vectors", "tokens"], clips: Sequence[Clip], folder: Path
    ) -> None:
        """Write a folder of features; every process a part of its own, and the first what all have found."""
        with written_aside(folder) if is_rank_zero() else nullcontext(folder) as named:
            aside = broadcast_from_rank_zero(named)
            on_rank_zero(aside.mkdir)
            if not aside.exists():
                raise ConfigError(
                    f"{folder.parent}: process {rank()} sees no such folder; give a --features-dir that all see"
                )
            about = (self._write_vectors if kind == "vectors" else self._write_tokens)(clips, aside)
            text = json.dumps({"fingerprint": self.fingerprint, **about})
            on_rank_zero(lambda: (aside / _ABOUT).write_text(text, encoding="utf-8"))
        barrier()

    def _write_vectors(self, clips: Sequence[Clip], folder: Path) -> dict[str, Any]:
        """Leave one row per clip in a folder; return which clips could be read, and what lies in the columns."""
        shapes: dict[str, tuple[int, ...]] = {}

        def flat(batch: Batch) -> Float[Tensor, "clip column"]:
            found = self._pooled(batch)
            shapes.update({name: tuple(values.shape[1:]) for name, values in found.items()})
            return torch.cat([values.flatten(1) for values in found.values()], dim=1)

        allocate = partial(open_memmap, _part(folder), "w+", np.float32)
        own = infer_rank_clips(flat, clips, self._pass, allocate)
        if isinstance(own.rows, np.memmap):
            own.rows.flush()  # since the first process is about to read them
        told = all_gather_objects((own.readable, shapes, own.rejected))
        read = merge_ranks([one for one, _, _ in told])
        unread = _unread(clips, read, [one for _, _, one in told])
        on_rank_zero(lambda: _join_rows(folder, [len(one) for one, _, _ in told]))
        return {
            "read": read.tolist(),
            "shapes": max((one for _, one, _ in told), key=len),
            "rejected": unread,
        }

    def _write_tokens(self, clips: Sequence[Clip], folder: Path) -> dict[str, Any]:
        """Leave the tokens of all windows in a folder; return where those of each clip lie."""
        share = shard_of_rank(clips)
        spans: dict[int, list[Span]] = {}
        rejected: list[Rejected] = []
        end = 0
        with _part(folder).open("wb") as file:
            for item in rank_rows(self._real_tokens, clips, self._pass, window_rows):
                clip = share[item.recording]
                if isinstance(item, RecordingEnd):
                    rejected.extend(rejection(clip, item, self.seconds))
                    continue
                file.write(item.values.tobytes())
                begin, end = end, end + len(item.values)
                spans.setdefault(clip.key, []).append((begin, end))
        told = all_gather_objects((spans, end, rejected))
        starts = accumulate((one for _, one, _ in told), initial=0)
        found = {
            key: [(start + begin, start + end) for begin, end in own]
            for start, (some, _, _) in zip(starts, told, strict=False)
            for key, own in some.items()
        }
        unread = _unread(clips, [clip.key in found for clip in clips], [one for _, _, one in told])
        on_rank_zero(lambda: _join_files(folder, len(told)))
        tokens = sum(one for _, one, _ in told)
        return {
            "spans": [found.get(clip.key, []) for clip in clips],
            "tokens": tokens,
            "rejected": unread,
        }

    def _real_tokens(self, batch: Batch) -> list[np.ndarray]:
        """Return the tokens of each window that are not padding, (token, dim) in float16."""
        with torch.inference_mode():
            features = self.objective.features(batch.to(self._device))
            patches = self.encoder(features.spectrogram, features.valid).patches.half().cpu()
        if features.valid is None:
            return [*patches.numpy()]
        valid = features.valid.cpu()
        return [tokens[real].numpy() for tokens, real in zip(patches, valid, strict=True)]

    def _pooled(self, batch: Batch) -> dict[str, Tensor]:
        features = self.objective.features(batch.to(self._device))
        encoded = self.encoder(features.spectrogram, features.valid, layers=True)
        rows, special = self.encoder.grid.rows, encoded.cls.shape[1]
        found: dict[str, Tensor] = {}
        for how in POOLINGS:
            if how != "cls" or special:
                found[how] = pool(encoded.patches, encoded.cls, features.valid, rows, how)
        if len({layer.shape[1:] for layer in encoded.layers}) == 1:
            means = [masked_mean(layer[:, special:], features.valid) for layer in encoded.layers]
            found["layers"] = torch.stack(means, dim=1)
        return found

    @property
    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    @property
    def _pass(self) -> CorpusPass:
        return CorpusPass(
            sample_rate=self.objective.front_end.sample_rate,
            seconds=self.seconds,
            batch_size=self.batch_size,
            workers=self.workers,
            description="embedding",
        )


def _unread(
    clips: Sequence[Clip],
    read: Sequence[bool] | Bool[np.ndarray, " clip"],
    rejected: Sequence[Sequence[Rejected]],
) -> list[tuple[str, str]]:
    """Return what no process could read as plain values.

    Raises:
        DataError: that is all.
    """
    every = [one for some in rejected for one in some]
    require_readable([clip for clip, there in zip(clips, read, strict=True) if there], clips, every)
    return [(one.path, one.reason) for one in every]


def _lacking(folder: Path, clips: Sequence[Clip]) -> bool:
    """Return whether a folder of features lacks clips of shards: these may be well by now, which no hash tells, for
    their checksums are the same however their shards fare."""
    try:
        rejected = {
            path
            for path, _ in json.loads((folder / _ABOUT).read_text(encoding="utf-8"))["rejected"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whoever reads it tells what is wrong
    return bool(rejected) and any(clip.size and clip.location in rejected for clip in clips)


def _rejected(about: Mapping[str, Any]) -> tuple[Rejected, ...]:
    return tuple(Rejected(path, reason) for path, reason in about["rejected"])


def _part(folder: Path, number: int | None = None) -> Path:
    """Return the file that a process writes; by default this one."""
    return folder / f"part-{rank() if number is None else number}"


def _join_rows(folder: Path, lengths: Sequence[int]) -> None:
    """Make one file of all processes' rows, in the order of the clips."""
    parts = [_part(folder, number) for number in range(len(lengths))]
    if len(parts) == 1:
        parts[0].rename(folder / _VALUES)
        return
    found = [
        np.load(part, mmap_mode="r") if part.exists() else np.empty((length, 0), np.float32)
        for part, length in zip(parts, lengths, strict=True)
    ]
    merge_ranks(found, lambda shape, dtype: open_memmap(folder / _VALUES, "w+", dtype, shape))
    for part in parts:
        part.unlink(missing_ok=True)  # a process that could read nothing has written none


def _join_files(folder: Path, count: int) -> None:
    """Make one file of all processes' tokens, one process's after the other's."""
    first, *others = [_part(folder, number) for number in range(count)]
    with first.open("ab") as file:
        for part in others:
            with part.open("rb") as more:
                shutil.copyfileobj(more, file)
            part.unlink()
    first.rename(folder / _VALUES)


def _identity(config: RunConfig, state: Mapping[str, Tensor], seconds: float) -> str:
    """Return a hash of all that a network's answers hang on: settings, weights, and the longest window."""
    digest = hashlib.blake2b(digest_size=16)
    settings = to_dict(config)
    said = {name: settings.get(name) for name in ("labels", "front_end", "encoder", "objective")}
    digest.update(json.dumps([_VERSION, said, seconds], sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
