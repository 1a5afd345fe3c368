"""Weights of AudioMosaic: timm's names, images of (frame, mel), norms before the blocks."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Converted, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT, has_one_colour
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

N_MELS = 128
FRAMES = 1024
_PATCH_NORM = "patch_embed.norm."
_OUTER_NORM = "norm_pre."


class AudioMosaic(TimmViT):
    """Weights of AudioMosaic, whose kernels span (frame, mel).

    A LayerNorm follows the patch projection, another one the positions, and none the blocks
    (``--encoder.patch-norm``, ``--encoder.outer-norm before``). Tokens are numbered time-major, and
    positions are a learned table. Projector and classifier are left out, with the norm before them.

    Mean and standard deviation are those that ``config.json`` of Hugging Face says, or AudioSet's.
    Training divides by two standard deviations, as here; the function ``preprocess`` of these
    repositories divides by one.

    Source: arXiv 2605.14231 (2026); names and layout are those of the published code.
    """

    family = "AudioMosaic"
    files = "state dicts of its training; folders of Hugging Face, whose names were not compared"
    needs = "nothing; config.json for the statistics of fine-tuned weights"
    licence = "MIT (the code; of the weights not seen)"
    hub = "hf:hanxunh/AudioMosaic-vit-b16-pretrained and others of hanxunh"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold both norms before the blocks, with one colour."""
        norms = {f"{_PATCH_NORM}weight", f"{_OUTER_NORM}weight"}
        return has_one_colour(weights) and norms <= weights.state.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, without the norm of the patches."""
        kept = {
            key: value for key, value in weights.state.items() if not key.startswith(_PATCH_NORM)
        }
        return {key.replace(_OUTER_NORM, "norm."): value for key, value in kept.items()}

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: time-major, without overlap, on 128 mels."""
        width, height = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        rows = N_MELS // height
        patches = patch_positions(state)
        assert patches is not None
        return Geometry(rows, len(patches) // rows, (height, width), N_MELS, True)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return AST's features, as long as the position table, with the statistics in config.json."""
        if geometry is None or geometry.stride is None:
            return None
        stated: dict[str, Any] = weights.facts.get("config", {}).get("audio_preprocessing", {})
        names = {"norm_mean": "mean", "norm_std": "std", "sample_rate": "sample_rate"}
        settings = {own: stated[name] for name, own in names.items() if name in stated}
        frames = geometry.columns * geometry.stride[1]
        return replace(LogMel.Config(padding="legacy", target_frames=frames), **settings)

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        assert isinstance(settings.encoder, ViT.Config)
        encoder = replace(settings.encoder, patch_norm=True, outer_norm="before")
        return settings._replace(encoder=encoder)

    def convert(self, weights: Weights, encoder: ViT, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`ViT`; see :meth:`WeightFormat.convert`."""
        config = encoder.config
        if config.outer_norm != "before" or not config.patch_norm:
            raise ConfigError(
                f"encoder.outer_norm = {config.outer_norm!r}, encoder.patch_norm = "
                f"{config.patch_norm}, but these weights have norms before their blocks; use "
                "--encoder.outer-norm before --encoder.patch-norm"
            )
        converted = super().convert(weights, encoder, reading)
        norm = {
            f"patch_norm.{part}": weights.state[f"{_PATCH_NORM}{part}"]
            for part in ("weight", "bias")
        }
        return converted._replace(state=converted.state | norm)
