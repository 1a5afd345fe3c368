"""An objective of your own: a denoising autoencoder, in a file anywhere on the Python path.

It has all that the built-in ones have: flags, help, resuming, metrics, fine-tuning. On the command line:

    export PYTHONPATH=examples
    melpatch pretrain own_objective:Denoise --data recordings/ --out runs/denoise --objective.level 0.1
    melpatch finetune --init runs/denoise --data labels.csv --out runs/b

From a script or notebook:

    from own_objective import Denoise
    run = melpatch.pretrain(data="recordings/", objective=Denoise.Config(level=0.1), out="runs/denoise")
    melpatch.finetune(data="labels.csv", init=run, out="runs/b")
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from melpatch import LogMel, Objective
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.objectives.base import ObjectiveOutput
from melpatch.rng import normal, stream


class Denoise(Objective):
    """Reconstruct the patches of a spectrogram from the same audio with white noise added."""

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
        """Return the mean squared error over the patches that are not padding."""
        noise = normal(stream(self.seed, "noise", batch.keys, step), batch.wave.shape[1])
        noisy, valid = self.features(replace(batch, wave=batch.wave + self.config.level * noise))
        clean = self.encoder.grid.split(self.features(batch).spectrogram)
        reconstructed = self.head(self.encoder(noisy, valid).patches)
        error = (reconstructed - clean).square().mean(dim=2)
        weights = torch.ones_like(error) if valid is None else valid.to(error.dtype)
        return ObjectiveOutput((error * weights).sum() / weights.sum(), weights.sum())
