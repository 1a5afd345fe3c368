"""EAT as published, its large variant, SSLAM and data2vec 2.0, and EAT for short own clips."""

from dataclasses import replace

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.nn.conv_decoder import ConvDecoder
from melpatch.nn.ema import Momentum
from melpatch.nn.masking import Masking
from melpatch.nn.mixtures import Mixtures
from melpatch.objectives.eat import EAT
from melpatch.training.config import RunConfig, TrainConfig


def eat(size: str) -> RunConfig:
    """EAT as published: 16 views of 10 s, 80 % masked, 400,000 steps of 48 clips (0.486 mAP).

    Source: Chen et al. 2024 (arXiv 2401.03497) and the published settings: post-norm blocks, AdamW,
    5e-4, warm-up over 53,333 steps, a cosine to 0, norm of the gradient at most 4, momentum from
    0.9998 to 0.99999 over 100,000 steps. *Differs*: the class token starts with a standard
    deviation of 0.02, there of 1; the mask, which ``--objective.mask.kind inverse_block_legacy``
    draws as published.
    """
    return RunConfig(
        # AudioSet's mean and std are the defaults of the front end.
        front_end=LogMel.Config(padding="legacy", target_frames=1024),
        encoder=ViT.Config.of_size(size, norm="post", cls_tokens=1, partial="drop"),
        objective=EAT.Config(
            mask=Masking.Config(kind="inverse_block", num_masked=410),
            decoder=ConvDecoder.Config(groups=16),
            momentum=Momentum(start=0.9998, end=0.99999, share=0.25),
        ),
        # 1024 frames
        loader=LoaderConfig(batch_size=48, seconds=10.255),
        train=TrainConfig(
            steps=400_000,
            lr=5e-4,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            grad_clip=4.0,
            lr_warmup=53_333 / 400_000,
        ),
    )


def eat_large(size: str) -> RunConfig:
    """EAT's large model, with --size large: 75 % masked, five convolutions (0.495 mAP).

    Source: the published settings of the large model: momentum over 150,000 steps, convolutions of
    3 x 3.
    *Differs*: as :func:`eat`; the encoder has the size that is asked for, the published one that of
    ``--size large``, 24 blocks of 1024 channels; its mask also has more squares, which
    ``--objective.mask.kind inverse_block_legacy --objective.mask.surplus 0.1`` draws.
    """
    base = eat(size)
    objective = replace(
        base.objective,
        mask=Masking.Config(kind="inverse_block", ratio=0.75),
        decoder=ConvDecoder.Config(groups=16, depth=5),
        momentum=replace(base.objective.momentum, share=150_000 / 400_000),
    )
    return replace(base, objective=objective, train=replace(base.train, lr=4e-4))


def sslam(size: str) -> RunConfig:
    """SSLAM, the second stage on EAT: mixtures that keep both sources; --init takes a run of eat.

    Source: Alex et al. 2025 (arXiv 2506.12222) and the published settings: 8 views of each clip and
    of its mixture, an utterance target of the last layer, 5e-5, warm-up over 25,000 of 200,000
    steps of 48 clips; otherwise :func:`eat` (AudioSet-20k fine-tuned: 0.409 mAP; 0.404 without
    mixtures).
    *Differs*: as :func:`eat`; the partner is drawn by clip and step, there the clip before in the
    batch; each clip has its own stretches without partner, there all of a batch the same.
    """
    base = eat(size)
    objective = replace(base.objective, views=8, utterance_layers=1, mixtures=Mixtures(use=True))
    train = replace(base.train, steps=200_000, lr=5e-5, lr_warmup=25_000 / 200_000)
    return replace(base, objective=objective, train=train)


def data2vec2(size: str) -> RunConfig:
    """EAT's objective with the settings of data2vec 2.0 for images, on EAT's spectrograms.

    Source: Baevski et al. 2022 (arXiv 2212.07525) and the published settings for images: 16 views,
    squares of 3 patches visible, ten layers averaged, batches of 256, 1e-3, warm-up over 50,040 of
    375,300 steps; utterance weight 0.01 on a sum over the 256 views of a process (16 images of 16
    views), here 2.56 on their mean. *Differs*: as :func:`eat`; the encoder has its usual
    depth, there ten blocks.
    """
    base = eat(size)
    objective = replace(
        base.objective,
        mask=Masking.Config(kind="inverse_block", ratio=0.8, sides=(3,)),
        target_layers=min(10, ViT.Config.of_size(size).depth),
        utterance_weight=2.56,
    )
    train = replace(base.train, steps=375_300, lr=1e-3, lr_warmup=50_040 / 375_300)
    momentum = replace(objective.momentum, share=100_000 / 375_300)
    return replace(
        base,
        objective=replace(objective, momentum=momentum),
        loader=replace(base.loader, batch_size=256),
        train=train,
    )


def eat_short(size: str) -> RunConfig:
    """EAT for your own short clips and few hours: any length, four views, a light decoder.

    Source: the objective of :func:`eat` with the front end, initialisation and clips of
    :func:`melpatch.recipes.maskspec.maskspec`. A quarter of the clips per batch, since each is seen
    four times; the utterance loss has the weight of the patch loss; momentum follows the length of
    the run.
    """
    return RunConfig(
        front_end=LogMel.Config(scale=1.0),
        encoder=ViT.Config.of_size(size, cls_tokens=1, init="mae"),
        objective=EAT.Config(
            mask=Masking.Config(kind="inverse_block", ratio=0.75, sides=(2, 3)),
            views=4,
            decoder=ConvDecoder.Config(depth=3, groups=8),
            utterance_weight=1.0,
        ),
        loader=LoaderConfig(batch_size=16, seconds=2.0, short_clips="repeat", bucket_steps=1),
        train=TrainConfig(epochs=20.0, lr=5e-4),
    )


def sslam_short(size: str) -> RunConfig:
    """SSLAM for your own short clips and few hours, in which several sounds overlap; from scratch.

    Source: the objective of :func:`sslam` in :func:`eat_short`, with two views of each clip and of
    its mixture.
    """
    base = eat_short(size)
    objective = replace(base.objective, views=2, utterance_layers=1, mixtures=Mixtures(use=True))
    return replace(base, objective=objective)
