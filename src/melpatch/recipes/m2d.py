"""M2D, audio JEPAs and data2vec as its settings, and MSM-MAE with its front end."""

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

    Source: Niizumi et al. 2022 (arXiv 2210.14648), section 4, and 2024 (arXiv 2404.06095): AdamW,
    3e-4 per 256 clips, 20 epochs of warm-up, a cosine to 0, norm of the gradient at most 3,
    momentum from 0.99995 to 0.99999, a teacher with random weights of its own.
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


def audio_jepa(size: str) -> RunConfig:
    """Audio-JEPA: a teacher of all 192 patches of 10 s, half of them masked, 100,000 steps.

    Source: Tuncay et al. 2025 (arXiv 2507.02915) and the published settings
    (``configs/model/jepa.yaml``): 32 kHz, 96 bands x 512 frames, a predictor of 6 blocks as wide as
    the encoder, standardised targets of the last layer, decay 0.05 of all weights, warm-up over
    2,000 of 100,000 steps to 1e-3 and a cosine to 1e-5, batches of 32, momentum from 0.996 to 1 on
    half a cosine. *Differs*: half of the patches is masked in each clip, there a share drawn from
    40 to 60 %; the warm-up starts at 0, there at 1e-6; AdamW and norms of the gradient of at most
    1, in the last published settings AdEMAMix and at most the 90 % quantile of the last 1,000; the
    window is 25 ms.
    """
    shape = ViT.Config.of_size(size)
    return RunConfig(
        # A hop of 625 samples: 10 s are 511 frames, and with one of padding 32 columns of 6
        # patches.
        front_end=LogMel.Config(sample_rate=32000, n_mels=96, hop_ms=625 / 32, scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0),
        objective=M2D.Config(
            mask=Masking.Config(ratio=0.5),
            decoder=MAEDecoder.Config(depth=min(6, 2 * shape.depth), num_heads=shape.num_heads),
            teacher_sees="all",
            teacher_embeds="own",
            loss="l2",
            momentum=Momentum(start=0.996, end=1.0, curve="cosine"),
        ),
        loader=LoaderConfig(batch_size=32, seconds=10.0),
        train=TrainConfig(
            steps=100_000,
            lr=1e-3,
            weight_decay=0.05,
            decay_all=True,
            lr_warmup=2_000 / 100_000,
            lr_floor=0.01,
        ),
    )


def data2vec(size: str) -> RunConfig:
    """M2D's objective with data2vec's targets: the mean of 8 layers of a teacher of all.

    Source: Baevski et al. 2022 (arXiv 2202.03555) and the published settings for speech: layers
    with an instance norm each, squared error over the root of the width, momentum from 0.999 to
    0.9999 over 30,000 of 400,000 steps; front end, masks and training are those of :func:`m2d`.
    *Differs*: there masked places are kept under a mask embedding and a linear layer predicts; here
    they are dropped and M2D's predictor predicts; targets are the layers' outputs, there those of
    their MLPs.
    """
    base = m2d(size)
    objective = replace(
        base.objective,
        teacher_sees="all",
        teacher_start="copy",
        target_layers=min(8, ViT.Config.of_size(size).depth),
        instance_norm=True,
        standardise=False,
        loss="l2",
        momentum=Momentum(start=0.999, end=0.9999, share=30_000 / 400_000),
    )
    return replace(base, objective=objective)


def m2d_short(size: str) -> RunConfig:
    """M2D for your own short clips and few hours: any length, a light predictor, a faster teacher.

    Source: the objective of :func:`m2d` with the front end, initialisation and batches of
    :func:`melpatch.recipes.maskspec.maskspec`. The teacher starts as a copy of the student, and its
    momentum follows batch size and length of the run. Targets of a clip grow alike in short runs;
    an instance norm prevents that, and makes worse embeddings (lab/latent-targets.md).
    """
    width = max(64, ViT.Config.of_size(size).embed_dim // 2)
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=M2D.Config(decoder=MAEDecoder.Config(dim=width, depth=2, num_heads=width // 32)),
        loader=LoaderConfig(batch_size=48, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )


def msm_mae(size: str) -> RunConfig:
    """MSM-MAE: a masked autoencoder with M2D's front end and training (EVAR: 79.1 %).

    Source: Niizumi et al. 2022 (arXiv 2204.12260) and its figures beside M2D: 75 % masked, four
    decoder blocks of 384 channels, pixels normalised per patch.
    """
    decoder = MAEDecoder.Config(dim=384, depth=4, num_heads=6, positions="sincos_mae")
    return replace(m2d(size), objective=MaskSpec.Config(decoder=decoder))
