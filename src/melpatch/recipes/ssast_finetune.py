"""SSAST fine-tuned on the data it was published with, from a run of ``ssast_patch``; where the name says so, of
``ssast_frame``.

Patches overlap now: those of 16 x 16 stand every 10, frames of 128 x 2 every 128 x 1. The first half is AST's code and
pools the mean of the patches, since no class token learns anything in pretraining. The second half is SUPERB's with the
encoder trained too: each block's output has a learned weight, their sum's mean over time is projected to 256 numbers,
and there is Adam at one rate, without augmentation or decay. All *differ* from the published code as the recipes of AST
do (:mod:`melpatch.recipes.ast`), and in this: learned positions are stretched over the new grid as a whole; with
``--resize-positions legacy`` they are fitted as published.
"""

from dataclasses import replace
from typing import Any

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.objectives.classify import Classify
from melpatch.recipes.ast import ast_audioset, ast_audioset_20k, ast_esc50, ast_speech_commands
from melpatch.training.config import RunConfig, TrainConfig
from melpatch.training.start import fitted


def ssast_audioset(size_name: str) -> RunConfig:
    """Return the settings of SSAST on AudioSet: 5 epochs at 1e-5, labels balanced.

    Source: the published code of Gong et al. 2022 (arXiv 2110.09784): as AST's, without warm-up. Its script halves the
    rate from epoch 10 on and averages the weights of epochs 6 to 25, of which 5 epochs reach none: here the rate stays,
    and the last or best weights are kept. The paper has no result for it.
    """
    return _from_ast(
        ast_audioset(size_name), lr_schedule="constant", lr_warmup=0.0, average_last=0.0
    )


def ssast_audioset_20k(size_name: str) -> RunConfig:
    """Return the settings of SSAST on AudioSet's balanced part: 25 epochs, weights averaged. Published: 0.310 mAP.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code: as AST's, without warm-up: halved
    after epochs 10, 15 and 20; averaged are the weights of epochs 6 to 25. The published labels are enhanced ones.
    """
    return _from_ast(ast_audioset_20k(size_name), lr_warmup=0.0)


def ssast_esc50(size_name: str) -> RunConfig:
    """Return the settings of SSAST on ESC-50: 50 epochs at 1e-4, with noise.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code: the rate is multiplied with 0.85 after
    epoch 6 and every later one. Published: 88.8 % on the test folds, in the epoch that is best on them. *Differs*:
    waves are rolled by up to a fiftieth, where the published code rolls spectrograms by up to 10 of 512 frames.
    """
    config = ast_esc50(size_name)
    augment = replace(config.objective.augment, roll=0.02, pixel_noise=0.1)
    config = replace(config, objective=replace(config.objective, augment=augment))
    return _from_ast(
        config, epochs=50.0, evaluations=50, lr_step_start=6 / 50, lr_step_every=1 / 50
    )


def ssast_esc50_frame(size_name: str) -> RunConfig:
    """Return the settings of SSAST on ESC-50 for frames. Published: 85.9 %.

    Source and *Differs*: as :func:`ssast_esc50`.
    """
    return _framed(ssast_esc50(size_name))


def ssast_speech_commands(size_name: str) -> RunConfig:
    """Return the settings of SSAST on Speech Commands 2, 35 words: 30 epochs, yes or no to each. Published: 98.0 %.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published code, whose script is for frames: as AST's
    (:func:`melpatch.recipes.ast.ast_speech_commands`), with a rate that rises over the first 1000 of some 20,000 steps.
    """
    return _from_ast(ast_speech_commands(size_name), lr_warmup=0.05)


def ssast_speech_commands_frame(size_name: str) -> RunConfig:
    """Return the settings of SSAST on Speech Commands 2 for frames. Published: 98.1 %.

    Source: as :func:`ssast_speech_commands`.
    """
    return _framed(ssast_speech_commands(size_name))


def ssast_keywords(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's keywords (Speech Commands 1, 12 classes): 20,000 steps at 1e-4.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl: 1 s, 32 clips, every
    class as often, gradients clipped at 1. Published: 96.0 %. *Differs*, as all that are SUPERB's: clips are padded
    before they are normalised, as in pretraining, where the published code pads them after it.
    """
    return _superb(
        size_name, frames=100, steps=20_000, every=500, loader=_batches(32, 1.015, balanced=True)
    )


def ssast_keywords_frame(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's keywords for frames: half the rate, 5e-5. Published: 96.7 %.

    Source and *Differs*: as :func:`ssast_keywords`.
    """
    config = _framed(ssast_keywords(size_name))
    return replace(config, train=replace(config.train, lr=5e-5))


def ssast_speakers(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's speakers (VoxCeleb1, 1251 of them): 40,000 steps of 8 x 4 clips at 1e-4.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl: up to 8 s, padded to 10.
    Published: 64.3 %. *Differs*: as :func:`ssast_keywords`; of longer clips, the windows' probabilities are averaged,
    where the published code hears the first 10 s.
    """
    return _superb(
        size_name, frames=1000, steps=40_000, every=500, loader=_batches(32, 8.0), accumulate=8
    )


def ssast_speakers_frame(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's speakers for frames. Published: 80.8 %.

    Source and *Differs*: as :func:`ssast_speakers`.
    """
    return _framed(ssast_speakers(size_name))


def ssast_emotion(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's emotions (IEMOCAP, 4 classes): 10,000 steps of 8 x 4 clips at 1e-4.

    Source: Gong et al. 2022 (arXiv 2110.09784), table 2, and the published scripts for s3prl: up to 6 s, five folds.
    Published: 59.6 %. *Differs*: as :func:`ssast_speakers`.
    """
    return _superb(
        size_name, frames=600, steps=10_000, every=200, loader=_batches(32, 6.015), accumulate=8
    )


def ssast_emotion_frame(size_name: str) -> RunConfig:
    """Return the settings of SSAST on SUPERB's emotions for frames. Published: 60.5 %.

    Source and *Differs*: as :func:`ssast_emotion`.
    """
    return _framed(ssast_emotion(size_name))


def _from_ast(config: RunConfig, **train: Any) -> RunConfig:
    """Return a recipe of AST with the patches' mean in the place of the class tokens, and other settings of
    training."""
    objective = replace(config.objective, pooling="mean")
    return replace(config, objective=objective, train=replace(config.train, **train))


def _framed(config: RunConfig) -> RunConfig:
    """Return the same for frames: patches as high as the spectrogram."""
    return fitted(replace(config, encoder=replace(config.encoder, patch=(128, 2), stride=(128, 1))))


def _batches(batch_size: int, seconds: float, *, balanced: bool = False) -> LoaderConfig:
    return LoaderConfig(batch_size=batch_size, seconds=seconds, balanced_sampling=balanced)


def _superb(
    size_name: str,
    *,
    frames: int,
    steps: int,
    every: int,
    loader: LoaderConfig,
    accumulate: int = 1,
) -> RunConfig:
    """Return a run that is evaluated ``every`` so many steps, on clips of so many frames."""
    config = RunConfig(
        front_end=LogMel.Config(
            padding="legacy", target_frames=frames
        ),  # AudioSet's mean and std are the defaults
        encoder=ast_audioset(size_name).encoder,
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
