"""Fine-tuning: with few labels on own data, and as published for masked autoencoders."""

from dataclasses import replace

from melpatch.audio.augment import Augment
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.pooling import TOKEN_POOLING
from melpatch.objectives.classify import Classify
from melpatch.recipes.maskspec import audiomae, maskspec_32k
from melpatch.training.config import RunConfig, TrainConfig


def finetune(size: str) -> RunConfig:
    """Fine-tuning on your own data: AdamW, warm-up and cosine, layer-wise decay, augmentation.

    The augmentation is SpecAugment, roll, gain and label smoothing; front end, statistics and
    stride are those of the pretraining run. Source: layer-wise decay, warm-up (8 % of the run) and
    cosine as usual since BEiT (Bao et al. 2021, arXiv 2106.08254); strengths from
    lab/ssast.md, fine-tuned.
    """
    return RunConfig(
        encoder=ViT.Config.of_size(size),
        objective=Classify.Config(
            pooling=TOKEN_POOLING,  # lab/head-start.md
            label_smoothing=0.1,
            select_by="auto",
            loss_weights="auto",  # lab/uneven-classes.md
            augment=Augment.Config(roll=0.2, freq_mask=24, time_mask=24, gain_db=6.0),
        ),
        loader=LoaderConfig(batch_size=32, seconds=5.0),
        train=TrainConfig(epochs=30.0, lr=5e-4, layer_decay=0.8),
    )


def maskspec_finetune(size: str) -> RunConfig:
    """MaskSpec fine-tuned as published: mean pooling, two fifths of the patches dropped.

    Source: Chong et al. 2022 (arXiv 2204.12768), section 3, and the published scripts for one GPU:
    AdamW, 1e-3 per 256 clips, 80 epochs, 200 of 496 patches left out (100 of 248 on ESC-50, none on
    Speech Commands: --objective.patch-out 0), half of the waves mixed with weights Beta(2, 2), gain
    of 7 dB, masks of 48 mels and 192 frames. *Differs*: no mixtures of spectrograms (Beta(0.3,
    0.3)), noise, filters or changes of speed, and no roll of up to 50 samples; the encoder's last
    norm stays, before the mean.
    """
    return _autoencoder(
        # 992 frames
        replace(maskspec_32k(size), loader=LoaderConfig(batch_size=64, seconds=9.92)),
        Classify.Config(
            pooling="mean",
            patch_out=200 / 496,
            augment=Augment.Config(
                mixup_rate=0.5, mixup_alpha=2, gain_db=7.0, freq_mask=48, time_mask=192
            ),
        ),
        epochs=80.0,
        weight_decay=0.05,
    )


def maskspec_finetune_cls(size: str) -> RunConfig:
    """MaskSpec fine-tuned as published, with the class token instead of mean pooling.

    Source and *Differs*: as :func:`maskspec_finetune`; the published code has it as an option.
    """
    config = maskspec_finetune(size)
    return replace(config, objective=replace(config.objective, pooling="cls"))


def audiomae_finetune(size: str) -> RunConfig:
    """Audio-MAE fine-tuned on AudioSet-20K as published: 60 epochs (published: 37.0 mAP).

    Source: Huang et al. 2022 (arXiv 2207.06405), section 4, and the published code: AdamW, 1e-3 per
    256 clips, decay 5e-4, a fifth of the rows and of the columns of patches left out, half of the
    waves mixed, a random gain of 1/2 + Beta(10, 10). Betas, drop path and five epochs of warm-up
    are MAE's (He et al. 2022, arXiv 2111.06377, table 9). *Differs*: the same share of patches is
    dropped, each by itself; the encoder's last norm stays, before the mean.
    """
    return _autoencoder(
        # 1024 frames
        replace(audiomae(size), loader=LoaderConfig(batch_size=64, seconds=10.255)),
        Classify.Config(
            pooling="mean",
            patch_out=1 - 0.8 * 0.8,
            augment=Augment.Config(mixup_rate=0.5, gain_beta=10),
        ),
        epochs=60.0,
        weight_decay=5e-4,
    )


def _autoencoder(
    pretraining: RunConfig, objective: Classify.Config, *, epochs: float, weight_decay: float
) -> RunConfig:
    """Return a run with the encoder of pretraining, fine-tuned as published for MAEs."""
    lr = 1e-3 * pretraining.loader.batch_size / 256
    return replace(
        pretraining,
        encoder=replace(pretraining.encoder, drop_path=0.1),
        objective=objective,
        train=TrainConfig(
            epochs=epochs,
            lr=lr,
            betas=(0.9, 0.999),
            weight_decay=weight_decay,
            grad_clip=None,
            lr_warmup=5 / epochs,
            lr_floor=1e-6 / lr,
            layer_decay=0.75,
        ),
    )
