"""Classification: a pooled encoder, a linear head, and the labels of a few clips."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.augment import Augment
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.errors import ConfigError
from melpatch.nn.heads import linear_head
from melpatch.nn.pooling import Pooling, pool, pooled_dim
from melpatch.objectives.base import Features, Objective, ObjectiveOutput


class Classify(Objective):
    """Supervised training of an encoder and a LayerNorm + linear head, single-label or multi-label.

    Source: the fine-tuning of AST and SSAST (Gong et al. 2022, section 3.1, and the published code). *Differs*: no
    token of padding is pooled, and cross-entropy takes soft targets, so that it goes with mixup (the published code
    truncates them).
    """

    needs_labels = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of classification."""

        pooling: Pooling = "frequency"
        """Tokens to vector: mean of all, class token, or mean over time with the frequency rows kept."""
        multi_label: bool = False
        """Several labels per clip (binary cross-entropy) instead of one (cross-entropy). Set from the data."""
        label_smoothing: float = 0.0
        """Share of the target spread over all labels, in [0, 1); single-label only."""
        frozen: bool = False
        """Train the head alone; the encoder stays as it was loaded."""
        augment: Augment.Config = field(default_factory=Augment.Config)
        """Changes made to the training clips."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 to below 1")

    def __init__(
        self, config: Config, front_end: LogMel, encoder: Encoder, labels: tuple[str, ...] = (), seed: int = 0
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: Classify.Config = config
        if len(labels) < 2 and not (config.multi_label and labels):
            raise ConfigError(f"labels = {list(labels)}: a classifier needs two or more; give a corpus that has them")
        self.head = linear_head(pooled_dim(encoder.embed_dim, encoder.grid.rows, config.pooling), len(labels))
        if config.frozen:
            encoder.requires_grad_(False)
        self.augment = Augment(config.augment)

    def train(self, mode: bool = True) -> "Classify":
        """Set training mode; a frozen encoder stays as it is in use."""
        super().train(mode)
        self.encoder.train(mode and not self.config.frozen)
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss over the clips of an augmented batch, and the share of clips got right."""
        if batch.targets is None:
            raise ConfigError("a classifier was given clips without labels; give a corpus that has them")
        wave, targets = self.augment.wave(batch.wave, batch.lengths, batch.targets, batch.keys, self.seed, step)
        assert targets is not None  # since batch.targets is not
        spectrogram, frames = self.spectrograms(wave, batch.lengths)
        spectrogram = self.augment.spectrogram(spectrogram, frames, batch.keys, self.seed, step)
        logits = self.logits(self.with_valid(spectrogram, frames))
        if self.config.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, targets)
        else:
            loss = F.cross_entropy(logits, targets, label_smoothing=self.config.label_smoothing)
        right = (batch.targets.gather(1, logits.argmax(dim=1, keepdim=True)) > 0).float().mean()
        return ObjectiveOutput(loss, torch.tensor(float(len(batch)), device=loss.device), {"accuracy": right})

    def logits(self, features: Features) -> Float[Tensor, "clip label"]:
        """Return float32 scores before softmax or sigmoid."""
        encoded = self.encoder(features.spectrogram, features.valid)
        pooled = pool(encoded.patches, encoded.cls, features.valid, self.encoder.grid.rows, self.config.pooling)
        scores: Tensor = self.head(pooled)
        return scores.to(pooled.dtype)

    def probabilities(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label: they sum to one unless the task is multi-label."""
        logits = self.logits(self.features(batch))
        return logits.sigmoid() if self.config.multi_label else logits.softmax(dim=1)
