"""The eight rows of ASiT's ablation: which of the three losses are used, and whether the student's input is corrupted.

Source: Atito et al. 2022 (arXiv 2211.13189), table II: small, 10 epochs, everything else as in the paper's recipe. The
published scores (mAP on AudioSet-20K) stand with each; they were made on two million clips.
"""

from dataclasses import replace

from melpatch.recipes.asit import asit
from melpatch.training.config import RunConfig


def asit_clean_pixel(size_name: str) -> RunConfig:
    """Return a plain autoencoder. Source: arXiv 2211.13189, table II, row 1: 16.6 mAP."""
    return _row(size_name, "pixel", corrupt=False)


def asit_clean_global(size_name: str) -> RunConfig:
    """Return what DINO does, without small crops. Source: arXiv 2211.13189, table II, row 2: 20.2 mAP."""
    return _row(size_name, "global", corrupt=False)


def asit_local(size_name: str) -> RunConfig:
    """Return the local loss on corrupted views. Source: arXiv 2211.13189, table II, row 3: 23.9 mAP."""
    return _row(size_name, "local")


def asit_pixel(size_name: str) -> RunConfig:
    """Return GMML: rebuild what is corrupted. Source: arXiv 2211.13189, table II, row 4: 25.5 mAP."""
    return _row(size_name, "pixel")


def asit_local_global(size_name: str) -> RunConfig:
    """Return both self-distillation losses. Source: arXiv 2211.13189, table II, row 5: 25.9 mAP."""
    return _row(size_name, "local", "global")


def asit_pixel_global(size_name: str) -> RunConfig:
    """Return what SiT does, with a teacher. Source: arXiv 2211.13189, table II, row 6: 27.1 mAP."""
    return _row(size_name, "pixel", "global")


def asit_pixel_local(size_name: str) -> RunConfig:
    """Return rebuilding and the local loss. Source: arXiv 2211.13189, table II, row 7: 27.6 mAP."""
    return _row(size_name, "pixel", "local")


def asit_pixel_local_global(size_name: str) -> RunConfig:
    """Return all three losses. Source: arXiv 2211.13189, table II, row 8: 28.1 mAP."""
    return _row(size_name, "pixel", "local", "global")


def _row(size_name: str, *losses: str, corrupt: bool = True) -> RunConfig:
    config = asit(size_name)
    weights = {f"{name}_weight": float(name in losses) for name in ("pixel", "local", "global")}
    one_epoch = replace(config.objective.distillation, freeze_prototypes=0.1)
    pixels = "corrupted" if corrupt else "all"
    objective = replace(
        config.objective, corrupt=corrupt, pixels=pixels, distillation=one_epoch, **weights
    )
    return replace(config, objective=objective, train=replace(config.train, epochs=10.0))
