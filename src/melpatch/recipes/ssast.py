"""SSAST: as published (patches and frames), and as it works on a laptop with own data."""

from typing import Literal

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, TrainConfig


def ssast(size: str) -> RunConfig:
    """SSAST for your own data: any length, AdamW, cosine, 75 % masked in squares of side 1 to 3.

    Source: lab/ssast.md, settings tried on the way. The published
    squares (side 3 to 5) suit clips of 10 s; on the few columns of short clips they mask everything
    nearby, and smaller ones train better. Statistics are measured at the start.
    """
    return RunConfig(
        encoder=ViT.Config.of_size(size),
        objective=SSAST.Config(cluster_sides=(1, 2, 3)),
        loader=LoaderConfig(batch_size=48, seconds=2.0),
        train=TrainConfig(epochs=20.0, lr=1e-3 if size in ("nano", "mini") else 5e-4),
    )


def ssast_patch(size: str) -> RunConfig:
    """SSAST as published, patches of 16 x 16: 400 of 512 masked in squares of side 3 to 5.

    Source: Gong et al. 2022 (arXiv 2110.09784), section 3.1, and the published pretraining scripts:
    Adam, betas 0.95 and 0.999, decay 5e-7 in the gradient, float32, no clipping; batch and learning
    rate by size, of large those of base. *Differs*: one pass with one mask instead of two; linear warm-up and cosine
    instead of halving on a plateau of the validation accuracy.
    """
    return _published(size, patch=(16, 16), mask="cluster")


def ssast_frame(size: str) -> RunConfig:
    """SSAST as published, frames of 128 mels x 2: 400 of 512 masked at random.

    Source and *Differs*: as :func:`ssast_patch`; squares were found to harm with frames (comment in
    the published code).
    """
    return _published(size, patch=(128, 2), mask="random")


def _published(size: str, patch: tuple[int, int], mask: Literal["cluster", "random"]) -> RunConfig:
    base = size in ("base", "large")
    return RunConfig(
        # AudioSet's mean and std are the defaults of the front end.
        front_end=LogMel.Config(padding="legacy", target_frames=1024),
        encoder=ViT.Config.of_size(
            size,
            patch=patch,
            cls_tokens=2,
            positions="learned",
            columns=1024 // patch[1],
            partial="drop",
        ),
        objective=SSAST.Config(num_masked=400, mask=mask),
        # 1024 frames
        loader=LoaderConfig(batch_size=24 if base else 120, seconds=10.255),
        train=TrainConfig(
            epochs=10.0,
            optimizer="adam",
            lr=1e-4 if base else 5e-4,
            betas=(0.95, 0.999),
            weight_decay=5e-7,
            decay_all=True,
            grad_clip=None,
            lr_warmup=0.01,
            precision="32-true",
        ),
    )
