"""Distillation of any trained encoder into a small one, on own sound without labels."""

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.objectives.distill import Distill
from melpatch.training.config import RunConfig, TrainConfig


def distill(size: str) -> RunConfig:
    """Distillation for your own data: a trained teacher's vector and tokens, clips of up to 2 s.

    The front end is the teacher's unless it is given. Source: lab/distill.md; encoder and loader as
    in :func:`melpatch.recipes.maskspec.maskspec`.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=Distill.Config(),
        loader=LoaderConfig(batch_size=48, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )
