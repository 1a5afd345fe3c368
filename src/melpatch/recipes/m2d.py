"""M2D, the audio JEPA with its settings, and MSM-MAE, which has M2D's front end and predicts pixels."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.ema import Momentum
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.objectives.m2d import M2D
from melpatch.objectives.maskspec import MaskSpec
from melpatch.training.config import RunConfig, TrainConfig


def m2d(size: str) -> RunConfig:
    """M2D as published: 70 % of 190 patches masked, 300 epochs of batches of 2048 (EVAR: 80.2 %).

    Source: Niizumi et al. 2022 (arXiv 2210.14648), section 4, and 2024 (arXiv 2404.06095): AdamW, 3e-4
    per 256 clips, 20 epochs of warm-up, a cosine to 0, norm of the gradient at most 3, momentum from
    0.99995 to 0.99999, a teacher with random weights of its own.
    """
    return RunConfig(
        front_end=front_ends.m2d(),
        encoder=ViT.Config.of_size(size, init="mae", positions="sincos_mae"),
        objective=M2D.Config(
            decoder=MAEDecoder.Config(
                dim=512,
                depth=min(8, 2 * ViT.Config.of_size(size).depth),
                num_heads=16,
                positions="sincos_mae",
            ),
            teacher_start="random",
            momentum=Momentum(start=0.99995, end=0.99999),
        ),
        # 608 frames, of which the centred transform has one more than hops.
        loader=LoaderConfig(batch_size=2048, seconds=6.07),
        train=TrainConfig(
            epochs=300.0,
            accumulate=4,  # on one GPU; it stands for the four
            lr=3e-4 * 2048 / 256,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            grad_clip=3.0,
            lr_warmup=20 / 300,
        ),
    )


def m2d_06(size: str) -> RunConfig:
    """M2D with 60 % of the patches masked, the second published model (EVAR: 80.1 %).

    Source: as :func:`m2d`.
    """
    base = m2d(size)
    return replace(base, objective=replace(base.objective, mask=Masking.Config(ratio=0.6)))


def jepa(size: str) -> RunConfig:
    """Audio JEPA of Riou et al.: clips of 2.08 s, smooth L1, a teacher of the masked patches alone.

    Source: Riou et al. 2024 (arXiv 2405.08679) and the published settings: 80 bands, 208 frames, 65
    patches, otherwise M2D's.
    """
    base = m2d(size)
    return replace(
        base,
        objective=replace(base.objective, loss="smooth_l1"),
        loader=replace(base.loader, seconds=2.07),
    )


def m2d_short(size: str) -> RunConfig:
    """M2D for your own short clips and few hours: any length, a light predictor, a faster teacher.

    Source: the objective of :func:`m2d` with the front end, initialisation and batches of
    :func:`melpatch.recipes.maskspec.maskspec`. The teacher starts as a copy of the student, and its
    momentum follows batch size and length of the run.
    """
    width = max(64, ViT.Config.of_size(size).embed_dim // 2)
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=M2D.Config(
            decoder=MAEDecoder.Config(dim=width, depth=2, num_heads=width // 32),
        ),
        loader=LoaderConfig(batch_size=48, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )


def msm_mae(size: str) -> RunConfig:
    """MSM-MAE: a masked autoencoder with M2D's front end and training (EVAR: 79.1 %).

    Source: Niizumi et al. 2022 (arXiv 2204.12260) and its figures beside M2D: 75 % masked, four decoder
    blocks of 384 channels, pixels normalised per patch.
    """
    decoder = MAEDecoder.Config(dim=384, depth=4, num_heads=6, positions="sincos_mae")
    return replace(m2d(size), objective=MaskSpec.Config(decoder=decoder))
