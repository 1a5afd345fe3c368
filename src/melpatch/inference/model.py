"""What users hold: a trained model that embeds and labels recordings of any length.

>>> import melpatch
>>> model = melpatch.load("runs/b")
>>> model.predict("dawn.flac", hop=1.0)
>>> vector = model.embed(wave, sample_rate=44100)
>>> for path, vector in model.embed_many(paths): ...
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch import distributed
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.data.corpus import Rejected
from melpatch.errors import ConfigError
from melpatch.inference.rows import Row, each, frames, means
from melpatch.inference.task import Audio, Reduce, Task, of_many, of_one
from melpatch.inference.windows import Windowing, whole
from melpatch.nn.pooling import Pooling, pool
from melpatch.objectives.base import Features, Objective
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig
from melpatch.training.start import load_run

Precision = Literal["auto", "32-true", "bf16-mixed"]
"""Arithmetic of a trained network. "auto" is bf16-mixed on a GPU that computes in it, as in training, and float32
elsewhere: on a CPU the answers are the same to rounding, whatever the batches."""


class Frames(NamedTuple):
    """Embeddings along a recording."""

    start: Float[np.ndarray, " frame"]
    """Where each frame begins, in seconds from the start of the recording."""
    end: Float[np.ndarray, " frame"]
    """Where each frame ends, in seconds."""
    vectors: Float[np.ndarray, "frame dim"]


class Prediction(NamedTuple):
    """What a stretch of a recording was taken for."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    probabilities: dict[str, float]
    """One number per label; they sum to one unless the task is multi-label."""

    @property
    def label(self) -> str:
        """Return the most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def load(
    path: str | PathLike[str],
    device: str | torch.device | None = None,
    precision: Precision = "32-true",
) -> "Model":
    """Return the model of a run folder.

    Args:
        path: a folder that ``melpatch pretrain`` or ``melpatch finetune`` wrote.
        device: where to compute; a GPU if there is one.
        precision: arithmetic of the network; float32 unless told otherwise.
    """
    config, objective = load_run(Path(path))
    return Model(config, objective, device, precision)


class Model:
    """A trained objective with its ears: it resamples what it is given, and never guesses a rate."""

    def __init__(
        self,
        config: RunConfig,
        objective: Objective,
        device: str | torch.device | None = None,
        precision: Precision = "32-true",
    ) -> None:
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        self.precision = (
            precision if precision != "auto" else "bf16-mixed" if has_bf16 else "32-true"
        )
        self.objective = objective.eval().to(self.device)
        self.sample_rate = objective.front_end.sample_rate
        self.seconds = objective.input_seconds(config.objective, config.loader.seconds)
        self.labels = config.labels

    @property
    def default_pooling(self) -> Pooling:
        """Return the pooling a classifier was trained with; else ``frequency``, which keeps the rows of the grid."""
        return (
            self.objective.config.pooling if isinstance(self.objective, Classify) else "frequency"
        )

    @overload
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: Pooling | None = None,
        layer: int | None = None,
    ) -> Float[np.ndarray, " dim"]: ...
    @overload
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: Pooling | None = None,
        layer: int | None = None,
        hop: float,
    ) -> Frames: ...
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: Pooling | None = None,
        layer: int | None = None,
        hop: float | None = None,
    ) -> Float[np.ndarray, " dim"] | Frames:
        """Return one vector for a recording, or with ``hop`` one per so many seconds with its times.

        Args:
            audio: a file, or samples in [-1, 1] of one channel.
            sample_rate: rate of the samples in Hz; files know their own.
            pooling: tokens to vector, see :func:`melpatch.nn.pooling.pool`; by default :attr:`default_pooling`,
                or with ``hop`` the mean where that does not go with it.
            layer: block whose output to take, -1 being the last, before the final norm; None takes the final norm's.
            hop: length of a frame in seconds; at least one column of patches (0.16 s with 16-frame patches).

        Recordings longer than the model's input go through in windows, in bounded memory: end to end for one vector,
        each half over the one before for frames, so that none is heard at the edge of a window only.

        Raises:
            AudioError: the file cannot be read.
            ConfigError: the samples, pooling, layer or hop are not what the model can take.
        """
        return _embedding([*of_one(self.embedding(pooling, layer, hop), audio, sample_rate)], hop)

    def predict(
        self, audio: Audio, sample_rate: int | None = None, *, hop: float | None = None
    ) -> list[Prediction]:
        """Return labels with probabilities for a whole recording, or with ``hop`` for a window every so many seconds.

        Args:
            audio: a file, or samples in [-1, 1] of one channel.
            sample_rate: rate of the samples in Hz; files know their own.
            hop: seconds between the starts of windows, each as long as the model's input; None gives one prediction,
                the mean over windows end to end.

        Raises:
            AudioError: the file cannot be read.
            ConfigError: the model was not trained with labels, or the samples or hop are not what it can take.
        """
        return [self._prediction(row) for row in of_one(self.prediction(hop), audio, sample_rate)]

    def predict_windows(
        self, audio: Audio, sample_rate: int | None = None, hop: float | None = None
    ) -> Iterator[Prediction]:
        """Yield the predictions of a recording's windows, by default end to end, as they are made."""
        task = self.prediction(self.seconds if hop is None else hop)
        yield from map(self._prediction, of_one(task, audio, sample_rate))

    def embed_many(
        self,
        paths: Iterable[str | PathLike[str]],
        *,
        pooling: Pooling | None = None,
        layer: int | None = None,
        hop: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        rejected: list[Rejected] | None = None,
    ) -> Iterator[tuple[Path, Float[np.ndarray, " dim"] | Frames]]:
        """Yield each file with what :meth:`embed` returns for it, in the order of the files, many windows at a time.

        Args:
            paths: sound files.
            pooling: see :meth:`embed`.
            layer: see :meth:`embed`.
            hop: see :meth:`embed`.
            batch_size: windows at a time; by default :attr:`default_batch_size`.
            workers: decoding processes, by default :attr:`default_workers`; 0 decodes in a thread beside the network.
            rejected: takes the files that cannot be read; without it the first of them is an error.

        Raises:
            AudioError: a file cannot be read.
            ConfigError: the pooling, layer or hop is not what the model can take.
        """
        task = self.embedding(pooling, layer, hop)
        for path, rows in self._of_many(task, paths, batch_size, workers, rejected):
            yield path, _embedding(rows, hop)

    def predict_many(
        self,
        paths: Iterable[str | PathLike[str]],
        *,
        hop: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        rejected: list[Rejected] | None = None,
    ) -> Iterator[tuple[Path, list[Prediction]]]:
        """Yield each file with what :meth:`predict` returns for it, as :meth:`embed_many` does."""
        for path, rows in self._of_many(self.prediction(hop), paths, batch_size, workers, rejected):
            yield path, [*map(self._prediction, rows)]

    @property
    def default_batch_size(self) -> int:
        """Return how many windows to compute at a time: more where there is a GPU to fill."""
        return 64 if self.device.type == "cuda" else 8

    @property
    def default_workers(self) -> int:
        """Return how many processes to decode with: up to 8 where there is a GPU to feed."""
        if (
            self.device.type != "cuda" or multiprocessing.current_process().daemon
        ):  # which may have no processes
            return 0
        return min(8, len(os.sched_getaffinity(0)) // distributed.local_world_size())

    def embedding(self, pooling: Pooling | None, layer: int | None, hop: float | None) -> Task:
        """Return what :meth:`embed` asks of a recording.

        Raises:
            ConfigError: the pooling or hop is not what the model can take.
        """
        if pooling is None and (hop is None or self.default_pooling in ("mean", "frequency")):
            pooling = self.default_pooling
        pooling = pooling or "mean"  # a frame has no class token, and no maximum over time
        if hop is None:
            return self._task(
                self.seconds, lambda batch: _arrays(self.embed_batch(batch, pooling, layer)), means
            )
        grid, hop_seconds = self.objective.encoder.grid, self.objective.front_end.hop_seconds
        column = grid.stride[1] * hop_seconds
        check(
            hop >= column - 1e-9,
            "hop",
            hop,
            f"{column:g} s or more, the length of a column of patches",
        )
        allowed = "'mean' or 'frequency' where there is a hop"
        check(pooling in ("mean", "frequency"), "pooling", pooling, allowed)
        rows = partial(frames, hop=hop, column=column, width=grid.patch[1] * hop_seconds)
        return self._task(
            self.seconds / 2, lambda batch: self._columns(batch, pooling, layer), rows
        )

    def prediction(self, hop: float | None) -> Task:
        """Return what :meth:`predict` asks of a recording.

        Raises:
            ConfigError: the model was not trained with labels, or the hop is shorter than a sample.
        """
        self._classifier()
        hop, rows = (self.seconds, means) if hop is None else (hop, each)
        return self._task(hop, lambda batch: _arrays(self.predict_batch(batch)), rows)

    @torch.inference_mode()
    def predict_batch(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for a batch at the model's rate."""
        with self._arithmetic():
            return self._classifier().probabilities(batch.to(self.device))

    @torch.inference_mode()
    def embed_batch(
        self, batch: Batch, pooling: Pooling, layer: int | None = None
    ) -> Float[Tensor, "clip dim"]:
        """Return one vector per clip of a batch at the model's rate."""
        features = self.objective.features(batch.to(self.device))
        patches, cls = self._tokens(features, layer)
        return pool(patches, cls, features.valid, self.objective.encoder.grid.rows, pooling)

    @torch.inference_mode()
    def _columns(
        self, batch: Batch, pooling: Pooling, layer: int | None
    ) -> list[Float[np.ndarray, "column dim"]]:
        """Return one vector per column of patches of each clip."""
        features, rows = (
            self.objective.features(batch.to(self.device)),
            self.objective.encoder.grid.rows,
        )
        patches, _ = self._tokens(features, layer)
        by_row = patches.view(len(patches), rows, -1, patches.shape[-1]).float()
        found = by_row.mean(dim=1) if pooling == "mean" else by_row.transpose(1, 2).flatten(2)
        if features.valid is None:
            return _arrays(found)
        own = features.valid.view(len(found), rows, -1)[:, 0].sum(dim=1).tolist()
        return [columns[:count] for columns, count in zip(_arrays(found), own, strict=True)]

    def _tokens(self, features: Features, layer: int | None) -> tuple[Tensor, Tensor]:
        encoder = self.objective.export_encoder()
        with self._arithmetic():
            encoded = encoder(features.spectrogram, features.valid, layers=layer is not None)
        if layer is None:
            return encoded.patches, encoded.cls
        if not -encoder.num_layers <= layer < encoder.num_layers:
            raise ConfigError(
                f"layer = {layer}; allowed: {-encoder.num_layers} to {encoder.num_layers - 1}"
            )
        count = encoded.cls.shape[1]
        return encoded.layers[layer][:, count:], encoded.layers[layer][:, :count]

    def _classifier(self) -> Classify:
        if not isinstance(self.objective, Classify):
            raise ConfigError(
                f"a {type(self.objective).__name__} run has no labels to predict; fine-tune it first: "
                "melpatch finetune --init RUN --data labels.csv --out OTHER"
            )
        return self.objective

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed"
        )

    def _task(
        self, hop: float, function: Callable[[Batch], list[np.ndarray]], rows: Reduce
    ) -> Task:
        alike = (
            getattr(self.objective.encoder.config, "positions", None) == "stretched"
        )  # to the length of the batch
        check(
            hop * self.sample_rate >= 1, "hop", hop, f"at least one sample, 1/{self.sample_rate} s"
        )
        cut = Windowing(self.seconds, hop, self.sample_rate)
        return Task(cut, function, rows, alike=alike, pin=self.device.type == "cuda")

    def _of_many(
        self,
        task: Task,
        paths: Iterable[str | PathLike[str]],
        batch_size: int | None,
        workers: int | None,
        rejected: list[Rejected] | None,
    ) -> Iterator[tuple[Path, list[Row]]]:
        """Yield each file that can be read with its rows."""
        files, rows = [Path(path) for path in paths], list[Row]()
        numbered = [*enumerate(map(whole, files))]
        size, groups = batch_size or self.default_batch_size, [numbered] if files else []
        workers = self.default_workers if workers is None else workers
        with closing(of_many(task, groups, batch_size=size, workers=workers)) as found:
            for item in found:
                if isinstance(item, Row):
                    rows.append(item)
                    continue
                if item.error is None:
                    yield files[item.recording], rows
                elif rejected is None:
                    raise item.error
                else:
                    rejected.append(Rejected(str(files[item.recording]), item.error.reason))
                rows = []

    def _prediction(self, row: Row) -> Prediction:
        return Prediction(
            row.start, row.end, dict(zip(self.labels, row.values.tolist(), strict=True))
        )


def _arrays(values: Float[Tensor, "clip ..."]) -> list[np.ndarray]:
    return [*values.float().cpu().numpy()]


def _embedding(rows: Sequence[Row], hop: float | None) -> Float[np.ndarray, " dim"] | Frames:
    """Return the vector of a recording's only row, or its frames."""
    if hop is None:
        return rows[0].values
    starts, ends = (np.array([getattr(row, name) for row in rows]) for name in ("start", "end"))
    return Frames(starts, ends, np.stack([row.values for row in rows]))
