"""Running a trained network over a corpus: long clips in windows, one row per clip, unreadable clips left out and
named. Several processes share the clips out, and each gets what all have found."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.data.clip import Batch, Clip
from melpatch.data.loader import Loaded, evaluation_batches
from melpatch.data.manifest import Rejected
from melpatch.data.segments import windows
from melpatch.distributed import all_gather_objects, require_same_on_all_ranks, shard_of_rank
from melpatch.errors import DataError
from melpatch.progress import bar


@dataclass(frozen=True)
class Table:
    """One row of numbers per clip.

    Attributes:
        clips: the clips that could be read, in the order they were given.
        rows: their numbers.
        rejected: the others, and the windows that could not be read of clips that end before they should.
    """

    clips: tuple[Clip, ...]
    rows: Float[np.ndarray, "clip column"]
    rejected: tuple[Rejected, ...]


class Share(NamedTuple):
    """What one process found of the clips that are its own."""

    rows: Float[np.ndarray, "clip column"]
    """Those of clips that could not be read are 0; without any that could, there is no column."""
    read: Bool[np.ndarray, " clip"]
    """Which clips could be read."""
    rejected: tuple[Rejected, ...]


def over_clips(
    function: Callable[[Batch], Float[Tensor, "clip column"]],
    clips: Sequence[Clip],
    *,
    sample_rate: int,
    seconds: float,
    batch_size: int = 32,
    workers: int = 0,
    description: str = "",
) -> Table:
    """Return the function's rows for clips of any length, averaged over windows end to end, weighted by their length.

    Of several processes each computes its share, and all get the whole table; all must call it.

    Args:
        function: batch to one row per clip.
        clips: whose rows are wanted.
        sample_rate: Hz at which the function wants its waves.
        seconds: longest window.
        batch_size: windows at a time.
        workers: decoding processes.
        description: words for the progress bar; none is shown without.

    Raises:
        DataError: no clip could be read, or the processes were given other ones.
    """
    asked = {
        "sample_rate": sample_rate,
        "seconds": seconds,
        "batch_size": batch_size,
        "workers": workers,
    }
    shares = all_gather_objects(share(function, clips, np.zeros, description=description, **asked))
    read = whole([one.read for one in shares])
    rejected = tuple(each for one in shares for each in one.rejected)
    kept = tuple(compress(clips, read))
    require_some(kept, clips, rejected)
    rows = whole([one.rows for one in shares])
    return Table(kept, rows if read.all() else rows[read], rejected)


def share(
    function: Callable[[Batch], Float[Tensor, "clip column"]],
    clips: Sequence[Clip],
    made: Callable[[tuple[int, int]], Float[np.ndarray, "clip column"]],
    **asked: Any,
) -> Share:
    """Return the rows of this process's share of the clips.

    Args:
        function: batch to one row per clip.
        clips: those of all processes.
        made: from a shape to the zeros that become the rows, wherever these are to lie.
        **asked: see :func:`over_clips`.
    """
    own = shard_of_rank(clips)
    place = {clip.key: number for number, clip in enumerate(own)}
    rows, weights = np.zeros((len(own), 0)), np.zeros(len(own))
    rejected: list[Rejected] = []
    for loaded in over_windows(clips, **asked):
        rejected.extend(loaded.rejected)
        if loaded.batch is None:
            continue
        with torch.inference_mode():
            found = function(loaded.batch).double().cpu().numpy()
        if not rows.size:  # all at once, since the rows of a large corpus fill the memory
            rows = made((len(own), found.shape[1]))
        for key, length, row in zip(
            loaded.batch.keys.tolist(), loaded.batch.lengths.tolist(), found, strict=True
        ):
            at = place[key]
            weights[at] += length
            rows[at] += (row - rows[at]) * (length / weights[at])
    return Share(rows, weights > 0, tuple(rejected))


def whole(
    shares: Sequence[np.ndarray], made: Callable[[tuple[int, ...], Any], np.ndarray] = np.empty
) -> np.ndarray:
    """Return the shares of all processes as one array, in the order of what was shared out.

    Args:
        shares: in the order of the processes; one without columns stands for nothing but zeros.
        made: from shape and dtype to the array to fill.
    """
    if len(shares) == 1:
        return shares[0]
    widest = max(shares, key=lambda one: one.size)
    found = made((sum(map(len, shares)), *widest.shape[1:]), widest.dtype)
    for number, one in enumerate(shares):
        found[number :: len(shares)] = one if one.shape[1:] == widest.shape[1:] else 0
    return found


def over_windows(
    clips: Sequence[Clip],
    *,
    sample_rate: int,
    seconds: float,
    batch_size: int = 32,
    workers: int = 0,
    description: str = "",
) -> Iterator[Loaded]:
    """Yield this process's share of clips of any length as batches of windows end to end; for the arguments see
    :func:`over_clips`. All windows of a clip have its key, and come in a fixed order, but not in that of time.

    Raises:
        DataError: the processes were given other clips, or the same in another order.
    """
    require_same_on_all_ranks(
        [(clip.key, clip.start, clip.duration) for clip in clips],
        "the clips to go through, or their order,",
    )
    pieces = [piece for clip in shard_of_rank(clips) for piece in windows(clip, seconds)]
    shown = bar(len(pieces), description) if description else nullcontext()
    with shown as told:
        for loaded in evaluation_batches(
            pieces, sample_rate, batch_size=batch_size, workers=workers
        ):
            yield loaded
            if told is not None:
                told.advance(
                    len(loaded.rejected) + (0 if loaded.batch is None else len(loaded.batch))
                )


def require_some(kept: Sequence[Clip], clips: Sequence[Clip], rejected: Sequence[Rejected]) -> None:
    """Raise a DataError if none of the clips could be read."""
    if not kept:
        reason = f"; the first: {rejected[0].path} ({rejected[0].reason})" if rejected else ""
        raise DataError(
            f"none of {len(clips)} clips can be read{reason}; run melpatch prepare on the corpus"
        )
