"""Short vectors of an index: principal components of windows of its first recordings, whitened.

Vectors that are good neighbours are long, and their numbers are correlated. An index of a run that
has no fit-embedding learns from windows of its recordings how to make them short, and keeps that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.audio.files import probe
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.distributed import on_rank_zero
from melpatch.errors import AudioError, CheckpointError
from melpatch.faults import let_pass
from melpatch.inference.components import Components
from melpatch.inference.engine import infer_many
from melpatch.inference.fitted import FittedPooling, read_fitted, write_fitted
from melpatch.inference.model import Model
from melpatch.inference.tasks import stretch_task
from melpatch.inference.windows import RecordingEnd
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.progress import bar, notice

FILE = "short_vectors.safetensors"
"""Their file in the folder of an index."""
WINDOWS = 4000
"""Windows that vectors are fitted to, at most about as many."""
FEWEST = 200
"""Windows with sound below which none are fitted."""
DIM = 128
"""Length of a short vector, at most."""
_PLACES = 8
"""Places of a recording from which windows are taken; to find a place, MP3 is decoded up to it."""
_FIX = "restore it from a backup, or delete the folder and run melpatch index again"


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of an index.

    Attributes:
        length: in seconds.
        hop: seconds between the starts of two.
    """

    length: float
    hop: float

    def count(self, seconds: float) -> int:
        """Return how many windows a recording has."""
        return 1 + max(0, ceil((seconds - self.length) / self.hop - 1e-6))

    def seconds(self, count: int) -> float:
        """Return the length of a stretch with this many windows."""
        return self.length + (count - 1) * self.hop


def read_short_vectors(folder: Path, weights: str) -> FittedPooling:
    """Return the fitted pooling of an index.

    Args:
        folder: the folder of the index.
        weights: hash of the model that made it.

    Raises:
        CheckpointError: it is gone or damaged, or of another model.
    """
    path = folder / FILE
    if not path.exists():
        raise CheckpointError(f"{path}: is missing; {_FIX}")
    return read_fitted(path, weights, _FIX)


def fit_short_vectors(
    folder: Path,
    model: Model,
    recordings: Sequence[Clip],
    *,
    windows: Windows,
    weights: str,
    batch_size: int,
    workers: int,
    resume: bool,
) -> bool:
    """Fit short vectors to windows of recordings, and let the model make them; a collective call.

    They are kept in the folder of the index.

    Args:
        folder: the folder of the index.
        model: the model that embeds.
        recordings: the recordings to draw from; those that cannot be read are passed over.
        windows: the windows of the index.
        weights: hash of the model.
        batch_size: windows at a time.
        workers: processes that decode.
        resume: whether those that a killed run has fitted are taken.

    Returns:
        Whether the model makes them; not where fewer than :data:`FEWEST` windows have sound, or
        nothing in them varies.
    """

    def fit() -> FittedPooling | None:
        earlier = _of_killed_run(folder, weights) if resume else None
        if earlier is not None:
            return earlier
        vectors = _vectors(model, recordings, windows, batch_size, workers)
        if len(vectors) < FEWEST:
            return None
        components = Components.of(np.stack(vectors), DIM)
        if components.rank == 0:
            return None
        long = model.network.resolve_pooling(DEFAULT_POOLING)
        pooling = components.pooling(long, components.whitened())
        write_fitted(folder / FILE, pooling, weights)
        notice(
            f"{folder / FILE}: vectors of {counted(pooling.dim, 'number')}, fitted to "
            f"{counted(len(vectors), 'window')} of these recordings"
        )
        return pooling

    model.network.fitted = on_rank_zero(fit)
    return model.network.fitted is not None


def _of_killed_run(folder: Path, weights: str) -> FittedPooling | None:
    if not (folder / FILE).exists():
        return None
    try:
        return read_short_vectors(folder, weights)
    except CheckpointError as error:
        # Nothing was indexed by them; if something was, its settings are compared.
        let_pass(error)
        return None


def _vectors(
    model: Model, recordings: Sequence[Clip], windows: Windows, batch_size: int, workers: int
) -> list[Float[np.ndarray, " number"]]:
    """Return the long vectors of some windows with sound; none where there are too few windows."""
    task = stretch_task(
        model.network,
        model.seconds,
        window=windows.length,
        hop=windows.hop,
        pooling=DEFAULT_POOLING,
        channel=model.config.channel,
    )
    # A drawn stretch is a clip of its own.
    clips = [*enumerate(_drawn_stretches(recordings, windows))]
    if sum(windows.count(clip.duration) for _, clip in clips) < FEWEST:
        return []
    vectors = []
    with bar(len(clips), "fitting short vectors", "stretch") as shown:
        for item in infer_many(task, [clips], batch_size=batch_size, workers=workers):
            if isinstance(item, RecordingEnd):
                shown.advance()
            elif not item.silent:
                vectors.append(item.values)
    return vectors


def _drawn_stretches(recordings: Sequence[Clip], windows: Windows) -> Iterator[Clip]:
    """Yield stretches at random places in recordings, equally many windows of each as far as it goes."""
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.permutation(len(recordings))[:WINDOWS])
    each = WINDOWS // len(chosen)
    for number in chosen:
        recording = recordings[number]
        seconds = _seconds_of(recording)
        if seconds is None:
            # A length that nothing states is found by reading on from the start.
            yield replace(recording, duration=windows.seconds(each))
        elif windows.count(seconds) <= 2 * each:
            yield replace(recording, duration=seconds)
        else:
            places = min(_PLACES, each)
            stretch = windows.seconds(each // places)
            for start in np.sort(generator.uniform(0, seconds - stretch, places)):
                yield replace(recording, start=recording.start + float(start), duration=stretch)


def _seconds_of(recording: Clip) -> float | None:
    """Return the length of a recording by its table and its file's header; None if none is stated."""
    try:
        info = probe(recording.path)
    except AudioError as error:
        # Whoever indexes it lists it with the reason.
        let_pass(error)
        return 0.0
    if info.samples is None:
        return recording.duration if recording.duration < inf else None
    there = max(0.0, info.samples / info.sample_rate - recording.start)
    return min(recording.duration, there)
