"""Audio2Vec: slices of a second as in the paper, and shorter ones for own data."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.byol_a import BYOLA
from melpatch.encoders.vit import ViT
from melpatch.objectives.audio2vec import Audio2Vec
from melpatch.training.config import RunConfig, TrainConfig


def audio2vec(size: str) -> RunConfig:
    """Audio2Vec on a small CNN: the middle one of five slices of about 1 s from the other four.

    Source: Tagliasacchi et al. 2019 (arXiv 1905.11796): log-mel slices of 64 bins, vectors of 128
    numbers, two neighbours on either side. *Differs*: the encoder and its front end are BYOL-A's;
    batch size, learning rate and steps are ours, since the paper's have not been checked.
    """
    return RunConfig(
        front_end=front_ends.byol_a(),
        encoder=BYOLA.Config.of_size(size),
        objective=Audio2Vec.Config(slice_seconds=0.96, neighbours=2, pooling="cls"),
        loader=LoaderConfig(batch_size=64, seconds=10.0, bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )


def audio2vec_short(size: str) -> RunConfig:
    """Audio2Vec for your own short clips and few hours: the middle one of three slices of 0.25 s.

    Source: the objective of :func:`audio2vec` with the front end and clips of
    :func:`melpatch.recipes.maskspec.maskspec`.
    """
    return replace(
        audio2vec(size),
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=Audio2Vec.Config(),
        loader=LoaderConfig(batch_size=64, seconds=2.0, short_clips="repeat", bucket_steps=1),
    )
