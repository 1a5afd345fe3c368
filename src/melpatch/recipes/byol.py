"""BYOL-A and ATST as published, and BYOL for own data on a transformer and on BYOL-A's CNN."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.byol_a import BYOLA
from melpatch.encoders.vit import ViT
from melpatch.nn.ema import Momentum
from melpatch.objectives.atst_frame import ATSTFrame
from melpatch.objectives.byol import BYOL
from melpatch.training.config import RunConfig, TrainConfig

_CROP = (0.6, 1.5)
"""Least and largest size of BYOL-A's random resize crop."""


def byol_a(size: str) -> RunConfig:
    """BYOL-A as published first: pieces of 0.95 s, its CNN, batches of 256, 100 epochs.

    Source: Niizumi et al. 2021 (arXiv 2103.06695) and the published settings: mixing up to 0.4,
    random resize crop, heads of 4096 and 256 with batch statistics per view, momentum 0.99, Adam at
    a constant 3e-4. *Differs*: as :class:`melpatch.objectives.byol.BYOL`; mean and std are measured
    before training, there they run along with it.
    """
    return RunConfig(
        front_end=front_ends.byol_a(),
        encoder=BYOLA.Config.of_size(size, version="v1", dropout=0.3),
        objective=BYOL.Config(
            augment=ViewAugment.Config(mix=0.4, crop_mels=_CROP, crop_frames=_CROP),
            pooling="cls",
            head_bias=True,
            apart=True,
            directions="sum",
            momentum=Momentum(start=0.99),
        ),
        loader=LoaderConfig(batch_size=256, seconds=0.95, bucket_steps=1),
        train=TrainConfig(
            epochs=100.0,
            optimizer="adam",
            lr=3e-4,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            grad_clip=None,
            lr_schedule="constant",
            lr_warmup=0.0,
            precision="32-true",
        ),
    )


def byol_a_v2(size: str) -> RunConfig:
    """BYOL-A v2 as published: tokens of MLP and convolutions, a linear fader (EVAR ESC-50: 83.4).

    Source: Niizumi et al. 2023 (arXiv 2204.07402) and the published settings: mixing up to 0.2, a
    line of up to one standard deviation, Adam at 1e-4; otherwise :func:`byol_a`.
    """
    base = byol_a(size)
    augment = replace(base.objective.augment, mix=0.2, fader=1.0)
    return replace(
        base,
        encoder=BYOLA.Config.of_size(size, version="v2", dropout=0.3),
        objective=replace(base.objective, augment=augment),
        train=replace(base.train, lr=1e-4),
    )


def atst_clip(size: str) -> RunConfig:
    """ATST-Clip as published: two crops of 6 s, columns of 40 ms, batches of 1536 (AS-2M: 0.452).

    Source: Li et al. 2022 (arXiv 2204.12076) and 2024 (arXiv 2306.04186) and the published settings
    of its base model, 318,000 steps, 2e-4 per 256 clips, momentum from 0.9995, also for large; all
    smaller sizes have those of its small one, 39,100 steps on 200,000 clips, 5e-4, from 0.99. Decay rises from 0.04
    to 0.4. *Differs*: as :class:`melpatch.objectives.byol.BYOL`; q, k and v have biases; the small
    model's script compares crops of 9 s and of 6 s.
    """
    steps, warmup, rate, momentum = 39_100, 1_300, 5e-4, 0.99
    if size in ("base", "large"):
        steps, warmup, rate, momentum = 318_000, 15_860, 2e-4, 0.9995
    return RunConfig(
        front_end=front_ends.atst(),
        encoder=_columns(size, cls_tokens=1),
        objective=BYOL.Config(
            augment=ViewAugment.Config(mix=0.4, crop_mels=_CROP, crop_frames=_CROP),
            crop_seconds=6.0,
            pooling="cls",
            momentum=Momentum(start=momentum, end=1.0, curve="cosine"),
            keep="teacher",
        ),
        loader=LoaderConfig(batch_size=1536, seconds=10.0, bucket_steps=1),
        train=_adamw(steps, warmup, rate * 1536 / 256),
    )


def atst_frame(size: str) -> RunConfig:
    """ATST-Frame as published: 65 % of the columns of 10 s hidden, batches of 864 (AS-2M: 0.480).

    Source: Li et al. 2024 (arXiv 2306.04186) and the published settings of its base model: 398,160
    steps, 8e-5 per 256 clips, momentum from 0.9996. *Differs*: as
    :class:`melpatch.objectives.atst_frame.ATSTFrame`; q, k and v have biases.
    """
    return RunConfig(
        front_end=front_ends.atst(),
        encoder=_columns(size, cls_tokens=0),
        objective=ATSTFrame.Config(
            momentum=Momentum(start=0.9996, end=1.0, curve="cosine"), keep="teacher"
        ),
        loader=LoaderConfig(batch_size=864, seconds=10.0, bucket_steps=1),
        train=_adamw(398_160, 16_590, 8e-5 * 864 / 256),
    )


def byol_short(size: str) -> RunConfig:
    """BYOL for your own short clips and few hours: segments of 2 s, 64 clips a batch, narrow heads.

    Source: the objective of :func:`byol_a_v2` with the front end and clips of
    :func:`melpatch.recipes.barlow_twins.barlow_twins_short`; momentum follows the length of the
    run.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=BYOL.Config(hidden_dim=1024),
        loader=LoaderConfig(batch_size=64, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )


def byol_a_short(size: str) -> RunConfig:
    """BYOL on BYOL-A's CNN for your own clips of seconds and few hours: 64 bins, segments of 2 s.

    Source: :func:`byol_short` with the front end and the encoder of :func:`byol_a_v2`, whose
    vector for a clip is compared.
    """
    base = byol_short(size)
    return replace(
        base,
        front_end=front_ends.byol_a(),
        encoder=BYOLA.Config.of_size(size),
        objective=replace(base.objective, pooling="cls"),
    )


def _columns(size: str, cls_tokens: int) -> ViT.Config:
    """Return ATST's transformer on columns of 64 mel bins x 4 frames."""
    return ViT.Config.of_size(
        size,
        patch=(64, 4),
        partial="drop",
        cls_tokens=cls_tokens,
        positions="learned",
        columns=250,
        drop_path=0.1,
    )


def _adamw(steps: int, warmup: int, lr: float) -> TrainConfig:
    """Return ATST's optimiser: a cosine to 1e-6, and a decay that rises from 0.04 to 0.4."""
    return TrainConfig(
        steps=steps,
        accumulate=6,  # on one GPU; it stands for the six
        lr=lr,
        betas=(0.9, 0.999),
        weight_decay=0.04,
        weight_decay_end=0.4,
        grad_clip=None,
        lr_floor=1e-6 / lr,
        lr_warmup=warmup / steps,
    )
