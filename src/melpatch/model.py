"""What users hold: a trained model that embeds and labels recordings of any length.

>>> import melpatch
>>> model = melpatch.load("runs/b")
>>> model.predict("dawn.flac", hop=1.0)
>>> vector = model.embed(wave, sample_rate=44100)
"""

import itertools
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.files import stream
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.errors import AudioError, ConfigError
from melpatch.nn.pooling import Pooling, pool
from melpatch.objectives.base import Features, Objective
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig
from melpatch.training.start import load_run

Audio = str | PathLike[str] | np.ndarray | Tensor
"""A sound file, or samples of one channel; what samples must be is checked with a message, not by their type."""


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


def load(path: str | PathLike[str], device: str | torch.device | None = None) -> "Model":
    """Return the model of a run folder.

    Args:
        path: a folder that ``melpatch pretrain`` or ``melpatch finetune`` wrote.
        device: where to compute; a GPU if there is one.
    """
    config, objective = load_run(Path(path))
    return Model(config, objective, device)


class Model:
    """A trained objective with its ears: it resamples what it is given, and never guesses a rate."""

    def __init__(self, config: RunConfig, objective: Objective, device: str | torch.device | None = None) -> None:
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.objective = objective.eval().to(self.device)
        self.sample_rate = objective.front_end.sample_rate
        self.seconds = objective.heard(config.objective, config.loader.seconds)
        self.labels = config.labels

    @property
    def default_pooling(self) -> Pooling:
        """Return the pooling a classifier was trained with; else ``frequency``, which keeps the rows of the grid."""
        return self.objective.config.pooling if isinstance(self.objective, Classify) else "frequency"

    @overload
    def embed(
        self, audio: Audio, sample_rate: int | None = None, *, pooling: Pooling | None = None, layer: int | None = None
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
        if pooling is None and (hop is None or self.default_pooling in ("mean", "frequency")):
            pooling = self.default_pooling
        pooling = pooling or "mean"  # a frame has no class token, and no maximum over time
        if hop is not None:
            return self._frames(audio, sample_rate, pooling, layer, hop)
        total, weight = np.zeros(()), 0.0
        for _, batch in self._windows(audio, sample_rate, self.seconds):
            length = float(batch.lengths[0])
            total = total + length * self.embed_batch(batch, pooling, layer)[0].double().cpu().numpy()
            weight += length
        return np.asarray(total / weight, dtype=np.float32)

    def predict(self, audio: Audio, sample_rate: int | None = None, *, hop: float | None = None) -> list[Prediction]:
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
        windows = self.predict_windows(audio, sample_rate, hop)
        if hop is not None:
            return list(windows)
        total, weight, end = np.zeros(len(self.labels)), 0.0, 0.0
        for one in windows:
            end = one.end
            total += (one.end - one.start) * np.array([*one.probabilities.values()])
            weight += one.end - one.start
        return [Prediction(0.0, end, dict(zip(self.labels, (total / weight).tolist(), strict=True)))]

    def predict_windows(
        self, audio: Audio, sample_rate: int | None = None, hop: float | None = None
    ) -> Iterator[Prediction]:
        """Yield the predictions of a recording's windows as they are made."""
        for start, batch in self._windows(audio, sample_rate, self.seconds if hop is None else hop):
            row = self.predict_batch(batch)[0].tolist()
            end = start + int(batch.lengths[0]) / self.sample_rate
            yield Prediction(start, end, dict(zip(self.labels, row, strict=True)))

    @torch.inference_mode()
    def predict_batch(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for a batch at the model's rate."""
        if not isinstance(self.objective, Classify):
            raise ConfigError(
                f"a {type(self.objective).__name__} run has no labels to predict; fine-tune it first: "
                "melpatch finetune --init RUN --data labels.csv --out OTHER"
            )
        return self.objective.probabilities(batch.to(self.device))

    @torch.inference_mode()
    def embed_batch(self, batch: Batch, pooling: Pooling, layer: int | None = None) -> Float[Tensor, "clip dim"]:
        """Return one vector per clip of a batch at the model's rate."""
        features = self.objective.features(batch.to(self.device))
        patches, cls = self._tokens(features, layer)
        return pool(patches, cls, features.valid, self.objective.encoder.grid.rows, pooling)

    @torch.inference_mode()
    def _tokens(self, features: Features, layer: int | None) -> tuple[Tensor, Tensor]:
        encoder = self.objective.export_encoder()
        encoded = encoder(features.spectrogram, features.valid, layers=layer is not None)
        if layer is None:
            return encoded.patches, encoded.cls
        if not -encoder.num_layers <= layer < encoder.num_layers:
            raise ConfigError(f"layer = {layer}; allowed: {-encoder.num_layers} to {encoder.num_layers - 1}")
        count = encoded.cls.shape[1]
        return encoded.layers[layer][:, count:], encoded.layers[layer][:, :count]

    def _frames(self, audio: Audio, sample_rate: int | None, pooling: Pooling, layer: int | None, hop: float) -> Frames:
        """Average the columns of tokens whose middle falls into each frame, over all windows that show them."""
        column = self.objective.encoder.grid.stride[1] * self.objective.front_end.hop_seconds
        check(hop >= column - 1e-9, "hop", hop, f"{column:g} s or more, the length of a column of patches")
        allowed = "'mean' or 'frequency' where there is a hop"
        check(pooling in ("mean", "frequency"), "pooling", pooling, allowed)
        sums: dict[int, Tensor] = {}
        counts: dict[int, int] = {}
        end = 0.0
        for middle, heard, tokens in self._columns(audio, sample_rate, layer, column):
            vector = tokens.mean(dim=0) if pooling == "mean" else tokens.flatten()
            frame, end = int((middle + 1e-9) / hop), heard
            sums[frame] = sums.get(frame, torch.zeros_like(vector)) + vector
            counts[frame] = counts.get(frame, 0) + 1
        order = sorted(sums)
        starts = np.array(order, dtype=np.float64) * hop
        means = torch.stack([sums[frame] / counts[frame] for frame in order]).cpu().numpy()
        return Frames(starts, np.append(starts[1:], end), means)

    def _columns(
        self, audio: Audio, sample_rate: int | None, layer: int | None, column: float
    ) -> Iterator[tuple[float, float, Float[Tensor, "row dim"]]]:
        """Yield, for each column of patches of ``column`` seconds in each window, its middle, the window's end, and
        its tokens."""
        grid, hop_seconds = self.objective.encoder.grid, self.objective.front_end.hop_seconds
        for start, batch in self._windows(audio, sample_rate, self.seconds / 2):
            patches, _ = self._tokens(self.objective.features(batch.to(self.device)), layer)
            end = start + int(batch.lengths[0]) / self.sample_rate
            for number, tokens in enumerate(patches[0].view(grid.rows, -1, patches.shape[-1]).transpose(0, 1).float()):
                begin = start + number * column
                if begin < end:  # legacy padding has columns that lie wholly behind the sound
                    yield min(begin + grid.patch[1] * hop_seconds / 2, end - 1e-6), end, tokens

    def _windows(self, audio: Audio, sample_rate: int | None, hop: float) -> Iterator[tuple[float, Batch]]:
        """Yield the start in seconds and a one-clip batch for each window of a recording."""
        if isinstance(audio, str | PathLike):
            pieces = stream(Path(audio), self.seconds, hop, self.sample_rate)
        else:
            pieces = _cut(self._samples(audio, sample_rate), self.seconds, hop, self.sample_rate)
        found = False
        for start, wave in pieces:
            found = True
            batch = Batch(torch.from_numpy(wave)[None], torch.tensor([len(wave)]), torch.zeros(1, dtype=torch.int64))
            yield start, batch
        if not found:
            name = audio if isinstance(audio, str | PathLike) else "the samples"
            raise AudioError(name, f"shorter than one sample at {self.sample_rate} Hz", "give a longer recording")

    def _samples(self, audio: np.ndarray | Tensor, rate: int | None) -> Float[np.ndarray, " sample"]:
        if rate is None:
            raise ConfigError("samples were given without sample_rate; say at how many Hz they were taken")
        check(rate > 0, "sample_rate", rate, "the rate of the samples in Hz")
        wave = audio.numpy(force=True) if isinstance(audio, Tensor) else np.asarray(audio)
        fits = wave.ndim == 1 and len(wave) and np.issubdtype(wave.dtype, np.floating) and np.isfinite(wave).all()
        if not fits:
            raise ConfigError(
                f"samples of shape {wave.shape} and type {wave.dtype}; allowed: one channel of finite floats in "
                "[-1, 1]; average channels, and divide 16-bit integers by 32768"
            )
        wave = np.ascontiguousarray(wave, dtype=np.float32)
        return wave if rate == self.sample_rate else soxr.resample(wave, rate, self.sample_rate, quality="HQ")


def _cut(wave: np.ndarray, seconds: float, hop: float, rate: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yield what :func:`melpatch.audio.files.stream` yields for a file: windows that cover the wave, and their starts
    in seconds; the last may be shorter."""
    check(hop * rate >= 1, "hop", hop, f"at least one sample, 1/{rate} s")
    length = round(seconds * rate)
    for number in itertools.count():
        start = round(number * hop * rate)
        if start < len(wave):
            yield start / rate, wave[start : start + length]
        if start + length >= len(wave):
            return
