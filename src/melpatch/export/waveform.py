"""A run as one network from waveform to output, front end inside, in operations that ONNX has.

The Fourier transform is a matrix product. All clips of a batch have the same length, and all of
their samples count: there is no padding mask.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.framing import mirror, window_weights, within_range
from melpatch.audio.logmel import LogMel
from melpatch.audio.mel import mel_filters
from melpatch.export.source import Source
from melpatch.nn.pooling import Pooling, pool
from melpatch.objectives.base import Features
from melpatch.objectives.classify import Classify


class Lengths(NamedTuple):
    """Numbers of samples that a network takes."""

    least: int
    """Shorter clips are filled with zeros up to this, as melpatch does by itself."""
    most: int
    """The length of the run's windows; longer recordings go through in pieces."""


def lengths_of(source: Source) -> Lengths:
    """Return how many samples the network of a run takes."""
    config = source.model.config.front_end
    most = round(source.model.seconds * config.sample_rate)
    # A centred frame is mirrored, and needs no more than two samples.
    least = 2 + config.overhead if config.centred else config.overhead
    return Lengths(least, max(least, most))


class MatrixLogMel(nn.Module):
    """The front end with its Fourier transform as a matrix product, in float64 at first.

    Args:
        config: settings of the front end.
    """

    transform: Tensor
    filters: Tensor

    def __init__(self, config: LogMel.Config) -> None:
        super().__init__()
        self.config = config
        transform, filters = _matrices(config)
        self.register_buffer("transform", torch.from_numpy(transform))
        self.register_buffer("filters", torch.from_numpy(filters))

    def forward(self, wave: Float[Tensor, "clip sample"]) -> Float[Tensor, "clip mel frame"]:
        """Return normalised spectrograms, of which each frame is valid."""
        config = self.config
        frames = self._prepared(wave).unfold(1, config.win_length, config.hop_length)
        if config.remove_offset:
            frames = frames - frames.mean(-1, keepdim=True)
        inner = frames[..., 1:]
        if config.preemphasis_over == "frame" and config.preemphasis:
            inner = inner - config.preemphasis * frames[..., :-1]

        # Cosine and sine part of each frequency: |X|^2 = re^2 + im^2.
        real, imaginary = (inner @ self.transform).chunk(2, dim=-1)
        energy = real.square() + imaginary.square()
        if config.spectrum == "magnitude":
            energy = energy.sqrt()
        mel = self.filters @ energy.transpose(1, 2)
        if config.floor_added:
            mel = mel + config.floor
        else:
            mel = mel.clamp(min=config.floor)
        log_mel = mel.log()
        if config.range_db is not None:
            inside = torch.ones_like(log_mel[:, 0], dtype=torch.bool)
            log_mel = within_range(log_mel, inside, config.range_db)
        return self._padded(self._normalised(log_mel))

    def _prepared(self, wave: Float[Tensor, "clip sample"]) -> Float[Tensor, "clip prepared"]:
        config = self.config
        if config.unit_norm:
            wave = wave * wave.square().sum(-1, keepdim=True).clamp(min=1e-9).rsqrt()
        # x[t] - a x[t - 1] over the whole wave; within frames it comes after they are cut.
        if config.preemphasis_over == "wave":
            wave = wave[:, 1:] - config.preemphasis * wave[:, :-1]
        if config.centred:
            # The length as a tensor, so that the graph takes clips of any length.
            lengths = torch.ones_like(wave, dtype=torch.int64).sum(dim=1)
            return mirror(wave, lengths, config.win_length)
        return wave

    def _padded(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip mel padded"]:
        """Return the spectrogram at the length of every clip, if the front end has one."""
        frames = self.config.target_frames
        if frames is None:
            return spectrogram
        fill = self._normalised(spectrogram.new_zeros(1, self.config.n_mels, frames))
        rest = fill.expand(spectrogram.shape[0], -1, -1)
        return torch.cat([spectrogram, rest], dim=2)[:, :, :frames]

    def _normalised(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.config.mean) / (self.config.scale * self.config.std)


def _matrices(
    config: LogMel.Config,
) -> tuple[Float[np.ndarray, "sample part"], Float[np.ndarray, "mel bin"]]:
    """Return the windowed Fourier transform and the mel filters, in float64.

    The transform has a row for each sample of a frame but the first, where every window is 0, and
    columns for cosines and then sines.
    """
    bins = np.arange(config.n_fft // 2 + 1)
    # exp(-2 pi i t k / n) as cosines and sines; their squares are added, so signs do not matter.
    angle = 2 * np.pi * np.outer(np.arange(config.win_length - 1), bins) / config.n_fft
    window = window_weights(config.window, config.win_length)[1:, None]
    transform = window * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    filters = mel_filters(
        config.mel,
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        low_hz=config.low_hz,
        high_hz=config.top_hz,
    )
    return transform, filters


class Waveform(nn.Module):
    """Waveforms to vectors, and of a classifier to probabilities too.

    Args:
        source: the run.
        pooling: how tokens become a vector; of a classifier its own.

    Attributes:
        names: names of the outputs, in order.
    """

    def __init__(self, source: Source, pooling: Pooling) -> None:
        super().__init__()
        self.front_end = MatrixLogMel(source.model.config.front_end).float()
        self.encoder = source.model.objective.export_encoder()
        self.classifier = source.classifier
        self.pooling = pooling
        calibration = source.model.calibration
        self.temperature = 1.0 if calibration is None else calibration.temperature
        self.names: tuple[str, ...] = ("embedding",)
        if self.classifier is not None:
            self.names = ("probabilities", "embedding")

    def forward(self, wave: Float[Tensor, "clip sample"]) -> tuple[Tensor, ...]:
        """Return the outputs: probabilities (clip, label) of a classifier, vectors (clip, dim)."""
        spectrogram = self.encoder.normalise(self.front_end(wave), None)
        if self.classifier is not None:
            return self._classified(self.classifier, Features(spectrogram, None))
        how = self.pooling
        encoded = self.encoder(spectrogram, None, layers=how.layer_outputs)
        statistics = self.encoder.input_statistics(spectrogram, how)
        patches, cls = encoded.pooled_tokens(how, statistics)
        return (pool(patches, cls, None, self.encoder.grid.rows, how),)

    def _classified(self, classifier: Classify, features: Features) -> tuple[Tensor, Tensor]:
        logits, vectors = classifier.logits_and_vectors(features)
        logits = logits / self.temperature
        if classifier.config.multi_label:
            return logits.sigmoid(), vectors
        return logits.softmax(dim=1), vectors
