"""What users hold: a trained model that embeds and labels recordings of any length.

>>> import melpatch
>>> model = melpatch.load("runs/b")
>>> model.predict("dawn.flac", hop=1.0)
>>> vector = model.embed(wave, sample_rate=44100)
>>> for path, vector in model.embed_many(paths): ...
>>> for vector in model.embed_each(waves, sample_rate=44100): ...
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from os import PathLike
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch import distributed
from melpatch.data.clip import Batch
from melpatch.data.corpus import Rejected
from melpatch.data.limits import require_batch, require_workers
from melpatch.default_dtype import float32_by_default
from melpatch.errors import ConfigError
from melpatch.inference.arguments import (
    check_embedding,
    check_hop,
    check_many,
    check_precision,
    device_of,
)
from melpatch.inference.calibration import Calibration, load_calibration
from melpatch.inference.description import Described
from melpatch.inference.engine import InferenceTask, infer_each, infer_files, infer_one
from melpatch.inference.network import Network, Precision
from melpatch.inference.results import (
    Embedding,
    Frames,
    Prediction,
    Predictions,
    embedding_of,
    prediction_of,
    predictions_of,
)
from melpatch.inference.rows import Row
from melpatch.inference.samples import Audio
from melpatch.inference.tasks import embedding_task, prediction_task
from melpatch.machine import usable_cpus
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig
from melpatch.training.foreign import Given
from melpatch.training.run import Run
from melpatch.training.start import load_run

FilePath = str | PathLike[str]


@float32_by_default()
def load(
    run: FilePath | Run,
    device: str | torch.device | None = None,
    precision: Precision = "32-true",
    *,
    labels: FilePath | Sequence[str] | None = None,
    multi_label: bool | None = None,
    trust_code: bool = False,
) -> "Model":
    """Return the model of a run, or a model of other code.

    Args:
        run: what ``melpatch.pretrain`` or ``melpatch.finetune`` returned, or the run's folder; or a
            model of other code: a folder of Hugging Face, ``hf:owner/name``, or a weight file.
        device: where to compute; a GPU if there is one.
        precision: arithmetic of the network; float32 by default. "fastest" measures it.
        labels: the classes of a model of other code in the order of its outputs, or a file of them,
            see :func:`melpatch.data.class_list.read_class_list`; None takes those that it names.
        multi_label: whether each class of a model of other code has a sigmoid; None takes what it
            says, or is for AudioSet's 527 classes.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: the folder is no run, or its weights do not fit its settings or the classes.
        CheckpointError: the weights are missing, or they or the calibration damaged.
    """
    folder = run.folder if isinstance(run, Run) else Path(run)
    given = None if labels is None and multi_label is None else Given.of(labels, multi_label)
    config, objective = load_run(folder, trust_code=trust_code, given=given)
    calibration = None
    if isinstance(objective, Classify):
        calibration = load_calibration(folder, objective)
    return Model(config, objective, device, precision, folder, calibration)


class Model(Described):
    """A trained model with its front end. Audio is resampled to the model's rate; raw samples need `sample_rate`.

    Attributes:
        config: settings of the run.
        network: the trained network on its device.
        sample_rate: rate that the network works at, in Hz.
        seconds: longest window that it takes; longer recordings go through in windows.
        labels: names of the classes; empty without labels.
        calibration: what was learnt on validation clips about a classifier's answers; None if
            nothing was.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: Objective,
        device: str | torch.device | None = None,
        precision: Precision = "32-true",
        folder: Path | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        check_precision(precision)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config = config
        self.network = Network(objective, device_of(device), precision, folder)
        self.sample_rate = objective.front_end.sample_rate
        self.seconds = objective.input_seconds(config.objective, config.loader.seconds)
        self.labels = config.labels
        self.calibration = calibration

    @property
    def objective(self) -> Objective:
        """The trained objective, in evaluation mode."""
        return self.network.objective

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.network.device

    @property
    def precision(self) -> Precision:
        """Arithmetic of the network: ``32-true`` or ``bf16-mixed``."""
        return self.network.precision

    @property
    def default_pooling(self) -> str:
        """The pooling of a classifier; otherwise the one that probes have, too."""
        return self.network.default_pooling

    @property
    def default_batch_size(self) -> int:
        """Windows to compute at a time: more if there is a GPU to fill."""
        return 64 if self.device.type == "cuda" else 8

    @property
    def default_workers(self) -> int:
        """Processes to decode with: up to 8 per GPU, none on a CPU."""
        # A daemonic process may not start processes of its own.
        if self.device.type != "cuda" or multiprocessing.current_process().daemon:
            return 0
        return min(8, usable_cpus() // distributed.local_world_size())

    @overload
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: str | None = None,
        layer: int | None = None,
    ) -> Float[np.ndarray, " dim"]: ...
    @overload
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: str | None = None,
        layer: int | None = None,
        hop: float,
    ) -> Frames: ...
    def embed(
        self,
        audio: Audio,
        sample_rate: int | None = None,
        *,
        pooling: str | None = None,
        layer: int | None = None,
        hop: float | None = None,
    ) -> Embedding:
        """Return one vector for a recording or, with ``hop``, one per frame with its times.

        Recordings longer than the model's input go through in windows, in bounded memory: end to
        end for one vector; for frames overlapping by half, so that no part is seen at the edge of
        a window only.

        Args:
            audio: a file or an open one, or samples as an array or tensor: floats in [-1, 1] or
                integer PCM; the mean is taken of several channels.
            sample_rate: rate of samples in Hz; files state their own.
            pooling: tokens to vector, such as ``rows+mean+std``, see
                :mod:`melpatch.nn.pooling`, or ``fitted`` after ``melpatch fit-embedding``; by
                default :attr:`default_pooling`, of which frames have the mean only.
            layer: layer whose output to take, before the final norm, from 0 or, from the end, from
                -1; None leaves it to the pooling.
            hop: length of a frame in seconds; at least one column of patches (0.16 s with 16-frame
                patches).

        Raises:
            AudioError: the file cannot be read.
            ConfigError: the model cannot take the samples, pooling, layer or hop.
        """
        task = self.embedding_task(pooling=pooling, layer=layer, hop=hop)
        return embedding_of([*infer_one(task, audio, sample_rate)], hop)

    def predict(
        self, audio: Audio, sample_rate: int | None = None, *, hop: float | None = None
    ) -> Predictions:
        """Return labels with probabilities for a recording or, with ``hop``, for each window.

        Args:
            audio: see :meth:`embed`.
            sample_rate: rate of samples in Hz; files state their own.
            hop: seconds between the starts of windows, each as long as the model's input; None
                gives one prediction, the mean over windows end to end.

        Raises:
            AudioError: the file cannot be read.
            ConfigError: the model was not trained with labels, or cannot take the samples or hop.
        """
        task = self.prediction_task(hop=hop)
        return predictions_of([*infer_one(task, audio, sample_rate)], self.labels)

    def predict_windows(
        self, audio: Audio, sample_rate: int | None = None, hop: float | None = None
    ) -> Iterator[Prediction]:
        """Yield the predictions for windows, by default end to end, as they are computed."""
        task = self.prediction_task(hop=self.seconds if hop is None else hop)
        for row in infer_one(task, audio, sample_rate):
            yield prediction_of(row, self.labels)

    def embed_many(
        self,
        paths: Iterable[FilePath],
        *,
        pooling: str | None = None,
        layer: int | None = None,
        hop: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        rejected: list[Rejected] | None = None,
    ) -> Iterator[tuple[Path, Embedding]]:
        """Return an iterator over files with what :meth:`embed` returns, many windows at a time.

        The arguments are checked in the call; files are read while iterating, in order.

        Args:
            paths: sound files.
            pooling: see :meth:`embed`.
            layer: see :meth:`embed`.
            hop: see :meth:`embed`.
            batch_size: windows at a time; by default :attr:`default_batch_size`.
            workers: decoding processes, by default :attr:`default_workers`; 0 decodes in a thread
                beside the network.
            rejected: list that takes the files that cannot be read; without it, the first of them
                is an error.

        Raises:
            AudioError: a file cannot be read.
            ConfigError: the model cannot take the pooling, layer or hop.
        """
        task = self.embedding_task(pooling=pooling, layer=layer, hop=hop)
        files = self._infer_files(task, paths, batch_size, workers, rejected)
        return ((path, embedding_of(rows, hop)) for path, rows in files)

    def embed_each(
        self,
        recordings: Iterable[Audio],
        sample_rate: int | Iterable[int] | None = None,
        *,
        pooling: str | None = None,
        layer: int | None = None,
        hop: float | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Embedding]:
        """Return an iterator over what :meth:`embed` returns for samples or files, many windows at a time.

        Args:
            recordings: of any lengths, each as for :meth:`embed`.
            sample_rate: rate of samples in Hz, of all of them or of each.
            pooling: see :meth:`embed`.
            layer: see :meth:`embed`.
            hop: see :meth:`embed`.
            batch_size: windows at a time; by default :attr:`default_batch_size`.

        Raises:
            AudioError: a file cannot be read.
            ConfigError: the model cannot take the samples, pooling, layer or hop.
        """
        task = self.embedding_task(pooling=pooling, layer=layer, hop=hop)
        check_many(batch_size, workers=0)
        size = batch_size or self.default_batch_size
        require_batch(size, task.windows.seconds, task.windows.sample_rate)
        rates: Iterable[int | None] = repeat(None)
        if isinstance(sample_rate, Iterable):
            rates = sample_rate
        elif sample_rate is not None:
            rates = repeat(sample_rate)
        pairs = zip(recordings, rates, strict=isinstance(sample_rate, Iterable))
        return (embedding_of(rows, hop) for rows in infer_each(task, pairs, batch_size=size))

    def predict_many(
        self,
        paths: Iterable[FilePath],
        *,
        hop: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        rejected: list[Rejected] | None = None,
    ) -> Iterator[tuple[Path, Predictions]]:
        """Return an iterator over files with what :meth:`predict` returns; see :meth:`embed_many`."""
        task = self.prediction_task(hop=hop)
        files = self._infer_files(task, paths, batch_size, workers, rejected)
        return ((path, predictions_of(rows, self.labels)) for path, rows in files)

    def predict_batch(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for a batch at the model's rate."""
        raw = self.network.probabilities(batch)
        if self.calibration is None:
            return raw
        calibrated = self.calibration.probabilities(raw.float().cpu().numpy())
        return torch.from_numpy(calibrated).to(raw)

    def embed_batch(
        self, batch: Batch, pooling: str | None = None, layer: int | None = None
    ) -> Float[Tensor, "clip dim"]:
        """Return one vector per clip of a batch at the model's rate."""
        return self.network.vectors(batch, self.network.resolve_pooling(pooling, layer))

    def embedding_task(
        self,
        *,
        pooling: str | None = None,
        layer: int | None = None,
        hop: float | None = None,
        salvage: bool = False,
    ) -> InferenceTask:
        """Return what :meth:`embed` computes; with ``salvage``, for the sound before damage too.

        Raises:
            ConfigError: the model cannot take the pooling or hop.
        """
        check_embedding(pooling, layer, hop)
        return embedding_task(
            self.network,
            self.seconds,
            pooling=pooling,
            layer=layer,
            hop=hop,
            channel=self.config.channel,
            salvage=salvage,
        )

    def prediction_task(self, *, hop: float | None = None, salvage: bool = False) -> InferenceTask:
        """Return what :meth:`predict` computes; with ``salvage``, for the sound before damage too.

        Raises:
            ConfigError: the model was not trained with labels, or the hop is shorter than a sample.
        """
        check_hop(hop)
        return prediction_task(
            self.network,
            self.seconds,
            hop=hop,
            channel=self.config.channel,
            salvage=salvage,
            calibration=self.calibration,
        )

    def _infer_files(
        self,
        task: InferenceTask,
        paths: Iterable[FilePath],
        batch_size: int | None,
        workers: int | None,
        rejected: list[Rejected] | None,
    ) -> Iterator[tuple[Path, list[Row]]]:
        """Return an iterator over the files that can be read, each with its rows."""
        check_many(batch_size, workers)
        if isinstance(paths, str | PathLike):
            raise ConfigError(
                f"paths = {str(paths)!r}; allowed: a list of files, such as [{str(paths)!r}]"
            )
        files = [Path(path) for path in paths]
        batch_size = batch_size or self.default_batch_size
        workers = self.default_workers if workers is None else workers
        require_workers(workers)
        require_batch(batch_size, task.windows.seconds, task.windows.sample_rate)
        return infer_files(task, files, batch_size=batch_size, workers=workers, rejected=rejected)
