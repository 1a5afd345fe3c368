"""Weights that melpatch export wrote under timm's names, with their settings in the header."""

from typing import Any

from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import from_dict
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Head, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

HEADER = "melpatch"
"""The entry of a safetensors header that holds the settings, as JSON."""


class Exported(TimmViT):
    """Weights that ``melpatch export --to timm`` wrote; their header holds every setting."""

    family = "an export of melpatch"
    files = "safetensors of melpatch export RUN --to timm"
    needs = "nothing"
    licence = "that of the run"
    self_described = True

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the header holds settings, beside timm's names or AST's."""
        plain = {key.removeprefix("v.") for key in weights.state}
        return HEADER in weights.facts and "patch_embed.proj.weight" in plain

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return all tensors, those of AST's names without their prefix."""
        return {key.removeprefix("v."): value for key, value in weights.state.items()}

    def norm_eps(self, weights: Weights) -> float:
        """Return the epsilon in the header."""
        return _encoder(weights).norm_eps

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie, by the settings in the header."""
        config = _encoder(weights)
        n_mels = _front_end(weights).n_mels
        grid = config.grid(n_mels)
        patches = patch_positions(state)
        count = 0 if patches is None else len(patches)
        return Geometry(grid.rows, count // grid.rows, grid.stride, n_mels, False)

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings in the header."""
        return Published(_encoder(weights), _front_end(weights))

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head of a classifier, with the pooling and labels in the header."""
        if "mlp_head.1.weight" not in weights.state:
            return None
        about = weights.facts[HEADER]
        return Head(
            linear="mlp_head.1",
            norm="mlp_head.0",
            norm_eps=float(about.get("head_norm_eps", 1e-5)),
            pooling=about["pooling"],
            labels=tuple(map(str, about["labels"])),
            multi_label=about.get("multi_label"),
            seconds=about.get("seconds"),
        )


def _encoder(weights: Weights) -> ViT.Config:
    config: ViT.Config = _settings(ViT.Config, weights, "encoder")
    return config


def _front_end(weights: Weights) -> LogMel.Config:
    config: LogMel.Config = _settings(LogMel.Config, weights, "front_end")
    return config


def _settings(kind: Any, weights: Weights, name: str) -> Any:
    """Return settings in the header.

    Raises:
        ConfigError: they are missing or damaged.
    """
    header = weights.facts[HEADER]
    values = header.get(name) if isinstance(header, dict) else None
    if not isinstance(values, dict):
        raise ConfigError(f"no {name} in the entry {HEADER} of its header; export the run again")
    return from_dict(kind, values, f"{HEADER}.{name}")
