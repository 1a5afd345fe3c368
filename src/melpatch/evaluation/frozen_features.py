"""Features of a frozen encoder over a corpus: computed once for each pooling, and kept on disk.

A folder of features is named after a hash of everything that they depend on: the weights, the
settings of front end and encoder, the pooling, and the clips (their keys, places, and the sizes and
times of their files). If any of these changes, another folder is made; a folder that lacks clips of
shards, which may only have been out of reach, is made again by the next run. Arrays are written as
they come and stay on disk: values are read from there when they are used. With several ranks each
computes its share of the clips, and rank 0 joins the shares, in a folder that all ranks can see.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
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
from melpatch.evaluation.feature_files import (
    VALUES,
    join_rows,
    join_tokens,
    lacks_shard_clips,
    new_rows,
    part_path,
    read_about,
    rejected_clips,
    write_about,
)
from melpatch.evaluation.features import ClipTokens, ClipVectors, Span, fingerprint_of_clips
from melpatch.faults import let_pass
from melpatch.inference.corpus import (
    CorpusPass,
    infer_rank_clips,
    merge_ranks,
    rank_rows,
    rejection,
    require_readable,
)
from melpatch.inference.model import Model
from melpatch.inference.pooled import PooledRecording
from melpatch.inference.rows import window_rows
from melpatch.inference.windows import RecordingEnd
from melpatch.nn.pooling import DEFAULT_POOLING, Pooling
from melpatch.only_writer import next_writer
from melpatch.training.config import RunConfig

_VERSION = 2  # to be raised with every change to what is kept

Write = Callable[[Sequence[Clip], Path], dict[str, Any]]
"""Writes the features of clips into a folder, and returns their description."""


@runtime_checkable
class FeatureSource(Protocol):
    """What features are of: a network, or a spectrogram without one."""

    @property
    def sample_rate(self) -> int:
        """Rate of the samples that it takes, in Hz."""

    @property
    def grid_rows(self) -> int:
        """Frequency rows of its grid."""

    @property
    def embed_dim(self) -> int:
        """Channels of a token after the final norm."""

    def resolve_pooling(self, how: str) -> Pooling:
        """Return a pooling by its spelling.

        Raises:
            ConfigError: there is none, or the source lacks the layers or tokens that it needs.
        """

    def summaries(
        self, batch: Batch, pooling: Pooling
    ) -> list[Float[np.ndarray, "stretch field channel"]]:
        """Return each window's summaries, see :class:`melpatch.inference.pooled.PooledRecording`."""

    def tokens(self, batch: Batch) -> list[Float[np.ndarray, "token dim"]]:
        """Return the tokens of each window that are no padding, in float16."""


class FrozenFeatures:
    """Features that are computed once per corpus.

    Args:
        source: what they are of.
        folder: where they are kept; all ranks can see it.
        fingerprint: of everything that the source depends on.
        seconds: longest window that it takes.
        batch_size: windows per batch.
        workers: decoding processes.
    """

    def __init__(
        self,
        source: FeatureSource,
        folder: Path,
        *,
        fingerprint: str,
        seconds: float,
        batch_size: int = 32,
        workers: int = 0,
    ) -> None:
        self.source = source
        self.folder = folder
        self.seconds = seconds
        self.batch_size = batch_size
        self.workers = workers
        self.fingerprint = hash_values([_VERSION, fingerprint, seconds])
        self._written: set[Path] = set()  # folders that this object has written

    @classmethod
    def of_model(
        cls,
        model: Model,
        folder: Path,
        *,
        seconds: float | None = None,
        batch_size: int = 32,
        workers: int = 0,
    ) -> "FrozenFeatures":
        """Return the features of a model, on its device and in its arithmetic.

        Args:
            model: the model.
            folder: see the class, as the rest.
            seconds: longest window that it takes; None for the model's.
            batch_size: windows per batch.
            workers: decoding processes.
        """
        state = model.objective.export_encoder().state_dict()
        fingerprint = fingerprint_of_network(model.config, state)
        if model.precision != "32-true":
            fingerprint += f" {model.precision}"
        return cls(
            model.network,
            folder,
            fingerprint=fingerprint,
            seconds=model.seconds if seconds is None else seconds,
            batch_size=batch_size,
            workers=workers,
        )

    def vectors(self, corpus: Corpus, pooling: str = DEFAULT_POOLING) -> ClipVectors:
        """Return the vectors of a corpus; clips that cannot be read are left out and listed.

        All ranks must call it: each computes its share, and all get the whole.

        Args:
            corpus: the clips.
            pooling: how tokens become one vector, see :mod:`melpatch.nn.pooling`.

        Raises:
            CheckpointError: kept features are damaged, or belong to another network.
            ConfigError: the encoder has no such vectors.
            DataError: no clip can be read.
        """
        how = self.source.resolve_pooling(pooling)
        write = partial(self._write_vectors, how)
        with self._kept(f"vectors {how}", corpus, write) as (values, about):
            # Mode "c", since torch takes no array that cannot be written to.
            rows = np.load(values, mmap_mode="c")
        readable = np.flatnonzero(about["read"])
        clips = tuple(corpus.clips[number] for number in readable.tolist())
        kept_rows = None if len(readable) == len(rows) else readable
        return ClipVectors(clips, rows, rejected_clips(about), kept_rows)

    def tokens(self, corpus: Corpus) -> ClipTokens:
        """Return all tokens of a corpus; see :meth:`vectors`."""
        with self._kept("tokens", corpus, self._write_tokens) as (values, about):
            shape = (about["tokens"], self.source.embed_dim)
            rows = np.memmap(values, np.float16, "c", shape=shape)
            clips = []
            spans = []
            for clip, clip_spans in zip(corpus.clips, about["spans"], strict=True):
                if clip_spans:
                    clips.append(clip)
                    spans.append([(begin, end) for begin, end in clip_spans])
        return ClipTokens(tuple(clips), rows, spans, rejected_clips(about))

    @contextmanager
    def _kept(
        self, kind: str, corpus: Corpus, write: Write
    ) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the values of a corpus and their description, computed now unless they are kept."""
        folder = on_rank_zero(lambda: self.folder / self._name(kind, corpus.clips))
        if not on_rank_zero(lambda: self._is_complete(folder, corpus.clips)):
            # Another evaluation of the run may have written them while this one waited.
            with next_writer(folder):
                if not on_rank_zero(lambda: self._is_complete(folder, corpus.clips)):
                    self._write(write, corpus.clips, folder)
            self._written.add(folder)
        try:
            about = read_about(folder)
            if about["fingerprint"] != self.fingerprint:
                raise CheckpointError(
                    f"{folder}: features of another network ({about['fingerprint']}, wanted {self.fingerprint}); "
                    "delete the folder"
                )
            yield folder / VALUES, about
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            let_pass(error)
            raise CheckpointError(
                f"{folder}: features cannot be read ({error}); delete the folder"
            ) from error

    def _name(self, kind: str, clips: Sequence[Clip]) -> str:
        """Return the name of the folder for features of this kind, such as ``vectors rows+mean``."""
        digest = fingerprint_of_clips(clips, f"{self.fingerprint} {kind}")
        return f"{kind.split()[0]}-{digest}"

    def _is_complete(self, folder: Path, clips: Sequence[Clip]) -> bool:
        if not folder.exists():
            return False
        return folder in self._written or not lacks_shard_clips(folder, clips)

    def _write(self, write: Write, clips: Sequence[Clip], folder: Path) -> None:
        """Write a folder of features: each rank its part, and rank 0 the joined values."""
        with written_aside(folder) if is_rank_zero() else nullcontext(folder) as own_path:
            aside = broadcast_from_rank_zero(own_path)
            on_rank_zero(aside.mkdir)
            if not aside.exists():
                raise ConfigError(
                    f"{folder.parent}: process {rank()} sees no such folder; give a --features-dir that all see"
                )
            about = {"fingerprint": self.fingerprint, **write(clips, aside)}
            on_rank_zero(lambda: write_about(aside, about))
        barrier()

    def _write_vectors(
        self, pooling: Pooling, clips: Sequence[Clip], folder: Path
    ) -> dict[str, Any]:
        """Write one row per clip; return which clips could be read, and what the rows hold."""

        def summaries(batch: Batch) -> list[np.ndarray]:
            return self.source.summaries(batch, pooling)

        allocate = partial(new_rows, part_path(folder))
        new_total = partial(PooledRecording, pooling, self.source.grid_rows)
        own = infer_rank_clips(summaries, clips, self._pass, allocate, new_total)
        if isinstance(own.rows, np.memmap):
            own.rows.flush()  # rank 0 is about to read them
        ranks = all_gather_objects((own.readable, own.rejected))
        readable = merge_ranks([share for share, _ in ranks])
        rejected = _all_rejected(clips, readable, [share for _, share in ranks])
        on_rank_zero(lambda: join_rows(folder, [len(share) for share, _ in ranks]))
        return {"pooling": str(pooling), "read": readable.tolist(), "rejected": rejected}

    def _write_tokens(self, clips: Sequence[Clip], folder: Path) -> dict[str, Any]:
        """Write the tokens of all windows; return where those of each clip are."""
        share = shard_of_rank(clips)
        own_spans: dict[int, list[Span]] = {}
        own_rejected: list[Rejected] = []
        end = 0
        with part_path(folder).open("wb") as file:
            for item in rank_rows(self.source.tokens, clips, self._pass, window_rows):
                clip = share[item.recording]
                if isinstance(item, RecordingEnd):
                    own_rejected.extend(rejection(clip, item, self.seconds))
                    continue
                file.write(item.values.tobytes())
                begin = end
                end = begin + len(item.values)
                own_spans.setdefault(clip.key, []).append((begin, end))
        ranks = all_gather_objects((own_spans, end, own_rejected))
        # The tokens of a rank follow those of all ranks before it.
        lengths = [length for _, length, _ in ranks]
        offsets = accumulate(lengths, initial=0)
        spans = {
            key: [(offset + begin, offset + end) for begin, end in clip_spans]
            for offset, (rank_spans, _, _) in zip(offsets, ranks, strict=False)
            for key, clip_spans in rank_spans.items()
        }
        readable = [clip.key in spans for clip in clips]
        rejected = _all_rejected(clips, readable, [rejections for _, _, rejections in ranks])
        on_rank_zero(lambda: join_tokens(folder, len(ranks)))
        return {
            "spans": [spans.get(clip.key, []) for clip in clips],
            "tokens": sum(lengths),
            "rejected": rejected,
        }

    @property
    def _pass(self) -> CorpusPass:
        return CorpusPass(
            sample_rate=self.source.sample_rate,
            seconds=self.seconds,
            batch_size=self.batch_size,
            workers=self.workers,
            description="embedding",
        )


def _all_rejected(
    clips: Sequence[Clip],
    readable: Sequence[bool] | Bool[np.ndarray, " clip"],
    by_rank: Sequence[Sequence[Rejected]],
) -> list[tuple[str, str]]:
    """Return path and reason of the clips that no rank could read.

    Raises:
        DataError: that is all of them.
    """
    rejected = [clip for rejections in by_rank for clip in rejections]
    kept = [clip for clip, can_read in zip(clips, readable, strict=True) if can_read]
    require_readable(kept, clips, rejected)
    return [(clip.path, clip.reason) for clip in rejected]


def hash_values(values: Sequence[Any]) -> str:
    """Return a hash of plain values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint_of_network(config: RunConfig, state: Mapping[str, Tensor]) -> str:
    """Return a hash of a frozen network: its front end, the encoder's settings and its weights.

    What it was trained for does not matter, so a classifier and the probe that it was kept from
    share features.
    """
    settings = to_dict(config)
    relevant = {name: settings.get(name) for name in ("front_end", "encoder")}
    digest = hashlib.blake2b(hash_values([relevant]).encode(), digest_size=16)
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        as_bytes = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(as_bytes.numpy().tobytes())
    return digest.hexdigest()
