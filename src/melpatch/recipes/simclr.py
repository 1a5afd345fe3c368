"""SimCLR with CLAR's views: as published for words of a second, and for own data."""

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.objectives.simclr import SimCLR
from melpatch.training.config import RunConfig, TrainConfig


def simclr(size: str) -> RunConfig:
    """CLAR as published for words of a second: batches of 256, 1020 epochs of which ten warm up.

    Source: Al-Tahan and Mohsenzadeh 2021 (arXiv 2010.09542) and the published code (commit 3b5a782,
    ``main_unsupervised.py``): 128 mels from 40 to 8000 Hz, transforms of 2048 samples every 128,
    Adam with a decay of 1e-6. For ESC-50 it has clips of 5 s, batches of 32 and 2000 epochs.
    *Differs*: the mel spectrogram alone, see :class:`melpatch.objectives.simclr.SimCLR`; a CNN14 of
    the named size instead of ResNet18, whose published size is near 11 M parameters; Adam alone at
    1e-3, where the published rate of 1 is for Adam wrapped in LARS.
    """
    epochs = 1020.0
    return RunConfig(
        front_end=front_ends.clar(),
        encoder=CNN14.Config.of_size(size),
        objective=SimCLR.Config(),
        loader=LoaderConfig(batch_size=256, seconds=1.0, bucket_steps=1),
        train=TrainConfig(
            epochs=epochs,
            optimizer="adam",
            lr=1e-3,
            betas=(0.9, 0.999),
            weight_decay=1e-6,
            grad_clip=None,
            lr_warmup=10 / epochs,
        ),
    )


def simclr_short(size: str) -> RunConfig:
    """SimCLR for your own short clips and few hours: segments of 2 s, 64 clips a batch.

    Source: the objective of :func:`simclr` with the front end of
    :func:`melpatch.recipes.m2d.m2d_short`. Batches mix all lengths: if lengths were alike, a clip
    would be compared with its own corpus only.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=SimCLR.Config(),
        loader=LoaderConfig(batch_size=64, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )
