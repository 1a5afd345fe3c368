"""A segment of an index: the vectors of some recordings as arrays that are opened memory-mapped.

A segment is a folder that is complete or absent, and never changes. An index grows by segments.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.config import from_dict
from melpatch.inference.fitted import FITTED
from melpatch.inference.tables import Chunks
from melpatch.inference.varying import varies
from melpatch.opening import LOG_BYTES, read_json, reading

PLACE = np.dtype([("recording", "<i4"), ("start", "<f8"), ("end", "<f8"), ("silent", "?")])
"""Where a row lies: the number of its recording, and seconds from the start of the file."""
_ABOUT, _RECORDINGS = "about.json", "recordings.json"
_VECTORS, _ROWS, _NORMS, _SCALE = "vectors.npy", "rows.npy", "norms.npy", "scale.npy"
_FIX = "restore it from a backup, or delete this folder and run melpatch index again"


@dataclass(frozen=True)
class Identity:
    """What made the vectors of an index; those of other identities are of another space.

    Attributes:
        run: the run folder or weight file, as an absolute path or ``hf:owner/name``.
        model: hash of its settings and weights.
        pooling: tokens to vector, with the hash of a fitted one.
        spelling: the pooling as it is asked for.
        own_fit: whether a fitted pooling is that of the index, not of the run, see
            :mod:`melpatch.search.short_vectors`.
        layer: layer whose output is taken; None for the pooling's own.
        window: length of a window in seconds.
        hop: seconds between the starts of windows.
        precision: arithmetic of the network.
    """

    run: str
    model: str
    pooling: str
    spelling: str
    layer: int | None
    window: float
    hop: float
    precision: str
    own_fit: bool = False

    def is_of_space(self, other: "Identity") -> bool:
        """Return whether vectors of both can be compared; a run that was moved is the same."""
        return replace(self, run=other.run, spelling=other.spelling) == other


class Recording(NamedTuple):
    """A recording of an index: a file, or a stretch of one that a table lists.

    Attributes:
        path: absolute path of the file.
        start: in seconds.
        duration: in seconds; None up to the end of the file.
        state: size and time of the file when it was read; None if that is not known.
    """

    path: str
    start: float
    duration: float | None
    state: tuple[int, int] | None

    @property
    def stretch(self) -> tuple[str, float, float | None]:
        """What is recorded, whatever became of the file."""
        return self.path, self.start, self.duration


class Segment(NamedTuple):
    """An open segment.

    Attributes:
        folder: where it lies.
        identity: what made the vectors.
        recordings: the recordings; those that could not be read have no row.
        rows: where each vector belongs, see :data:`PLACE`.
        vectors: memory-mapped, as they were pooled.
        norms: length of each vector once it is standardised.
        scale: the mean and the deviation that standardise.
    """

    folder: Path
    identity: Identity
    recordings: Sequence[Recording]
    rows: np.ndarray
    vectors: Float[np.ndarray, "row dim"]
    norms: Float[np.ndarray, " row"]
    scale: Float[np.ndarray, "mean_and_deviation dim"]


def read_segment(folder: Path) -> Segment:
    """Return a segment of an index, its vectors memory-mapped.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    with reading(folder / _ABOUT, _FIX):
        identity = from_dict(Identity, read_json(folder / _ABOUT))
    with reading(folder / _RECORDINGS, _FIX, LOG_BYTES):
        listed = read_json(folder / _RECORDINGS, LOG_BYTES)["recordings"]
        recordings = [_recording(*values) for values in listed]
    arrays = {}
    for name in (_VECTORS, _ROWS, _NORMS, _SCALE):
        with reading(folder / name, _FIX, None):
            arrays[name] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    with reading(folder / _ROWS, _FIX, None):
        vectors, rows, norms, scale = (arrays[n] for n in (_VECTORS, _ROWS, _NORMS, _SCALE))
        if not (rows.dtype == PLACE and len(vectors) == len(rows) == len(norms)):
            raise ValueError(f"{len(rows)} rows for {len(vectors)} vectors")
        if scale.shape != (2, vectors.shape[1]):
            raise ValueError(f"a scale of {scale.shape} for vectors of {vectors.shape[1]}")
        if len(rows) and not 0 <= rows["recording"].min() <= rows["recording"].max() < len(
            recordings
        ):
            raise ValueError(f"rows of recordings other than the {len(recordings)} listed")
    return Segment(folder, identity, recordings, rows, vectors, norms, scale)


def _recording(path: str, start: float, duration: float | None, state: object) -> Recording:
    size_and_time = None
    if isinstance(state, list):
        size, time = map(int, state)
        size_and_time = (size, time)
    return Recording(
        str(path), float(start), None if duration is None else float(duration), size_and_time
    )


def write_segment(
    folder: Path,
    chunks: Chunks,
    *,
    identity: Identity,
    recordings: Sequence[Recording],
    scale: Float[np.ndarray, "mean_and_deviation dim"] | None,
) -> None:
    """Write a segment from chunks of rows that are never all in memory.

    Args:
        folder: the folder to make.
        chunks: the rows, see :meth:`melpatch.inference.parts.PartFolder.chunks`.
        identity: what made the vectors.
        recordings: the recordings that the rows number.
        scale: what the index standardises with; None learns it from these rows.
    """
    folder.mkdir()
    if scale is None:
        # Fitted vectors have their scale; divided by deviations again, small components would grow.
        scale = _learn_scale(chunks, standardise=identity.spelling != FITTED)
    offsets = np.array([recording.start for recording in recordings])
    count = sum(len(chunk) for chunk in chunks())
    vectors = np.lib.format.open_memmap(
        folder / _VECTORS, "w+", dtype=np.float32, shape=(count, scale.shape[1])
    )
    rows = np.empty(count, PLACE)
    norms = np.empty(count, np.float32)
    begin = 0
    for chunk in chunks():
        end = begin + len(chunk)
        vectors[begin:end] = chunk["values"]
        norms[begin:end] = np.linalg.norm((chunk["values"] - scale[0]) / scale[1], axis=1)
        for name in PLACE.names or ():
            rows[name][begin:end] = chunk[name]
        for name in ("start", "end"):
            rows[name][begin:end] += offsets[chunk["recording"]]
        begin = end
    vectors.flush()
    np.save(folder / _ROWS, rows)
    np.save(folder / _NORMS, norms)
    np.save(folder / _SCALE, scale)
    # Names that are not UTF-8 have lone surrogates, which JSON escapes and gives back.
    listed = json.dumps({"recordings": [list(recording) for recording in recordings]})
    (folder / _RECORDINGS).write_text(listed, encoding="utf-8")
    (folder / _ABOUT).write_text(json.dumps(asdict(identity), indent=1), encoding="utf-8")


def _learn_scale(
    chunks: Chunks, *, standardise: bool
) -> Float[np.ndarray, "mean_and_deviation dim"]:
    """Return the mean of each number, and its deviation or, where none is divided by it, 1."""
    count = 0
    total, squares = np.zeros(()), np.zeros(())
    for chunk in chunks():
        values = chunk["values"].astype(np.float64)
        count += len(values)
        total = total + values.sum(axis=0)
        squares = squares + (values**2).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # A number that never varies says nothing: it is left as it is, not divided by nothing.
    deviation[~(standardise & varies(mean, deviation))] = 1.0
    return np.stack([mean, deviation]).astype(np.float32)
