"""Weights of ASiT: the teacher's backbone of a checkpoint of 2023 or 2024."""

from typing import Any

from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

N_MELS = 128


class ASiT(TimmViT):
    """Weights of ASiT's checkpoints ``{student, teacher, args}``; the teacher's are read.

    Images are (frame, mel), patches numbered time-major, positions learned. ``args`` tells the size
    of the spectrograms and their statistics; the release of 2023, whose heads are apart, is for
    32 kHz, that of 2024 for 16 kHz.

    Source: Atito et al. 2022 (arXiv 2211.13189) and the two releases of its code.
    """

    family = "ASiT"
    files = "checkpoints {student, teacher, args}"
    needs = "nothing"
    licence = "not stated"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether there is a ViT under ``backbone.``, with a head that reconstructs."""
        return {
            "backbone.patch_embed.proj.weight",
            "backbone.blocks.0.attn.qkv.weight",
            "head_recons.convTrans.weight",
        } <= weights.state.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return all tensors, the backbone's without their prefix."""
        return {key.removeprefix("backbone."): value for key, value in weights.state.items()}

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: time-major, without overlap, on 128 mels."""
        return self._geometry(state, N_MELS)

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie, by the number of mels in ``args``."""
        return self._geometry(state, int(_arguments(weights).get("num_mel_bins", N_MELS)))

    def _geometry(self, state: State, n_mels: int) -> Geometry | None:
        width, height = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        patches = patch_positions(state)
        if patches is None:
            return None
        rows = n_mels // height
        if rows == 0 or len(patches) % rows:
            raise ConfigError(
                f"pos_embed has {len(patches)} positions, which {n_mels} mels in patches of "
                f"{height} do not divide; give the published file"
            )
        return Geometry(rows, len(patches) // rows, (height, width), n_mels, True)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return AST's features at the release's rate, as long as the position table."""
        if geometry is None or geometry.stride is None:
            return None
        arguments = _arguments(weights)
        defaults = LogMel.Config()
        is_of_2023 = any(key.startswith("head_cls.") for key in weights.state)
        return LogMel.Config(
            sample_rate=32000 if is_of_2023 else 16000,
            n_mels=geometry.n_mels or N_MELS,
            mean=float(arguments.get("data_mean", defaults.mean)),
            std=float(arguments.get("data_std", defaults.std)),
            padding="legacy",
            target_frames=geometry.columns * geometry.stride[1],
        )

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        if "data_mean" in _arguments(weights):
            return settings
        note = "no args with data_mean in the file: mean and std are AudioSet's"
        return settings._replace(notes=[note])


def _arguments(weights: Weights) -> dict[str, Any]:
    arguments: dict[str, Any] = weights.facts.get("args", {})
    return arguments
