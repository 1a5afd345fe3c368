"""COLA: for own data, and as published, with fine-tuning."""

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.cnn14 import CNN14
from melpatch.encoders.vit import ViT
from melpatch.nn.pooling import TOKEN_POOLING
from melpatch.objectives.classify import Classify
from melpatch.objectives.cola import COLA
from melpatch.training.config import RunConfig, TrainConfig


def cola(size: str) -> RunConfig:
    """COLA for your own short clips: crops of half a segment of up to 2 s, 48 clips per batch.

    Source: the paper's loss and head (arXiv 2010.10915). Crops are compared by the pooling that
    probes take, and the encoder starts as in :func:`melpatch.recipes.maskspec.maskspec`: with few
    labels nothing learned more in eight CPU-minutes (lab/budget-curve.md). Batches mix all lengths:
    if lengths were alike, a clip would be compared with its own corpus only.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=COLA.Config(pooling=TOKEN_POOLING),
        loader=LoaderConfig(batch_size=48, seconds=2.0, bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3 if size in ("nano", "mini") else 3e-4),
    )


def cola_published(size: str) -> RunConfig:
    """COLA as published: crops of 1 s from clips of 10 s, batches of 64, 100,000 steps.

    Source: Saeed et al. 2020 (arXiv 2010.10915), section 3.1, and the published code's defaults:
    Adam without decay, warm-up or clipping, at a constant learning rate, 100 epochs of 1000 steps.
    *Differs*: a CNN14 of the named size instead of EfficientNet-B0; its outputs are averaged over
    frequency before their maximum over time is taken; see also
    :func:`melpatch.audio.front_ends.cola`.
    """
    return RunConfig(
        front_end=front_ends.cola(),
        encoder=CNN14.Config.of_size(size),
        objective=COLA.Config(crop_seconds=1.0, max_crop_ratio=1.0, pooling="max", init="random"),
        loader=LoaderConfig(batch_size=64, seconds=10.0, bucket_steps=1),
        train=_adam(steps=100_000),
    )


def cola_finetune(size: str) -> RunConfig:
    """COLA fine-tuned as published, from a cola_published run: random crops of 1 s, 100 epochs.

    Long clips are tested in windows of 1 s, end to end. Source: Saeed et al. 2020 (arXiv
    2010.10915), section 3.2, and the published code's defaults. *Differs*: the windows'
    probabilities are averaged, not their logits; a LayerNorm precedes the linear layer; epochs are
    passes over the corpus, not 1000 steps.
    """
    return RunConfig(
        front_end=front_ends.cola(),
        encoder=CNN14.Config.of_size(size),
        objective=Classify.Config(pooling="max"),
        loader=LoaderConfig(batch_size=64, seconds=1.0),
        train=_adam(epochs=100.0),
    )


def _adam(*, steps: int | None = None, epochs: float = 10.0) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        epochs=epochs,
        optimizer="adam",
        lr=1e-3,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        grad_clip=None,
        lr_schedule="constant",
        lr_warmup=0.0,
        precision="32-true",
    )
