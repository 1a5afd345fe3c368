"""ASiT fine-tuned on the data it was published with, from a run of ``asit``.

The paper (arXiv 2211.13189, section IV) says only that code and settings are AST's, and SUPERB's
for speakers, and no code was released. So three things are unknown. Here patches do not overlap, as
in pretraining (every 16); the class token is pooled, as in the release of 2024
(``--objective.pooling mean`` takes the patches); learned positions are stretched (bicubic), as
there. The drop path of the pretraining run is kept: 0.1 in the published pretraining, whereas AST's
code has none. All *differ* from AST's code as its recipes do (:mod:`melpatch.recipes.ast`).
"""

from dataclasses import replace

from melpatch.encoders.vit import ViT
from melpatch.recipes.ast import ast_audioset, ast_audioset_20k, ast_esc50, ast_speech_commands
from melpatch.recipes.ssast_finetune import ssast_speakers
from melpatch.training.config import RunConfig
from melpatch.training.start import fitted


def asit_audioset(size: str) -> RunConfig:
    """ASiT fine-tuned on AudioSet: 5 epochs, balanced sampling (published, version 2: 0.480 mAP).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV: as
    :func:`melpatch.recipes.ast.ast_audioset`. The score is that of the paper's second version, as a
    later paper quotes it; its text was not at hand.
    """
    return _patched(ast_audioset(size), size)


def asit_audioset_20k(size: str) -> RunConfig:
    """ASiT fine-tuned on AudioSet-20K: 25 epochs, averaged weights (published: 0.352 mAP).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as
    :func:`melpatch.recipes.ast.ast_audioset_20k`. Second version: 0.386 mAP, from ImageNet weights.
    """
    return _patched(ast_audioset_20k(size), size)


def asit_esc50(size: str) -> RunConfig:
    """ASiT fine-tuned on ESC-50: 25 epochs at learning rate 1e-4 (published: 92.0 %).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as
    :func:`melpatch.recipes.ast.ast_esc50`. Second version: 95.3 %. After training on AudioSet's
    labels, use ``--lr 1e-5``.
    """
    return _patched(ast_esc50(size), size)


def asit_speech_commands(size: str) -> RunConfig:
    """ASiT fine-tuned on Speech Commands 2, 35 words: 30 epochs, sigmoid loss (published: 98.8 %).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as
    :func:`melpatch.recipes.ast.ast_speech_commands`. Second version: 98.9 %.
    """
    return _patched(ast_speech_commands(size), size)


def asit_keywords(size: str) -> RunConfig:
    """ASiT fine-tuned on the 12 classes of Speech Commands 1: 30 epochs (published: 98.1 %).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I; AST has no settings for
    these 12 classes (ten words, silence and unknown words), so they are those of
    :func:`asit_speech_commands`. Second version: 98.2 %.
    """
    return asit_speech_commands(size)


def asit_speakers(size: str) -> RunConfig:
    """ASiT fine-tuned on the 1251 speakers of VoxCeleb1, as in SUPERB (published: 63.1 %).

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I, which name SUPERB but no
    number: steps, batch and pooling are those of
    :func:`melpatch.recipes.ssast_finetune.ssast_speakers`. The learning rate is unknown: 1e-4 is
    SUPERB's default; try others on the validation split.
    """
    return _patched(ssast_speakers(size), size)


def _patched(config: RunConfig, size: str) -> RunConfig:
    """Return the settings with ASiT's encoder instead of AST's."""
    encoder = ViT.Config.of_size(size, partial="drop", positions="stretched")
    return fitted(replace(config, encoder=encoder))
