"""Audio Barlow Twins: as published, on a vision transformer, and for own data."""

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.objectives.barlow_twins import BarlowTwins
from melpatch.training.config import RunConfig, TrainConfig


def barlow_twins(size: str) -> RunConfig:
    """Audio Barlow Twins as published: pieces of 0.95 s, batches of 128, 100 epochs.

    Source: Anton et al. 2022 (arXiv 2209.14345) and the published settings for transformers:
    BYOL-A's front end and augmentations, patches of 16 mels x 8 frames, projections of 8192 and
    1048, AdamW at 1e-4 with a decay of 0.06. *Differs*: plain patches, where the paper's best
    transformer has a convolutional stem.
    """
    return RunConfig(
        front_end=front_ends.byol_a(),
        encoder=ViT.Config.of_size(size, patch=(16, 8)),
        objective=BarlowTwins.Config(hidden_dim=8192, projection=1048),
        loader=LoaderConfig(batch_size=128, seconds=0.95, bucket_steps=1),
        train=TrainConfig(epochs=100.0, lr=1e-4, weight_decay=0.06),
    )


def barlow_twins_short(size: str) -> RunConfig:
    """Audio Barlow Twins for your own short clips and few hours: segments of 2 s, 64 clips a batch.

    Source: the objective of :func:`barlow_twins` with the front end of
    :func:`melpatch.recipes.m2d.m2d_short`. Batches mix all lengths: if lengths were alike, a clip
    would be compared with its own corpus only.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=BarlowTwins.Config(),
        loader=LoaderConfig(batch_size=64, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )
