"""melpatch: pretrain spectrogram transformers on unlabelled sound, fine-tune them with few labels, predict and
embed."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melpatch.inference.model import Model as Model
    from melpatch.inference.model import load as load

__version__ = version("melpatch")
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import ``load`` and ``Model`` on first use, so that ``melpatch --help`` needs no torch."""
    if name in {"load", "Model"}:
        from melpatch.inference import model

        return getattr(model, name)
    raise AttributeError(f"module 'melpatch' has no attribute {name!r}")
