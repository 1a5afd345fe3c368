"""Pretrain spectrogram transformers on unlabelled audio, fine-tune them with few labels, predict and embed."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melpatch.audio.logmel import LogMel as LogMel
    from melpatch.encoders.cnn14 import CNN14 as CNN14
    from melpatch.encoders.vit import ViT as ViT
    from melpatch.evaluation.evaluate import evaluate as evaluate
    from melpatch.inference.functions import embed as embed
    from melpatch.inference.functions import predict as predict
    from melpatch.inference.model import Model as Model
    from melpatch.inference.model import load as load
    from melpatch.nn.grid import PatchGrid as PatchGrid
    from melpatch.nn.masking import Masking as Masking
    from melpatch.objectives.base import Objective as Objective
    from melpatch.reports.report import report as report
    from melpatch.workflows.keywords import finetune as finetune
    from melpatch.workflows.keywords import pretrain as pretrain

__version__ = version("melpatch")

_MODULES = {
    "CNN14": "encoders.cnn14",
    "LogMel": "audio.logmel",
    "Masking": "nn.masking",
    "Model": "inference.model",
    "Objective": "objectives.base",
    "PatchGrid": "nn.grid",
    "ViT": "encoders.vit",
    "embed": "inference.functions",
    "evaluate": "evaluation.evaluate",
    "finetune": "workflows.keywords",
    "load": "inference.model",
    "predict": "inference.functions",
    "pretrain": "workflows.keywords",
    "report": "reports.report",
}
"""Public names and the modules that define them, imported on first use: ``import melpatch`` needs no torch."""

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'melpatch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"melpatch.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
