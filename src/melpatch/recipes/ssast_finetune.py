"""SSAST fine-tuned on its published datasets, from a run of ``ssast_patch`` or ``ssast_frame``.

Patches overlap now: those of 16 x 16 begin every 10, frames of 128 x 2 every 1. The first half is
AST's code with mean pooling, since class tokens learn nothing in pretraining. The second half is
SUPERB's, with the encoder trained too: a weighted sum of the blocks' outputs, with learned weights,
is averaged over time and projected to 256 channels; Adam has one learning rate, without
augmentation or decay. All *differ* from the published code as the recipes of AST do
(:mod:`melpatch.recipes.ast`), and learned positions are stretched over the new grid as a whole;
``--resize-positions legacy`` fits them as published.
"""

from dataclasses import replace
from typing import Any

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.objectives.classify import Classify
from melpatch.recipes.ast import ast_audioset, ast_audioset_20k, ast_esc50, ast_speech_commands
from melpatch.training.config import RunConfig, TrainConfig
from melpatch.training.start import fitted


def ssast_audioset(size: str) -> RunConfig:
    """SSAST fine-tuned on AudioSet: 5 epochs at learning rate 1e-5, balanced sampling.

    Source: the published code of Gong et al. 2022 (arXiv 2110.09784): as AST's, without warm-up.
    Its script halves the learning rate from epoch 10 on and averages the weights of epochs 6 to 25,
    which 5 epochs never reach: here the rate is constant, and the last or best weights are kept.
    The paper has no result for it.
    """
    return _from_ast(ast_audioset(size), lr_schedule="constant", lr_warmup=0.0, average_last=0.0)


def ssast_audioset_20k(size: str) -> RunConfig:
    """SSAST fine-tuned on AudioSet-20K: 25 epochs, averaged weights (published: 0.310 mAP).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code: as AST's, without
    warm-up: the rate halves after epochs 10, 15 and 20; the weights of epochs 6 to 25 are averaged.
    The published result uses enhanced labels.
    """
    return _from_ast(ast_audioset_20k(size), lr_warmup=0.0)


def ssast_esc50(size: str) -> RunConfig:
    """SSAST fine-tuned on ESC-50: 50 epochs at learning rate 1e-4, with noise (published: 88.8 %).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code: the learning rate
    is multiplied by 0.85 after epoch 6 and every later one. Published: 88.8 % on the test folds, in
    the epoch that is best on them. *Differs*: waves are rolled by up to a fiftieth, whereas the
    published code rolls spectrograms by up to 10 of 512 frames.
    """
    config = ast_esc50(size)
    augment = replace(config.objective.augment, roll=0.02, pixel_noise=0.1)
    config = replace(config, objective=replace(config.objective, augment=augment))
    return _from_ast(
        config, epochs=50.0, evaluations=50, lr_step_start=6 / 50, lr_step_every=1 / 50
    )


def ssast_esc50_frame(size: str) -> RunConfig:
    """SSAST on frames, fine-tuned on ESC-50 (published: 85.9 %).

    Source and *Differs*: as :func:`ssast_esc50`.
    """
    return _framed(ssast_esc50(size))


def ssast_speech_commands(size: str) -> RunConfig:
    """SSAST fine-tuned on Speech Commands 2, 35 words: 30 epochs, sigmoid loss (published: 98.0 %).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code, whose script is
    for frames: as AST's (:func:`melpatch.recipes.ast.ast_speech_commands`), with a learning rate
    that rises over the first 1000 of about 20,000 steps.
    """
    return _from_ast(ast_speech_commands(size), lr_warmup=0.05)


def ssast_speech_commands_frame(size: str) -> RunConfig:
    """SSAST on frames, fine-tuned on Speech Commands 2 (published: 98.1 %).

    Source: as :func:`ssast_speech_commands`.
    """
    return _framed(ssast_speech_commands(size))


def ssast_keywords(size: str) -> RunConfig:
    """SSAST fine-tuned on SUPERB's 12 keywords: 20,000 steps at 1e-4 (published: 96.0 %).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl:
    Speech Commands 1, clips of 1 s, batches of 32, balanced classes, gradients clipped at 1.
    *Differs*, as all SUPERB recipes here: clips are padded before they are normalised, as in
    pretraining, whereas the published code pads them afterwards.
    """
    return _superb(
        size, frames=100, steps=20_000, every=500, loader=_batches(32, 1.015, balanced=True)
    )


def ssast_keywords_frame(size: str) -> RunConfig:
    """SSAST on frames, fine-tuned on SUPERB's keywords at half the rate, 5e-5 (published: 96.7 %).

    Source and *Differs*: as :func:`ssast_keywords`.
    """
    config = _framed(ssast_keywords(size))
    return replace(config, train=replace(config.train, lr=5e-5))


def ssast_speakers(size: str) -> RunConfig:
    """SSAST fine-tuned on SUPERB's 1251 speakers: 40,000 steps at 1e-4 (published: 64.3 %).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl:
    VoxCeleb1, steps of 8 x 4 clips of up to 8 s, padded to 10. *Differs*: as
    :func:`ssast_keywords`; for longer clips, the windows' probabilities are averaged, whereas the
    published code takes the first 10 s.
    """
    return _superb(
        size, frames=1000, steps=40_000, every=500, loader=_batches(32, 8.0), accumulate=8
    )


def ssast_speakers_frame(size: str) -> RunConfig:
    """SSAST on frames, fine-tuned on SUPERB's speakers (published: 80.8 %).

    Source and *Differs*: as :func:`ssast_speakers`.
    """
    return _framed(ssast_speakers(size))


def ssast_emotion(size: str) -> RunConfig:
    """SSAST fine-tuned on SUPERB's 4 emotions: 10,000 steps at 1e-4 (published: 59.6 %).

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl:
    IEMOCAP, steps of 8 x 4 clips of up to 6 s, five folds. *Differs*: as :func:`ssast_speakers`.
    """
    return _superb(
        size, frames=600, steps=10_000, every=200, loader=_batches(32, 6.015), accumulate=8
    )


def ssast_emotion_frame(size: str) -> RunConfig:
    """SSAST on frames, fine-tuned on SUPERB's emotions (published: 60.5 %).

    Source and *Differs*: as :func:`ssast_emotion`.
    """
    return _framed(ssast_emotion(size))


def _from_ast(config: RunConfig, **train: Any) -> RunConfig:
    """Return a recipe of AST with mean pooling instead of class tokens, trained otherwise."""
    objective = replace(config.objective, pooling="mean")
    return replace(config, objective=objective, train=replace(config.train, **train))


def _framed(config: RunConfig) -> RunConfig:
    """Return the settings for frames: patches as high as the spectrogram."""
    return fitted(replace(config, encoder=replace(config.encoder, patch=(128, 2), stride=(128, 1))))


def _batches(batch_size: int, seconds: float, *, balanced: bool = False) -> LoaderConfig:
    return LoaderConfig(batch_size=batch_size, seconds=seconds, balanced_sampling=balanced)


def _superb(
    size: str,
    *,
    frames: int,
    steps: int,
    every: int,
    loader: LoaderConfig,
    accumulate: int = 1,
) -> RunConfig:
    """Return a run on clips of ``frames`` frames that is evaluated every ``every`` steps."""
    config = RunConfig(
        # AudioSet's mean and std are the defaults of the front end.
        front_end=LogMel.Config(padding="legacy", target_frames=frames),
        encoder=ast_audioset(size).encoder,
        objective=Classify.Config(pooling="mean", layers="mix", projection=256),
        loader=loader,
        train=TrainConfig(
            steps=steps,
            accumulate=accumulate,
            optimizer="adam",
            lr=1e-4,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            grad_clip=1.0,
            lr_schedule="constant",
            lr_warmup=0.0,
            evaluations=steps // every,
        ),
    )
    return fitted(config)
