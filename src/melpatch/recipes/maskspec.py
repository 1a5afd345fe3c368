"""MaskSpec and Audio-MAE: as published, and for own data."""

from dataclasses import replace

from melpatch.audio import front_ends
from melpatch.audio.augment import Augment
from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.objectives.maskspec import MaskSpec
from melpatch.training.config import RunConfig, TrainConfig


def maskspec(size: str) -> RunConfig:
    """MaskSpec for your own data: any length, 75 % masked at random, a decoder of half the width.

    Source: loss and ratio of the paper (arXiv 2204.12768). Pixels are reconstructed without
    normalisation per patch, spectrograms have a standard deviation of 1, short clips are repeated,
    weights are initialised as in MAE, and there is no class token: small encoders learned far less
    otherwise (lab/small-mae.md). Batches of 16 take it further per CPU-second than 48
    (lab/budget-curve.md). The rest is as in :func:`melpatch.recipes.ssast.ssast`.
    """
    width = max(64, ViT.Config.of_size(size).embed_dim // 2)
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=0, init="mae"),
        objective=MaskSpec.Config(
            decoder=MAEDecoder.Config(dim=width, depth=2, num_heads=width // 32), target="raw"
        ),
        loader=LoaderConfig(batch_size=16, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )


def maskspec_32k(size: str) -> RunConfig:
    """MaskSpec as published at 32 kHz: 496 patches of 10 s, 75 % masked, 8 decoder blocks.

    Source: Chong et al. 2022 (arXiv 2204.12768), section 3, and the published code: AdamW, 1e-3 per
    256 clips, 8 GPUs of 64 clips, 512 channels in the decoder; 400 epochs of which 40 warm up.
    Published fine-tuning starts from the 60th and 75th, so stop there, or keep them
    (``--keep-every``). *Differs*: the front end, see :func:`melpatch.audio.front_ends.maskspec`.
    """
    return RunConfig(
        front_end=front_ends.maskspec(),
        encoder=ViT.Config.of_size(size, partial="drop", init="mae", positions="sincos_mae"),
        objective=MaskSpec.Config(
            decoder=MAEDecoder.Config(dim=512, depth=8, num_heads=16, positions="sincos_mae")
        ),
        # 992 frames
        loader=LoaderConfig(batch_size=512, seconds=9.92),
        train=TrainConfig(
            epochs=400.0,
            accumulate=8,  # on one GPU; it stands for the eight
            lr=1e-3 * 512 / 256,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            grad_clip=None,
            lr_warmup=0.1,
        ),
    )


def maskspec_16k(size: str) -> RunConfig:
    """MaskSpec with the settings of maskspec_32k for audio at 16 kHz.

    Source: :func:`maskspec_32k`; the paper has no such model.
    """
    return replace(maskspec_32k(size), front_end=front_ends.maskspec(16000))


def audiomae(size: str) -> RunConfig:
    """Audio-MAE as published: 80 % masked, 16 decoder blocks with attention in 4 x 4 windows.

    Source: Huang et al. 2022 (arXiv 2207.06405), section 4, and the published code: AdamW, 2e-4 per
    256 clips, 64 GPUs of 8 clips, 33 epochs, a random gain of 1/2 + Beta(10, 10). (Its roll in time
    draws the shift from an axis of length 1, and so never rolls.) *Differs*: no relative position
    bias in the decoder, which does not see the class token; at most twice as many decoder blocks as
    the encoder has.
    """
    return RunConfig(
        # AudioSet's mean and std are the defaults of the front end.
        front_end=LogMel.Config(padding="legacy", target_frames=1024),
        encoder=ViT.Config.of_size(size, partial="drop", init="mae"),
        objective=MaskSpec.Config(
            mask=Masking.Config(ratio=0.8),
            decoder=MAEDecoder.Config(
                dim=512,
                depth=min(16, 2 * ViT.Config.of_size(size).depth),
                num_heads=16,
                attention="windows",
            ),
            augment=Augment.Config(gain_beta=10),
        ),
        # 1024 frames
        loader=LoaderConfig(batch_size=512, seconds=10.255),
        train=TrainConfig(
            epochs=33.0,
            accumulate=8,  # on one GPU; it stands for the 64
            lr=2e-4 * 512 / 256,
            betas=(0.9, 0.95),
            weight_decay=1e-4,
            grad_clip=None,
            lr_warmup=3 / 33,
        ),
    )
