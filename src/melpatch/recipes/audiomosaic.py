"""AudioMosaic: as published, with the masks of the paper or of the code, and for own data."""

from dataclasses import replace

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.masking import Masking
from melpatch.objectives.audiomosaic import AudioMosaic
from melpatch.training.config import RunConfig, TrainConfig


def audiomosaic(size: str) -> RunConfig:
    """AudioMosaic as published, with the masks of the paper: whole clips, batches of 6144, 400 epochs.

    Source: arXiv 2605.14231 and the published settings (commit 67a86a8,
    ``configs/AudioMosaic/pretrain.yaml``): AST's front end, AdamW at 6e-4 whatever the batch,
    a decay of 0.05, one epoch of warm-up, cosine to 1e-6, drop path 0.1; 512 clips on each of 12
    processes. *Differs*: clips are not padded to 1024 frames, so positions have 63 columns instead
    of 64; they start at random instead of from sines and cosines (of a transposed grid).
    """
    epochs = 400.0
    lr = 6e-4
    return RunConfig(
        front_end=LogMel.Config(),
        encoder=ViT.Config.of_size(
            size, positions="learned", patch_norm=True, outer_norm="before", drop_path=0.1
        ),
        objective=AudioMosaic.Config(),
        loader=LoaderConfig(batch_size=6144, seconds=10.0),
        train=TrainConfig(
            epochs=epochs,
            accumulate=12,  # on one GPU; it stands for the twelve processes
            lr=lr,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            grad_clip=None,
            lr_warmup=1 / epochs,
            lr_floor=1e-6 / lr,
        ),
    )


def audiomosaic_released(size: str) -> RunConfig:
    """AudioMosaic as published, with the masks that the released code draws.

    Source: ``models/audiomosaic.py`` (commit 67a86a8), lines 119 and 262 to 308, which reads tokens
    in the order of time as if rows came first: of 8 x 64 patches the first view keeps 3 of 8 runs
    of 8 neighbouring columns, the second one 38 of 64 places that repeat every 8 columns. The
    published results come from these masks. The rest is as in :func:`audiomosaic`.
    """
    base = audiomosaic(size)
    objective = replace(
        base.objective,
        first_mask=Masking.Config(kind="time_legacy", ratio=5 / 8),
        second_mask=Masking.Config(kind="frequency_legacy", ratio=26 / 64),
    )
    return replace(base, objective=objective)


def audiomosaic_short(size: str) -> RunConfig:
    """AudioMosaic for your own short clips and few hours: any length, 64 clips a batch.

    Source: the objective of :func:`audiomosaic` with the front end of
    :func:`melpatch.recipes.m2d.m2d_short`, without time stretch and pitch shift, which cost
    twelve times the front end (lab/view-augmentations.md). Batches mix all lengths: if lengths were
    alike, a clip would be compared with its own corpus only.
    """
    augment = ViewAugment.Config(
        roll=0.5,
        gain_beta=10,
        polarity=0.5,
        noise=0.5,
        gain=0.3,
        high_pass=0.3,
        band_stop=0.5,
    )
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, init="mae"),
        objective=AudioMosaic.Config(augment=augment),
        loader=LoaderConfig(batch_size=64, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=1e-3),
    )
