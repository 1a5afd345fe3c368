"""Short vectors of an index: principal components of windows of its first recordings, whitened.

Vectors that are good neighbours are long, and their numbers are correlated. An index of a run that
has no fit-embedding learns from windows of its recordings how to make them short, and keeps that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, inf
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.audio.files import probe
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.distributed import on_rank_zero
from melpatch.errors import AudioError
from melpatch.faults import let_pass
from melpatch.inference.components import Components
from melpatch.inference.engine import infer_many
from melpatch.inference.fitted import FILE, FittedPooling, read_fitted, write_fitted
from melpatch.inference.model import Model
from melpatch.inference.tasks import stretch_task
from melpatch.inference.windows import RecordingEnd
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.only_writer import only_writer
from melpatch.progress import bar, notice

WINDOWS = 4000
"""Windows that vectors are fitted to, about."""
FEWEST = 200
"""Windows below which none are fitted."""
DIM = 128
"""Length of a short vector."""
_FIX = "restore it from a backup, or delete the folder and run melpatch index again"


def open_short_vectors(folder: Path, model: Model, weights: str) -> None:
    """Let a model make the short vectors of an index, if it has some of its own.

    Args:
        folder: the folder of the index.
        model: the model that made it.
        weights: hash of the model.

    Raises:
        CheckpointError: they are damaged, or of another model.
    """
    if (folder / FILE).exists():
        model.network.fitted = read_fitted(folder, weights, _FIX)


def fit_short_vectors(
    folder: Path,
    model: Model,
    recordings: Sequence[Clip],
    *,
    weights: str,
    window: float,
    batch_size: int,
    workers: int,
) -> None:
    """Fit short vectors to windows of recordings, and let the model make them; a collective call.

    They are kept in the folder of the index. None are fitted where there are fewer than
    :data:`FEWEST` windows with sound, or nothing in them varies.

    Args:
        folder: the folder of the index.
        model: the model that embeds.
        recordings: the recordings to draw from; those that cannot be read are passed over.
        weights: hash of the model.
        window: length of a window in seconds.
        batch_size: windows at a time.
        workers: processes that decode.
    """

    def fit() -> FittedPooling | None:
        vectors = _vectors(model, recordings, window, batch_size, workers)
        if len(vectors) < FEWEST:
            return None
        components = Components.of(np.stack(vectors), DIM)
        if components.rank == 0:
            return None
        long = model.network.resolve_pooling(DEFAULT_POOLING)
        pooling = components.pooling(long, components.whitened())
        write_fitted(folder, pooling, weights)
        notice(
            f"{folder / FILE}: vectors of {counted(pooling.dim, 'number')}, fitted to "
            f"{counted(len(vectors), 'window')} of these recordings"
        )
        return pooling

    with only_writer(folder / FILE):
        model.network.fitted = on_rank_zero(fit)


def _vectors(
    model: Model, recordings: Sequence[Clip], window: float, batch_size: int, workers: int
) -> list[Float[np.ndarray, " number"]]:
    """Return the long vectors of some windows with sound; none where there are too few windows."""
    task = stretch_task(
        model.network,
        model.seconds,
        window=window,
        hop=window,
        pooling=DEFAULT_POOLING,
        channel=model.config.channel,
    )
    # A drawn window is a clip of its own.
    clips = [*enumerate(_drawn_windows(recordings, window))]
    if len(clips) < FEWEST:
        return []
    vectors = []
    with bar(len(clips), "fitting short vectors", "window") as shown:
        for item in infer_many(task, [clips], batch_size=batch_size, workers=workers):
            if isinstance(item, RecordingEnd):
                shown.advance()
            elif not item.silent:
                vectors.append(item.values)
    return vectors


def _drawn_windows(recordings: Sequence[Clip], window: float) -> Iterator[Clip]:
    """Yield windows at random places in recordings, equally many in each as far as it is long."""
    generator = np.random.default_rng(0)
    each = ceil(WINDOWS / len(recordings))
    for number in np.sort(generator.permutation(len(recordings))[:WINDOWS]):
        recording = recordings[number]
        duration = _seconds_of(recording, otherwise=window)
        count = min(each, max(1, round(duration / window)))
        for start in np.sort(generator.uniform(0, max(0.0, duration - window), count)):
            yield replace(
                recording,
                start=recording.start + float(start),
                duration=min(window, duration - float(start)),
            )


def _seconds_of(recording: Clip, otherwise: float) -> float:
    """Return the length of a recording, or another number where no table and no header states it."""
    if recording.duration < inf:
        return recording.duration
    try:
        info = probe(recording.path)
    except AudioError as error:
        # Whoever indexes it lists it with the reason.
        let_pass(error)
        return otherwise
    if info.samples is None:
        return otherwise
    return info.samples / info.sample_rate - recording.start
