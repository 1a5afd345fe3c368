"""PANNs' CNN14, the supervised baseline: as published on AudioSet, and for own data."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.audio.augment import Augment
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.cnn14 import CNN14
from melpatch.objectives.classify import Classify
from melpatch.recipes.finetune import finetune
from melpatch.training.config import RunConfig, TrainConfig


def cnn14(size: str) -> RunConfig:
    """CNN14 on AudioSet at 32 kHz: 600,000 steps, mixed spectrograms (published: 0.431 mAP).

    Source: Kong et al. 2020 (arXiv 1912.10211), section IV, and the published code: AMSGrad at a
    constant 1e-3, no decay, float32; two masks of up to 64 frames and two of up to 8 mels, then
    mixtures with weights Beta(1, 1). *Differs*: clips are mixed with another clip of the batch;
    LayerNorm before the last linear layer.
    """
    return _published(size, front_ends.panns())


def cnn14_16k(size: str) -> RunConfig:
    """CNN14 on AudioSet at 16 kHz, with windows of 512 samples (published: 0.438 mAP).

    Source and *Differs*: as :func:`cnn14`.
    """
    return _published(size, front_ends.panns(16000))


def cnn14_own(size: str) -> RunConfig:
    """CNN14 for your own data: the finetune recipe with the published front end and learning rate.

    It takes the published weights (``--size base --init Cnn14_mAP=0.431.pth``), with a lower
    ``--lr``. Source: :func:`melpatch.recipes.finetune.finetune`, so that the two kinds of encoder
    can be compared; front end, pooling and learning rate are the published ones.
    """
    config = finetune(size)
    return replace(
        config,
        front_end=front_ends.panns(),
        encoder=CNN14.Config.of_size(size),
        objective=replace(config.objective, pooling="cls"),
        train=replace(config.train, lr=1e-3, layer_decay=1.0),
    )


def _published(size: str, front_end: LogMel.Config) -> RunConfig:
    return RunConfig(
        front_end=front_end,
        encoder=CNN14.Config.of_size(size, trim="pooling"),
        objective=Classify.Config(
            pooling="cls",
            augment=Augment.Config(
                mixup_rate=1.0,
                mixup_alpha=1,
                mixup_on="spectrogram",
                masks=2,
                freq_mask=8,
                time_mask=64,
            ),
        ),
        loader=LoaderConfig(batch_size=32, seconds=10.0, balanced_sampling=True),
        train=TrainConfig(
            steps=600_000,
            optimizer="amsgrad",
            lr=1e-3,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            grad_clip=None,
            lr_schedule="constant",
            lr_warmup=0.0,
            precision="32-true",
            evaluations=300,  # every 2000 steps
        ),
    )
