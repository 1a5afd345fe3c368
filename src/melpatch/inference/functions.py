"""``melpatch.embed`` and ``melpatch.predict``: from a run and audio to results, in one call.

>>> vector = melpatch.embed("runs/a", "dawn.flac")
>>> for path, vector in melpatch.embed("runs/a", "recordings/"): ...
>>> model = melpatch.load("runs/b")  # load once for many calls
>>> melpatch.predict(model, wave, sample_rate=44100)
"""

from collections.abc import Iterator, Sequence
from math import inf
from os import PathLike
from pathlib import Path
from typing import cast

from melpatch.data.corpus import Rejected
from melpatch.errors import ConfigError
from melpatch.inference.model import FilePath, Model, load
from melpatch.inference.network import Precision
from melpatch.inference.results import Embedding, Predictions
from melpatch.inference.samples import Audio
from melpatch.inference.sources import list_recordings
from melpatch.training.run import Run


def embed(
    run: FilePath | Run | Model,
    audio: Audio | Sequence[FilePath],
    sample_rate: int | None = None,
    *,
    pooling: str | None = None,
    layer: int | None = None,
    hop: float | None = None,
    device: str | None = None,
    precision: Precision = "32-true",
    batch_size: int | None = None,
    workers: int | None = None,
    rejected: list[Rejected] | None = None,
    trust_code: bool = False,
) -> Embedding | Iterator[tuple[Path, Embedding]]:
    """Return the embedding of a recording, or an iterator over those of a folder or list of files.

    Args:
        run: a run, its folder, or a loaded model.
        audio: one recording, as a file, an open file, an array or a tensor; or a folder or list of
            files, of which each comes with its embedding.
        sample_rate: rate of samples in Hz; files state their own.
        pooling: see :meth:`melpatch.Model.embed`.
        layer: see :meth:`melpatch.Model.embed`.
        hop: length of a frame in seconds; None gives one vector per recording.
        device: where to compute, see :func:`melpatch.load`; not for a loaded model.
        precision: arithmetic of the network, see :func:`melpatch.load`; not for a loaded model.
        batch_size: windows at a time, for many files.
        workers: decoding processes, for many files.
        rejected: list that takes the files that cannot be read; without it, the first of them is an
            error.
        trust_code: see :func:`melpatch.load`.

    Raises:
        AudioError: a file cannot be read.
        ConfigError: the model cannot take the audio, pooling, layer or hop.
        DataError: a folder holds no sound file.
    """
    model = _model(run, device, precision, trust_code)
    files = files_of(audio)
    if files is None:
        recording = cast("Audio", audio)
        if hop is None:
            return model.embed(recording, sample_rate, pooling=pooling, layer=layer)
        return model.embed(recording, sample_rate, pooling=pooling, layer=layer, hop=hop)
    return model.embed_many(
        files,
        pooling=pooling,
        layer=layer,
        hop=hop,
        batch_size=batch_size,
        workers=workers,
        rejected=rejected,
    )


def predict(
    run: FilePath | Run | Model,
    audio: Audio | Sequence[FilePath],
    sample_rate: int | None = None,
    *,
    hop: float | None = None,
    device: str | None = None,
    precision: Precision = "32-true",
    batch_size: int | None = None,
    workers: int | None = None,
    rejected: list[Rejected] | None = None,
    trust_code: bool = False,
) -> Predictions | Iterator[tuple[Path, Predictions]]:
    """Return the predictions for a recording, or an iterator over those of a folder or list.

    Args:
        run: a fine-tuned run, its folder, or a loaded model.
        audio: see :func:`embed`.
        sample_rate: rate of samples in Hz; files state their own.
        hop: seconds between the starts of windows; None gives one prediction per recording.
        device: see :func:`embed`.
        precision: see :func:`embed`.
        batch_size: see :func:`embed`.
        workers: see :func:`embed`.
        rejected: see :func:`embed`.
        trust_code: see :func:`melpatch.load`.

    Raises:
        AudioError: a file cannot be read.
        ConfigError: the model was not trained with labels, or cannot take the audio or hop.
        DataError: a folder holds no sound file.
    """
    model = _model(run, device, precision, trust_code)
    files = files_of(audio)
    if files is None:
        return model.predict(cast("Audio", audio), sample_rate, hop=hop)
    return model.predict_many(
        files, hop=hop, batch_size=batch_size, workers=workers, rejected=rejected
    )


def files_of(audio: object) -> list[Path] | None:
    """Return the files of a folder, or of a list of files and folders; None for one recording.

    Raises:
        ConfigError: a list holds something else, or a folder holds shards.
        DataError: something named does not exist, or there is no sound file.
    """
    if isinstance(audio, str | PathLike):
        if not Path(audio).is_dir():
            return None
        audio = [audio]
    if not isinstance(audio, list | tuple) or not audio:
        return None
    if all(isinstance(value, int | float) for value in audio):
        return None
    for value in audio:
        if not isinstance(value, str | PathLike):
            raise ConfigError(
                f"a list with {type(value).__name__}; give a list of files, "
                "or one recording at a time"
            )
    clips = list_recordings([str(path) for path in audio])
    for clip in clips:
        if clip.size or clip.start or clip.duration != inf:
            raise ConfigError(
                f"{clip.location}: part of a file or shard; write a table of them with "
                "the commands melpatch embed and melpatch predict"
            )
    return [clip.path for clip in clips]


def _model(
    run: FilePath | Run | Model, device: str | None, precision: Precision, trust_code: bool
) -> Model:
    if isinstance(run, Model):
        return run
    return load(run, device, precision, trust_code=trust_code)
