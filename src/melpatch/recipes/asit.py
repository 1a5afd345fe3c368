"""ASiT: the paper, its two published releases, and settings for few and short clips."""

from dataclasses import replace

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.corruption import Corruption
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.objectives.asit import ASiT
from melpatch.training.config import RunConfig, TrainConfig


def asit(size: str) -> RunConfig:
    """ASiT as in the paper: 32 kHz, two views of 6 s, two heads, three losses, 40 epochs.

    Source: Atito et al. 2022 (arXiv 2211.13189), sections III and IV-A: 3 attention heads for
    small, 6 for base; two projection heads, one for class tokens and one for patches; the local
    loss over the corrupted tokens (equation 6), here those with any corrupted pixel. Numbers that
    its text leaves out are those of the release of 2023 (classes, bottleneck, the learning rate's
    warm-up as a share of its 100 epochs). As released, its "70 %" of zeros are 50 to 70 % of a
    clip, which has either zeros or 30 % of another clip. *Differs*: views are cut at 6 s, where the
    text has crops "resized" (the release only cuts), and from the spectrogram, so that the wave
    loses the clip's mean and not the view's; the momentum follows the batch size and the length of
    the run; the teacher's temperature rises over a tenth of the run, step by step; mean and std are
    measured (``--stats-clips 0`` takes AudioSet's); clips shorter than a view are masked instead of
    padded with silence; the prototypes are frozen at first, which the release intends but misses;
    the class token's position is a parameter of its own, and its gradient is clipped as one.
    """
    objective = ASiT.Config(
        view_seconds=6.0,
        local_tokens="corrupted",
        distillation=SelfDistillation.Config(shared="none"),
    )
    config = _published(size, objective, epochs=40.0, clips=128)
    num_heads = {"small": 3, "base": 6}.get(size, config.encoder.num_heads)
    return replace(
        config,
        front_end=LogMel.Config(sample_rate=32000),
        encoder=replace(config.encoder, num_heads=num_heads),
    )


def asit_2023(size: str) -> RunConfig:
    """ASiT as released in April 2023: 32 kHz, doubled pixel loss, prototypes never frozen.

    Source: its command line's defaults and README (32 clips on each of 4 GPUs). *Differs*: as
    :func:`asit`, except that momentum and freeze are as released; no circular shift of the wave;
    bfloat16 instead of float16.
    """
    objective = ASiT.Config(
        view_seconds=6.0,
        pixel_weight=2.0,
        average="batch",
        decoder=(768, 768, 128),
        decoder_last_gelu=True,
        # The release looks for the layer to freeze under a name that no layer has.
        distillation=SelfDistillation.Config(
            freeze_prototypes=0.0, temperature_warmup=0.3, momentum=0.996
        ),
    )
    config = _published(size, objective, epochs=100.0, clips=128)
    return replace(config, front_end=LogMel.Config(sample_rate=32000))


def asit_2024(size: str) -> RunConfig:
    """ASiT as released in March 2024 with weights: four crops of 2 s, one head for all tokens.

    Source: its command line's defaults (20 clips on each of 4 GPUs, float32). *Differs*: as
    :func:`asit`, except for momentum and freeze; it starts from random weights, whereas the release
    starts from ImageNet weights that it does not supply (``--init`` takes those of a run).
    """
    width = ViT.Config.of_size(size).embed_dim
    objective = ASiT.Config(
        view_seconds=6.0,
        local_crops=4,
        corruption=Corruption.Config(ratio=(0.5, 0.5)),
        local_weight=0.5,
        global_weight=0.5,
        average="batch",
        decoder=(width, width, width),
        decoder_last_gelu=True,
        distillation=SelfDistillation.Config(
            shared="all",
            local_prototypes=8192,
            train_gain=True,
            freeze_prototypes=0.01,
            temperature_warmup=0.05,
            momentum=0.996,
        ),
    )
    config = _published(size, objective, epochs=100.0, clips=80)
    encoder = replace(config.encoder, positions="stretched")
    return replace(config, encoder=encoder, train=replace(config.train, precision="32-true"))


def asit_short(size: str) -> RunConfig:
    """ASiT for your own short clips and few hours: views of six tenths of a segment, light heads.

    Source: lab/asit.md, settings tried on the way.
    """
    width = ViT.Config.of_size(size).embed_dim
    return RunConfig(
        encoder=ViT.Config.of_size(size),
        objective=ASiT.Config(
            pixel_weight=2.0,
            decoder=(4 * width, 256),
            distillation=SelfDistillation.Config(
                global_prototypes=1024,
                local_prototypes=512,
                hidden_dim=4 * width,
                freeze_prototypes=0.05,
            ),
        ),
        loader=LoaderConfig(
            batch_size=24, seconds=3.0, bucket_steps=1
        ),  # centring wants batches that are like the corpus
        train=TrainConfig(epochs=20.0, lr=1e-3 if size in ("nano", "mini") else 5e-4),
    )


def _published(size: str, objective: ASiT.Config, *, epochs: float, clips: int) -> RunConfig:
    lr = 5e-4 * clips / 256
    return RunConfig(
        encoder=ViT.Config.of_size(
            size, positions="learned", columns=37, partial="drop", drop_path=0.1
        ),
        objective=objective,
        loader=LoaderConfig(batch_size=clips, seconds=10.0, bucket_steps=1),
        train=TrainConfig(
            epochs=epochs,
            accumulate=4,  # on one GPU; it stands for the four
            lr=lr,
            betas=(0.9, 0.999),
            weight_decay=0.04,
            weight_decay_end=0.4,
            decay_tokens=True,
            grad_clip=3.0,
            grad_clip_by="tensor",
            lr_schedule="dino",
            lr_warmup=0.1,
            lr_floor=1e-6 / lr,
        ),
    )
