"""Weights of Audio-MAE: timm's names, images of (frame, mel), and sines of another grid."""

from collections.abc import Mapping
from typing import Any

from melpatch.audio.logmel import LogMel
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Head, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT, depth_of, has_one_colour
from melpatch.nn.position_tables import Geometry, Sines, sines
from melpatch.weight_files import Weights

ARGUMENTS = {"use_custom_patch", "audio_exp", "decoder_mode", "mask_2d", "roll_mag_aug"}
"""Arguments of its training code that MAE's and MaskSpec's do not have."""
N_MELS = 128
_ROWS = {8: 16, 12: 10}  # patches along 128 mels: their stride
_PUBLISHED = Sines(8, 64, "column")


class AudioMAE(TimmViT):
    """Weights of Audio-MAE, pretrained or fine-tuned, whose kernels span (frame, mel).

    Tokens are numbered time-major, so are the positions of overlapping patches. The default model
    has 64 x 8 tokens (frame, mel), but fixed sines that its code writes for a grid of 8 x 64: token
    n has the position of row n // 64 and column n % 64. No fixed positions of ours are these, so
    they become a learned table.

    The names are MAE's, which MaskSpec has too. A file is taken for Audio-MAE's if its sines are of
    one of these two kinds, and nothing speaks against it: arguments of the training code, decoder.

    Source: Huang et al. 2022 (arXiv 2207.06405); the layout is that of the published code.
    *Differs*: the table is trained further, which the published code does not do. The fine-tuned
    model has no norm before its mean over the patches: its head takes the last block's output, and
    an encoder that starts from it keeps its own norm.
    """

    family = "Audio-MAE"
    files = "pretrained.pth, finetuned.pth"
    needs = "nothing; another layout: --init-axes"
    licence = "CC BY-NC 4.0"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether sines, arguments and decoder are those of Audio-MAE.

        Raises:
            ConfigError: the signs contradict each other.
        """
        if not has_one_colour(weights):
            return False
        grid = sines_of(weights)
        table_speaks = grid == _PUBLISHED or _is_time_first(grid)
        if axes is not None:
            return axes == "frame_mel" and table_speaks
        signs = signs_of_audiomae(weights)
        if signs and not table_speaks:
            raise ConfigError(
                f"looks like Audio-MAE by {signs[0]}, but its positions are not those of Audio-MAE "
                f"({_described(grid)}); give --init-axes frame_mel, or mel_frame if its kernel "
                "spans (mel, frame)"
            )
        pretraining = "mask_token" in weights.state and "args" in weights.facts
        if table_speaks and pretraining and not signs:
            raise ConfigError(
                f"its positions ({_described(grid)}) may be Audio-MAE's or MaskSpec's, and args "
                f"holds none of {', '.join(sorted(ARGUMENTS))}; give --init-axes frame_mel "
                "(Audio-MAE) or mel_frame (MaskSpec)"
            )
        return table_speaks

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: time-major, on 128 mels."""
        grid = sines_of(weights)
        patches = patch_positions(state)
        if grid is None or patches is None:
            return None
        rows = 8
        if _is_time_first(grid):
            rows = grid.columns
        stride = (_ROWS[rows], _ROWS[rows])
        return Geometry(rows, len(patches) // rows, stride, N_MELS, True)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return AST's features with AudioSet's statistics, as long as the position table."""
        if geometry is None or geometry.stride is None:
            return None
        patch = weights.state["patch_embed.proj.weight"].shape[2]
        frames = (geometry.columns - 1) * geometry.stride[1] + patch
        return LogMel.Config(padding="legacy", target_frames=frames)

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        note = "mean and std are not in the file: AudioSet's, as published"
        return super().published(weights, reading)._replace(notes=[note])

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head of a fine-tuned file: of the mean of the patches, or of the class token."""
        if "head.weight" not in weights.state:
            return None
        if "fc_norm.weight" not in weights.state:
            return Head(linear="head", pooling="cls")
        pooling = f"mean+layers={depth_of(weights.state)}"
        eps = self.norm_eps(weights)
        return Head(linear="head", norm="fc_norm", norm_eps=eps, pooling=pooling)


def sines_of(weights: Weights) -> Sines | None:
    """Return the grid of a file's fixed sines; None if it holds no such table."""
    patches = patch_positions(weights.state)
    return None if patches is None else sines(patches)


def signs_of_audiomae(weights: Weights) -> list[str]:
    """Return what marks weights as Audio-MAE's, apart from their positions."""
    signs = []
    arguments: Mapping[str, Any] = weights.facts.get("args", {})
    own = sorted(ARGUMENTS & arguments.keys())
    if own:
        signs.append(f"args.{own[0]}")
    for key in weights.state:
        if key.startswith("decoder_blocks") and "relative_position" in key:
            signs.append(key)
            break
    return signs


def _is_time_first(grid: Sines | None) -> bool:
    """Return whether a grid has its rows along time: more of them than columns, which are mels."""
    return grid is not None and grid.first == "column" and grid.rows > grid.columns in _ROWS


def _described(grid: Sines | None) -> str:
    if grid is None:
        return "no fixed sines"
    return f"sines of {grid.rows} x {grid.columns}, {grid.first} first"
