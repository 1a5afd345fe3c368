"""Weights of M2D and MSM-MAE: timm's names, images of (mel, frame), sines with time first."""

from dataclasses import replace

import torch
from torch import Tensor

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.interop.audiomae import sines_of
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT, has_one_colour
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights, without_prefix

STATISTICS = "norm_stats"
"""The key of mean and standard deviation of the corpus, before the z-score."""
_PREFIXES = ("backbone.", "module.ar.runtime.backbone.", "ar.runtime.backbone.", "")
"""What may stand before the names, in files of models that grew from M2D."""
_PUBLISHED_STATISTICS = torch.tensor([-7.1, 4.2])
N_MELS = 80


class M2D(TimmViT):
    """Weights of M2D and MSM-MAE, whole checkpoints or encoders, whose kernels span (mel, frame).

    A file is taken for M2D's if it holds ``norm_stats`` or a teacher (``target_blocks``), or if its
    sines are those of 80 mel bins. The encoder is the student: the teacher is left out, as are
    predictor and decoder. Mean and standard deviation are those of ``norm_stats``.

    Longer clips need no longer table, since the sines fit any length; the published code encodes
    pieces of the table's length instead, as ``--seconds`` cuts them, which the weights set.

    Source: Niizumi et al. 2022 (arXiv 2210.14648; MSM-MAE: arXiv 2204.12260).
    """

    family = "M2D or MSM-MAE"
    files = "checkpoints of pretraining, with or without teacher and predictor"
    needs = "nothing; of a model at 32 kHz (p32k in its folder's name), a front end of your own"
    licence = "NTT's, for evaluation only"
    partial = "pad"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether statistics, a teacher or sines of 80 mel bins are M2D's."""
        weights = _bare(weights)
        if not has_one_colour(weights) or axes == "frame_mel":
            return False
        grid = sines_of(weights)
        if grid is None or grid.first != "column":
            return False
        signs = {STATISTICS, "target_blocks.0.attn.qkv.weight"}
        height = weights.state["patch_embed.proj.weight"].shape[2]
        return bool(signs & weights.state.keys()) or grid.rows * height == N_MELS

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, without the statistics of the front end."""
        state = _bare(weights).state
        return {key: value for key, value in state.items() if key != STATISTICS}

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: frequency-major, without overlap."""
        height, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        grid = sines_of(Weights(dict(state), {}))
        patches = patch_positions(state)
        if grid is None or patches is None:
            return None
        return Geometry(grid.rows, grid.columns, (height, width), grid.rows * height, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the published front end with the statistics of the file, or the published ones."""
        if geometry is None or geometry.n_mels is None:
            return None
        mean, std = _bare(weights).state.get(STATISTICS, _PUBLISHED_STATISTICS).tolist()
        config = front_ends.m2d()
        return replace(config, n_mels=geometry.n_mels, mean=round(mean, 6), std=round(std, 6))

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        bare = _bare(weights)
        notes = ["16 kHz is assumed, which no tensor tells"]
        if STATISTICS not in bare.state:
            notes.append("no norm_stats in it: mean and std are the published -7.1 and 4.2")
        grid = sines_of(bare)
        width = bare.state["patch_embed.proj.weight"].shape[3]
        frames = None if grid is None else grid.columns * width
        return settings._replace(notes=notes, frames=frames)


def _bare(weights: Weights) -> Weights:
    state = without_prefix(weights.state, _PREFIXES, "patch_embed.proj.weight")
    return weights._replace(state=state)
