"""Fine-tuning with few labels on own data."""

from melpatch.audio.augment import Augment
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT, size
from melpatch.objectives.classify import Classify
from melpatch.training.config import RunConfig, TrainConfig


def finetune(size_name: str) -> RunConfig:
    """Return settings for a classifier on own data: SpecAugment, time roll, label smoothing, layer-wise decay.

    Source: layer-wise decay, warm-up and cosine as is usual since BEiT (Bao et al. 2021); strengths from the runs of
    2026-11-20 in LAB.md.
    """
    return RunConfig(
        encoder=ViT.Config(**size(size_name)),
        objective=Classify.Config(
            label_smoothing=0.1, augment=Augment.Config(roll=0.2, freq_mask=24, time_mask=24, gain_db=6.0)
        ),
        loader=LoaderConfig(batch_size=32, seconds=5.0),
        train=TrainConfig(epochs=30.0, lr=5e-4, layer_decay=0.8),
    )
