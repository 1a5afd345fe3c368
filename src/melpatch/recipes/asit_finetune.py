"""ASiT fine-tuned on the data it was published with, from a run of ``asit``.

The paper (arXiv 2211.13189, section IV) says no more than that code and settings are AST's, and SUPERB's for speakers,
and no code was released. So three things are not known. Here patches stand as in pretraining, every 16; the class token
is pooled, as in the release of 2024 (``--objective.pooling mean`` takes the patches); learned positions are stretched,
bicubic, as there. A run's drop path stays, 0.1 in the published pretraining, where AST's code has none. All *differ*
from AST's code as its recipes do (:mod:`melpatch.recipes.ast`).
"""

from dataclasses import replace

from melpatch.encoders.vit import ViT
from melpatch.recipes.ast import ast_audioset, ast_audioset_20k, ast_esc50, ast_speech_commands
from melpatch.recipes.ssast_finetune import ssast_speakers
from melpatch.training.config import RunConfig
from melpatch.training.start import fitted


def asit_audioset(size_name: str) -> RunConfig:
    """Return the settings of ASiT on AudioSet: 5 epochs, labels balanced. Published, second version: 0.480 mAP.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV: as :func:`melpatch.recipes.ast.ast_audioset`. The score is
    that of the second version, whose text was not at hand, as a later paper quotes it.
    """
    return _patched(ast_audioset(size_name), size_name)


def asit_audioset_20k(size_name: str) -> RunConfig:
    """Return the settings of ASiT on AudioSet's balanced part: 25 epochs, weights averaged. Published: 0.352 mAP.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as
    :func:`melpatch.recipes.ast.ast_audioset_20k`. Second version: 0.386 mAP, from weights of ImageNet.
    """
    return _patched(ast_audioset_20k(size_name), size_name)


def asit_esc50(size_name: str) -> RunConfig:
    """Return the settings of ASiT on ESC-50: 25 epochs at 1e-4; after AudioSet's labels, --lr 1e-5. Published: 92.0 %.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as :func:`melpatch.recipes.ast.ast_esc50`.
    Second version: 95.3 %.
    """
    return _patched(ast_esc50(size_name), size_name)


def asit_speech_commands(size_name: str) -> RunConfig:
    """Return the settings of ASiT on Speech Commands 2, 35 words: 30 epochs, yes or no to each. Published: 98.8 %.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I: as
    :func:`melpatch.recipes.ast.ast_speech_commands`. Second version: 98.9 %.
    """
    return _patched(ast_speech_commands(size_name), size_name)


def asit_keywords(size_name: str) -> RunConfig:
    """Return the settings of ASiT on Speech Commands 1, ten words, silence and unknown ones. Published: 98.1 %.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I; AST has no settings for these 12 classes, so
    they are those of :func:`asit_speech_commands`. Second version: 98.2 %.
    """
    return asit_speech_commands(size_name)


def asit_speakers(size_name: str) -> RunConfig:
    """Return settings for ASiT on SUPERB's speakers (VoxCeleb1, 1251 of them). Published: 63.1 %.

    Source: Atito et al. 2022 (arXiv 2211.13189), section IV and table I, which name SUPERB and no number: steps, batch
    and pooling are those of :func:`melpatch.recipes.ssast_finetune.ssast_speakers`. The learning rate is unknown: 1e-4
    is SUPERB's default; try others on the validation split.
    """
    return _patched(ssast_speakers(size_name), size_name)


def _patched(config: RunConfig, size_name: str) -> RunConfig:
    """Return the same with ASiT's encoder in the place of AST's."""
    encoder = ViT.Config.of_size(size_name, partial="drop", positions="stretched")
    return fitted(replace(config, encoder=encoder))
