"""A trained network on a device: from a batch to probabilities, vectors, or columns of vectors."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.default_dtype import float32_by_default
from melpatch.errors import ConfigError
from melpatch.nn.pooling import Pooling, pool
from melpatch.objectives.base import Features, Objective
from melpatch.objectives.classify import Classify

Precision = Literal["auto", "32-true", "bf16-mixed"]
"""Arithmetic of a trained network. "auto" is bf16-mixed on a GPU with bf16 hardware, as in training,
and float32 elsewhere: on a CPU, results are the same to rounding, whatever the batches."""


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the arithmetic that ``auto`` stands for on a device; another precision is kept."""
    if precision != "auto":
        return precision
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true"


class Network:
    """A trained objective on a device, in evaluation mode and without gradients."""

    def __init__(self, objective: Objective, device: torch.device, precision: Precision) -> None:
        self.objective = objective.eval().to(device)
        self.device = device
        self.precision = resolve_precision(precision, device)

    @property
    def default_pooling(self) -> Pooling:
        """The pooling of a classifier; otherwise ``frequency``, which keeps the rows of the grid."""
        if isinstance(self.objective, Classify):
            return self.objective.config.pooling
        return "frequency"

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
    def vectors(
        self, batch: Batch, pooling: Pooling, layer: int | None = None
    ) -> Float[Tensor, "clip dim"]:
        """Return one vector per clip of a batch at the model's rate."""
        features = self.objective.features(batch.to(self.device))
        patches, cls = self._tokens(features, layer)
        return pool(patches, cls, features.valid, self.objective.encoder.grid.rows, pooling)

    @float32_by_default()
    @torch.inference_mode()
    def columns(
        self, batch: Batch, pooling: Pooling, layer: int | None = None
    ) -> list[Float[np.ndarray, "column dim"]]:
        """Return one vector per column of patches of each clip, without the columns of padding."""
        features = self.objective.features(batch.to(self.device))
        rows = self.objective.encoder.grid.rows
        patches, _ = self._tokens(features, layer)
        # Tokens are ordered row by row: (clip, row * column, dim) -> (clip, row, column, dim).
        grid = patches.view(len(patches), rows, -1, patches.shape[-1]).float()
        # "frequency" concatenates the rows of a column: (clip, column, row * dim).
        by_frequency = grid.transpose(1, 2).flatten(2)
        vectors = grid.mean(dim=1) if pooling == "mean" else by_frequency
        if features.valid is None:
            return arrays(vectors)
        # All rows of a column are padding or none is, so the first row counts the real columns.
        counts = features.valid.view(len(vectors), rows, -1)[:, 0].sum(dim=1).tolist()
        return [clip[:count] for clip, count in zip(arrays(vectors), counts, strict=True)]

    def _tokens(
        self, features: Features, layer: int | None
    ) -> tuple[Float[Tensor, "clip patch dim"], Float[Tensor, "clip cls dim"]]:
        """Return patch and class tokens of the final norm, or of a block's output."""
        encoder = self.objective.export_encoder()
        with self._autocast():
            encoded = encoder(features.spectrogram, features.valid, layers=layer is not None)
        if layer is None:
            return encoded.patches, encoded.cls
        if not -encoder.num_layers <= layer < encoder.num_layers:
            raise ConfigError(
                f"layer = {layer}; allowed: {-encoder.num_layers} to {encoder.num_layers - 1}"
            )
        tokens = encoded.layers[layer]
        cls_tokens = encoded.cls.shape[1]
        return tokens[:, cls_tokens:], tokens[:, :cls_tokens]

    def _autocast(self) -> torch.autocast:
        enabled = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def arrays(values: Float[Tensor, "clip ..."]) -> list[np.ndarray]:
    """Return one float32 array per clip, in the memory of the CPU."""
    return [*values.float().cpu().numpy()]
