"""Running a trained network over a corpus: long clips in windows, one row per clip, unreadable clips left out and
named."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch, Clip
from melpatch.data.loader import evaluation_batches
from melpatch.data.manifest import Rejected
from melpatch.data.segments import windows
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

    Args:
        function: batch to one row per clip.
        clips: whose rows are wanted.
        sample_rate: Hz at which the function wants its waves.
        seconds: longest window.
        batch_size: windows at a time.
        workers: decoding processes.
        description: words for the progress bar; none is shown without.

    Raises:
        DataError: no clip could be read.
    """
    pieces = [piece for clip in clips for piece in windows(clip, seconds)]
    sums: dict[int, np.ndarray] = {}
    weights: dict[int, float] = {}
    rejected: list[Rejected] = []
    batches = evaluation_batches(pieces, sample_rate, batch_size=batch_size, workers=workers)
    shown = bar(len(pieces), description) if description else nullcontext()
    with shown as told, torch.inference_mode():
        for loaded in batches:
            rejected.extend(loaded.rejected)
            if loaded.batch is None:
                continue
            found = function(loaded.batch).double().cpu().numpy()
            lengths = loaded.batch.lengths.tolist()
            for key, length, row in zip(loaded.batch.keys.tolist(), lengths, found, strict=True):
                sums[key] = sums.get(key, np.zeros_like(row)) + length * row
                weights[key] = weights.get(key, 0.0) + length
            if told is not None:
                told.advance(len(found))
    kept = tuple(clip for clip in clips if clip.key in sums)
    if not kept:
        reason = f"; the first: {rejected[0].path} ({rejected[0].reason})" if rejected else ""
        raise DataError(f"none of {len(clips)} clips can be read{reason}; run melpatch prepare on the corpus")
    rows = np.stack([sums[clip.key] / weights[clip.key] for clip in kept])
    return Table(kept, rows, tuple(rejected))
