"""An objective of your own: a denoising autoencoder. It is a file anywhere on the Python path, and has all that ours
have: flags, help, resuming, metrics, fine-tuning.

    export PYTHONPATH=examples
    melpatch pretrain own_objective:Denoise --data recordings/ --out runs/denoise --objective.level 0.1
    melpatch finetune --init runs/denoise --data labels.csv --out runs/b
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.objectives.base import Objective, ObjectiveOutput
from melpatch.rng import normal, stream


class Denoise(Objective):
    """Rebuild the patches of a spectrogram from the same sound with white noise in it."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the denoiser."""

        level: float = 0.05
        """Standard deviation of the noise, where samples lie in [-1, 1]."""

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.head = nn.Linear(encoder.embed_dim, encoder.grid.pixels)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean squared error over the patches that hold sound."""
        noise = normal(stream(self.seed, "noise", batch.keys, step), batch.wave.shape[1])
        noisy, valid = self.features(replace(batch, wave=batch.wave + self.config.level * noise))
        clean = self.encoder.grid.split(self.features(batch).spectrogram)
        rebuilt = self.head(self.encoder(noisy, valid).patches)
        error = (rebuilt - clean).square().mean(dim=2)
        heard = torch.ones_like(error) if valid is None else valid.to(error.dtype)
        return ObjectiveOutput((error * heard).sum() / heard.sum(), heard.sum())
