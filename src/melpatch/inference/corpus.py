"""A network over a corpus: one row per clip, averaged over windows; unreadable clips are named.

With several ranks each computes its share of the clips, and all ranks get the whole result.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import compress
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.counted import counted
from melpatch.data.clip import Batch, Clip
from melpatch.data.manifest import Rejected
from melpatch.data.ranges import shards_to_fetch_whole
from melpatch.distributed import all_gather_objects, require_same_on_all_ranks, shard_of_rank
from melpatch.errors import DataError, NotFiniteError, UnreachableError
from melpatch.inference.batches import NOT_FINITE, BatchFunction
from melpatch.inference.engine import InferenceTask, infer_many
from melpatch.inference.rows import MeanOfWindows, Row, ToRows, Total, recording_rows
from melpatch.inference.windows import RecordingEnd, WindowSpec
from melpatch.progress import bar

ClipFunction = Callable[[Batch], Float[Tensor, "clip column"]]
"""Maps a batch to one row per clip."""

Allocate = Callable[[tuple[int, int]], Float[np.ndarray, "clip column"]]
"""Makes zeros of a shape, in memory or on disk."""


@dataclass(frozen=True)
class ClipTable:
    """One row of numbers per clip.

    Attributes:
        clips: clips that could be read, in the order they were given.
        rows: their numbers.
        rejected: clips that could not be read, or not to their end; the latter have rows too.
    """

    clips: tuple[Clip, ...]
    rows: Float[np.ndarray, "clip column"]
    rejected: tuple[Rejected, ...]


class RankRows(NamedTuple):
    """The rows of one rank's share of the clips."""

    rows: Float[np.ndarray, "clip column"]
    """Zeros for clips that could not be read; no columns if none could."""
    readable: Bool[np.ndarray, " clip"]
    """Which clips could be read."""
    rejected: tuple[Rejected, ...]


class CorpusPass(NamedTuple):
    """How clips are taken through a network."""

    sample_rate: int
    """Rate that the network expects, in Hz."""
    seconds: float
    """Longest window; longer clips are cut into windows end to end."""
    batch_size: int = 32
    """Windows at a time."""
    workers: int = 0
    """Decoding processes; 0 decodes in a thread beside the network."""
    description: str = ""
    """Label of the progress bar; none is shown without."""


def infer_clips(
    function: ClipFunction,
    clips: Sequence[Clip],
    *,
    sample_rate: int,
    seconds: float,
    batch_size: int = 32,
    workers: int = 0,
    description: str = "",
) -> ClipTable:
    """Return the function's rows for clips of any length, averaged over windows by their length.

    Every rank must call it: each computes its share, and all get the whole table.

    *Differs:* unlike in ``Model.embed`` and ``Model.predict``, windows of unequal length may share
    a batch even if the encoder is ``length_dependent`` (stretched positions); the rows of a shorter
    clip then depend on the longest clip of its batch.

    Args:
        function: batch to one row per clip.
        clips: clips whose rows are wanted.
        sample_rate: see :class:`CorpusPass`, as the rest.
        seconds: longest window.
        batch_size: windows at a time.
        workers: decoding processes.
        description: label of the progress bar; none is shown without.

    Raises:
        DataError: no clip could be read, or ranks were given different clips.
    """
    how = CorpusPass(sample_rate, seconds, batch_size, workers, description)
    return clip_table(_per_window(function), clips, how)


def clip_table(
    function: BatchFunction,
    clips: Sequence[Clip],
    how: CorpusPass,
    new_total: Callable[[], Total] = MeanOfWindows,
) -> ClipTable:
    """Return one row per clip, of what its windows come to; every rank must call it.

    Args:
        function: batch to one array per window.
        clips: clips whose rows are wanted.
        how: windows, batches and decoding.
        new_total: makes what the windows of a clip come to; by default their mean.

    Raises:
        DataError: no clip could be read, or ranks were given different clips.
    """
    ranks = all_gather_objects(infer_rank_clips(function, clips, how, np.zeros, new_total))
    readable = merge_ranks([rank.readable for rank in ranks])
    rejected = tuple(clip for rank in ranks for clip in rank.rejected)
    kept = tuple(compress(clips, readable))
    require_readable(kept, clips, rejected)
    rows = merge_ranks([rank.rows for rank in ranks])
    if not readable.all():
        rows = rows[readable]
    return ClipTable(kept, rows, rejected)


def infer_rank_clips(
    function: BatchFunction,
    clips: Sequence[Clip],
    how: CorpusPass,
    allocate: Allocate,
    new_total: Callable[[], Total] = MeanOfWindows,
) -> RankRows:
    """Return the rows of this rank's share of the clips.

    Args:
        function: batch to one array per window.
        clips: clips of all ranks.
        how: windows, batches and decoding.
        allocate: makes the array that takes the rows, where they are to lie.
        new_total: makes what the windows of a clip come to; by default their mean.
    """
    share = shard_of_rank(clips)
    rows = np.zeros((len(share), 0))
    readable = np.zeros(len(share), dtype=bool)
    rejected: list[Rejected] = []
    to_rows = partial(recording_rows, new_total=new_total, keep_partial=True)
    for item in rank_rows(function, clips, how, to_rows):
        if isinstance(item, RecordingEnd):
            rejected.extend(rejection(share[item.recording], item, how.seconds))
            continue
        if not rows.size:
            # Only the first row tells how many columns there are. All rows are allocated at once,
            # because those of a large corpus fill the memory.
            rows = allocate((len(share), len(item.values)))
        rows[item.recording] = item.values
        readable[item.recording] = True
    return RankRows(rows, readable, tuple(rejected))


def _per_window(function: ClipFunction) -> BatchFunction:
    def run(batch: Batch) -> list[np.ndarray]:
        with torch.inference_mode():
            return [*function(batch).float().cpu().numpy()]

    return run


def rank_rows(
    function: BatchFunction, clips: Sequence[Clip], how: CorpusPass, to_rows: ToRows
) -> Iterator[Row | RecordingEnd]:
    """Yield the rows of this rank's share of the clips, and the end of each clip, in a fixed order.

    ``recording`` is the number of the clip in the share.

    Args:
        function: a batch of windows to one array per window.
        clips: clips of all ranks.
        how: windows, batches and decoding.
        to_rows: from these arrays to rows.

    Raises:
        DataError: ranks were given different clips, or another order of them.
    """
    require_same_on_all_ranks(
        [(clip.key, clip.start, clip.duration) for clip in clips],
        "the clips to go through, or their order,",
    )
    numbered = [*enumerate(shard_of_rank(clips))]
    # Short clips first, so that batches hold clips of similar length. Clips of at least one window
    # keep their order, so that the parts of a long file are read one after the other.
    numbered.sort(key=lambda item: min(item[1].duration, how.seconds))
    groups = [numbered] if numbered else []
    whole = shards_to_fetch_whole(clips)
    windows = WindowSpec(how.seconds, how.seconds, how.sample_rate, whole=whole)
    task = InferenceTask(windows, function, to_rows, pin_memory=torch.cuda.is_available())
    with ExitStack() as stack:
        shown = None
        if how.description:
            shown = stack.enter_context(bar(len(numbered), how.description, "clip"))
        items = infer_many(task, groups, batch_size=how.batch_size, workers=how.workers)
        for item in stack.enter_context(closing(items)):
            yield item
            if shown is not None and isinstance(item, RecordingEnd):
                shown.advance()


def rejection(clip: Clip, end: RecordingEnd, seconds: float) -> list[Rejected]:
    """Return what was wrong with a clip: an error, or windows behind the end of its file."""
    if isinstance(end.error, UnreachableError):
        # Not the clip's fault: scores without it would be those of another corpus.
        raise end.error
    if end.error is not None:
        return [Rejected(clip.location, end.error.reason)]
    if clip.duration == float("inf"):
        return []
    # A clip may be stated a little longer than it is, but not by a window. 1e-6 s absorb rounding.
    last_window = (ceil((clip.duration - 1e-6) / seconds) - 1) * seconds
    if end.seconds > last_window:
        return []
    reason = f"ends after {end.seconds:.3f} s of the {clip.duration:.3f} s that are listed"
    return [Rejected(clip.location, reason)]


def merge_ranks(
    shares: Sequence[np.ndarray],
    allocate: Callable[[tuple[int, ...], Any], np.ndarray] = np.empty,
) -> np.ndarray:
    """Return the shares of all ranks as one array, in the order of the clips.

    Args:
        shares: in the order of the ranks; one without columns stands for zeros.
        allocate: from shape and dtype to the array to fill.
    """
    if len(shares) == 1:
        return shares[0]
    # A rank that could read nothing does not know the number of columns.
    widest = max(shares, key=lambda share: share.size)
    merged = allocate((sum(map(len, shares)), *widest.shape[1:]), widest.dtype)
    # Rank r has the clips r, r + world size, r + 2 * world size, ...
    for rank, share in enumerate(shares):
        rows = share if share.shape[1:] == widest.shape[1:] else 0
        merged[rank :: len(shares)] = rows
    return merged


def require_readable(
    readable: Sequence[Clip], clips: Sequence[Clip], rejected: Sequence[Rejected]
) -> None:
    """Raise a DataError if none of the clips could be read."""
    if readable:
        return
    first = f"; the first: {rejected[0].path} ({rejected[0].reason})" if rejected else ""
    if rejected and all(clip.reason == NOT_FINITE for clip in rejected):
        raise NotFiniteError(
            f"none of {counted(len(clips), 'clip')} has finite outputs{first}; "
            "the network's weights may be out of range"
        )
    raise DataError(
        f"none of {counted(len(clips), 'clip')} can be read{first}; "
        "run melpatch prepare on the corpus"
    )
