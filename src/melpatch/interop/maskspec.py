"""Weights of MaskSpec: timm's names, images of (mel, frame), and MAE's sines."""

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.interop.audiomae import signs_of_audiomae, sines_of
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT, has_one_colour
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

N_MELS = 128
ROWS = 8
COLUMNS = (62, 31)
"""Patches along time of the published models: of 992 frames, and of half of that."""


class MaskSpec(TimmViT):
    """Weights of MaskSpec, pretrained or fine-tuned, whose kernels span (mel, frame).

    Its fixed sines encode the column in the first half of the channels (``--encoder.positions
    sincos_mae``). A file is taken for MaskSpec's if its sines are those of 8 x 62 or 8 x 31
    patches, and no argument or decoder is Audio-MAE's.

    Its front end normalises every mel bin by the numbers of a file beside the weights,
    ``mean_std_128.npy``, which the weights do not hold. LogMel has one mean and std for all bins,
    so measure them (``--stats-clips 512``) on your own data.

    Source: Chong et al. 2022 (arXiv 2204.12768); the layout is that of the published code.
    """

    family = "MaskSpec"
    files = "checkpoints of pretraining and fine-tuning"
    needs = (
        "mean_std_128.npy, its statistics by mel bin: not taken yet, so measure your own "
        "(--stats-clips 512)"
    )
    licence = "Apache-2.0"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether sines, arguments and decoder are those of MaskSpec."""
        if not has_one_colour(weights):
            return False
        grid = sines_of(weights)
        if grid is None or (grid.rows, grid.first) != (ROWS, "column"):
            return False
        if axes is not None:
            return axes == "mel_frame"
        return grid.columns in COLUMNS and not signs_of_audiomae(weights)

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: frequency-major, without overlap."""
        height, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        patches = patch_positions(state)
        if patches is None:
            return None
        return Geometry(ROWS, len(patches) // ROWS, (height, width), N_MELS, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the published front end without its statistics by mel bin."""
        return front_ends.maskspec()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        note = (
            "MaskSpec's statistics by mel bin (mean_std_128.npy) are not in the file; one mean and "
            "std for all bins stand in for them"
        )
        return super().published(weights, reading)._replace(notes=[note])
