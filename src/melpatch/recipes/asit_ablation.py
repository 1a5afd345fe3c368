"""The eight rows of ASiT's ablation of its three losses, and of corrupting the student's input.

Source: Atito et al. 2022 (arXiv 2211.13189), table II: small, 10 epochs, everything else as in the
paper's recipe. The published scores (mAP on AudioSet-20K) stand with each; they were made on two
million clips.
"""

from dataclasses import replace

from melpatch.recipes.asit import asit
from melpatch.training.config import RunConfig


def asit_clean_pixel(size: str) -> RunConfig:
    """ASiT's ablation, row 1: a plain autoencoder (published: 16.6 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "pixel", corrupt=False)


def asit_clean_global(size: str) -> RunConfig:
    """ASiT's ablation, row 2: DINO without small crops (published: 20.2 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "global", corrupt=False)


def asit_local(size: str) -> RunConfig:
    """ASiT's ablation, row 3: local self-distillation on corrupted views (published: 23.9 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "local")


def asit_pixel(size: str) -> RunConfig:
    """ASiT's ablation, row 4: GMML, the reconstruction of corrupted pixels (published: 25.5 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "pixel")


def asit_local_global(size: str) -> RunConfig:
    """ASiT's ablation, row 5: local and global self-distillation (published: 25.9 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "local", "global")


def asit_pixel_global(size: str) -> RunConfig:
    """ASiT's ablation, row 6: SiT with a teacher, pixel and global loss (published: 27.1 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "pixel", "global")


def asit_pixel_local(size: str) -> RunConfig:
    """ASiT's ablation, row 7: reconstruction and local self-distillation (published: 27.6 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "pixel", "local")


def asit_pixel_local_global(size: str) -> RunConfig:
    """ASiT's ablation, row 8: all three losses (published: 28.1 mAP).

    Source: arXiv 2211.13189, table II.
    """
    return _row(size, "pixel", "local", "global")


def _row(size: str, *losses: str, corrupt: bool = True) -> RunConfig:
    config = asit(size)
    weights = {f"{name}_weight": float(name in losses) for name in ("pixel", "local", "global")}
    one_epoch = replace(config.objective.distillation, freeze_prototypes=0.1)
    pixels = "corrupted" if corrupt else "all"
    objective = replace(
        config.objective, corrupt=corrupt, pixels=pixels, distillation=one_epoch, **weights
    )
    return replace(config, objective=objective, train=replace(config.train, epochs=10.0))
