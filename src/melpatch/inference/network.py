"""A trained network on a device: from a batch to probabilities, vectors, or columns of vectors."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.default_dtype import float32_by_default
from melpatch.distributed import on_rank_zero
from melpatch.errors import ConfigError
from melpatch.inference.fastest import Measured, measure
from melpatch.inference.fitted import FITTED, FittedPooling, fitted_of_run
from melpatch.nn.packed import pack
from melpatch.nn.pooling import DEFAULT_POOLING, Pooler, Pooling, pool
from melpatch.nn.summaries import step_summaries, summarise
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.progress import notice
from melpatch.rng import normal, stream

Precision = Literal["auto", "fastest", "32-true", "bf16-mixed"]
"""Arithmetic of a trained network. "auto" is bf16-mixed on a GPU with bf16 hardware, as in
training, and float32 elsewhere: on a CPU, results are the same to rounding, whatever the
batches. "fastest" is the one that a measurement on this machine finds faster."""


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the arithmetic that ``auto`` stands for on a device; another precision is kept."""
    if precision != "auto":
        return precision
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true"


class Network:
    """A trained objective on a device, in evaluation mode and without gradients.

    Args:
        objective: the objective.
        device: where it computes.
        precision: arithmetic.
        folder: the run whose weights it has, which may hold a fitted pooling; None for weights of
            no run.

    Attributes:
        fitted: a fitted pooling that stands for the run's, such as that of an index; None for the
            run's own.
    """

    def __init__(
        self,
        objective: Objective,
        device: torch.device,
        precision: Precision,
        folder: Path | None = None,
    ) -> None:
        self.objective = objective.eval().to(device)
        self.folder = folder
        self.fitted: FittedPooling | None = None
        self.precision = resolve_precision(precision, device)
        if self.precision in ("bf16-mixed", "fastest") and device.type == "cpu":
            pack(objective.export_encoder())
        if self.precision == "fastest":
            # One measurement for all processes, whose outputs are of one table.
            measured = on_rank_zero(self._measure)
            notice(str(measured))
            self.precision = "bf16-mixed" if measured.bf16_is_faster else "32-true"

    @property
    def device(self) -> torch.device:
        """Where it computes: where the weights are, which other code may have moved."""
        return next(self.objective.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Rate of the samples that the network takes, in Hz."""
        return self.objective.front_end.sample_rate

    @property
    def grid_rows(self) -> int:
        """Frequency rows of the encoder's grid."""
        return self.objective.encoder.grid.rows

    @property
    def embed_dim(self) -> int:
        """Channels of a token after the final norm."""
        return self.objective.encoder.embed_dim

    @property
    def default_pooling(self) -> str:
        """The pooling of a classifier; otherwise the one that probes have, too."""
        if isinstance(self.objective, Classify):
            return self.objective.config.pooling
        return DEFAULT_POOLING

    def classifier(self) -> Classify:
        """Return the objective if it predicts labels.

        Raises:
            ConfigError: it was not trained with labels.
        """
        if not isinstance(self.objective, Classify):
            raise ConfigError(
                f"a {type(self.objective).__name__} run has no labels to predict; fine-tune it "
                "first: melpatch finetune --init RUN --data labels.csv --out OTHER"
            )
        return self.objective

    @float32_by_default()
    @torch.inference_mode()
    def probabilities(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for a batch at the model's rate."""
        with self._autocast():
            return self.classifier().probabilities(batch.to(self.device))

    @float32_by_default()
    @torch.inference_mode()
    def answers(self, batch: Batch) -> list[Float[np.ndarray, " label_and_dim"]]:
        """Return for each clip the probability of each label, and then the vector behind them."""
        with self._autocast():
            answers = self.classifier().probabilities_and_vectors(batch.to(self.device))
        return arrays(torch.cat([part.float() for part in answers], dim=1))

    def resolve_pooling(self, how: str | None, layer: int | None = None) -> Pooling:
        """Return a pooling by its spelling, or the default one.

        Args:
            how: the spelling, or ``fitted`` for the one that ``melpatch fit-embedding`` has kept
                with the run; None for :attr:`default_pooling`.
            layer: number of the layer whose output is pooled, from 0 or, from the end, from -1;
                None leaves it to the pooling.

        Raises:
            ConfigError: there is no such pooling, or this encoder lacks what it needs.
        """
        if how == FITTED:
            pooling = self._fitted(layer)
        else:
            pooling = Pooling.parse(how or self.default_pooling)
        encoder = self.objective.encoder
        if layer is not None:
            count = encoder.num_layers
            check(-count <= layer < count, "layer", layer, f"{-count} to {count - 1}")
            check(not pooling.layers, "layer", layer, f"None beside pooling = '{pooling}'")
            pooling = replace(pooling, layers=(layer % encoder.num_layers + 1,))
        encoder.require_pooling(pooling)
        return pooling

    def _fitted(self, layer: int | None) -> Pooling:
        check(layer is None, "layer", layer, f"None beside pooling = '{FITTED}'")
        if self.fitted is not None:
            return self.fitted
        if self.folder is None:
            raise ConfigError(f"pooling = {FITTED!r}: these are weights of no run")
        return fitted_of_run(self.folder)

    @float32_by_default()
    @torch.inference_mode()
    def vectors(self, batch: Batch, pooling: Pooling) -> Float[Tensor, "clip dim"]:
        """Return one vector per clip of a batch at the model's rate."""
        patches, cls, valid = self._tokens(batch, pooling)
        return pool(patches, cls, valid, self.grid_rows, pooling)

    @float32_by_default()
    @torch.inference_mode()
    def summaries(
        self, batch: Batch, pooling: Pooling
    ) -> list[Float[np.ndarray, "stretch field channel"]]:
        """Return each clip's summaries, which :class:`melpatch.inference.pooled.PooledRecording` joins.

        Each is of a clip as a whole or, if segments of a longer recording need them, of each
        column.
        """
        patches, cls, valid = self._tokens(batch, pooling)
        return summaries_of(patches, cls, valid, self.grid_rows, pooling)

    @float32_by_default()
    @torch.inference_mode()
    def classify(self, vector: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " label"]:
        """Return the probability of each label for a vector pooled over a whole recording."""
        given = torch.from_numpy(vector).to(self.device)
        probabilities: np.ndarray = self.classifier().classify(given[None])[0].cpu().numpy()
        return probabilities

    @float32_by_default()
    @torch.inference_mode()
    def token_summaries(self, batch: Batch) -> list[Float[np.ndarray, " summary"]]:
        """Return what the head of a classifier keeps of the tokens of each clip, if it takes tokens."""
        with self._autocast():
            summaries = self.classifier().token_summaries(batch.to(self.device))
        return arrays(summaries)

    @float32_by_default()
    @torch.inference_mode()
    def classify_summary(self, summary: Float[Tensor, " summary"]) -> Float[np.ndarray, " label"]:
        """Return the probability of each label for the joined summary of a whole recording."""
        probabilities = self.classifier().classify_summary(summary[None].to(self.device))
        (only,) = arrays(probabilities)
        return only

    @float32_by_default()
    @torch.inference_mode()
    def columns(self, batch: Batch, pooling: Pooling) -> list[Float[np.ndarray, "column dim"]]:
        """Return one vector per column of patches of each clip, without the columns of padding."""
        patches, cls, valid = self._tokens(batch, pooling)
        pooler = Pooler(pooling, self.grid_rows)
        columns, weight = pooler.columns(patches, cls, valid)
        return _without_padding(columns, weight)

    @float32_by_default()
    @torch.inference_mode()
    def tokens(self, batch: Batch) -> list[Float[np.ndarray, "token dim"]]:
        """Return the patch tokens of each clip that are no padding, in float16."""
        features = self.objective.features(batch.to(self.device))
        encoder = self.objective.export_encoder()
        with self._autocast():
            encoded = encoder(features.spectrogram, features.valid)
        patches = encoded.patches.half().cpu()
        if features.valid is None:
            return [*patches.numpy()]
        valid = features.valid.cpu()
        return [tokens[own].numpy() for tokens, own in zip(patches, valid, strict=True)]

    def _measure(self) -> Measured:
        """Return how long a second of noise takes in either arithmetic, and how far they agree."""
        key = torch.zeros(1, dtype=torch.int64)
        noise = normal(stream(0, "noise to measure", key, 0), self.sample_rate)
        batch = Batch(0.1 * noise, torch.tensor([self.sample_rate]), key)
        pooling = self.resolve_pooling(None)

        def vectors(precision: Precision) -> Float[Tensor, "clip dim"]:
            self.precision = precision
            return self.vectors(batch, pooling)

        return measure(lambda: vectors("32-true"), lambda: vectors("bf16-mixed"), self.device)

    def _tokens(
        self, batch: Batch, pooling: Pooling
    ) -> tuple[
        Float[Tensor, "clip token dim"],
        Float[Tensor, "clip cls dim"],
        Bool[Tensor, "clip token"] | None,
    ]:
        """Return the patch and class tokens that are pooled, and which patches are no padding."""
        features = self.objective.features(batch.to(self.device))
        encoder = self.objective.export_encoder()
        with self._autocast():
            encoded = encoder(*features, layers=pooling.layer_outputs)
        statistics = encoder.input_statistics(features.spectrogram, pooling)
        return *encoded.pooled_tokens(pooling, statistics), features.valid

    def _autocast(self) -> torch.autocast:
        enabled = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def arrays(values: Float[Tensor, "clip ..."]) -> list[np.ndarray]:
    """Return one float32 array per clip, in the memory of the CPU."""
    return [*values.float().cpu().numpy()]


def summaries_of(
    patches: Float[Tensor, "clip token dim"],
    cls: Float[Tensor, "clip cls dim"],
    valid: Bool[Tensor, "clip token"] | None,
    rows: int,
    pooling: Pooling,
) -> list[Float[np.ndarray, "stretch field channel"]]:
    """Return the summaries of clips: of each as a whole or, for segments, of each column."""
    pooler = Pooler(pooling, rows)
    columns, weight = pooler.columns(patches, cls, valid)
    if pooling.segments == 1:
        return arrays(summarise(columns, weight, pooler.fields)[:, None])
    return _without_padding(step_summaries(columns, pooler.fields), weight)


def _without_padding(
    columns: Float[Tensor, "clip column *field channel"],
    weight: Float[Tensor, "clip column _"] | None,
) -> list[np.ndarray]:
    """Return the columns of each clip that are no padding, in the memory of the CPU."""
    if weight is None:
        return arrays(columns)
    # Padding is at the end of a clip.
    counts = (weight > 0).any(dim=2).sum(dim=1).tolist()
    return [clip[:count] for clip, count in zip(arrays(columns), counts, strict=True)]
