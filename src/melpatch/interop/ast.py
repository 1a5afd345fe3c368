"""Weights of the published AST and SSAST: a timm ViT under the prefix v."""

from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Head, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.grid import PatchGrid
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

STATISTICS = {
    1024: (-4.2677393, 4.5689974),  # AudioSet
    512: (-6.6268077, 5.358466),  # ESC-50
    128: (-6.845978, 5.5654526),  # Speech Commands
}
"""Mean and std of the log-mel values that AST's code has for clips of this many frames."""
N_MELS = 128


class AST(TimmViT):
    """Published AST and SSAST weights: timm's names after ``v.``, their classifier ``mlp_head``.

    SSAST's pretraining files hold the size of their spectrograms. Others do not: their patches
    begin every 10 mels and frames (every frame, if they are as high as the spectrogram), or do not
    overlap, whichever their number of positions fits.

    Source: Gong et al. 2021 (arXiv 2104.01778) and 2022 (arXiv 2110.09784), the published code.
    """

    family = "AST or SSAST"
    files = "audioset_10_10_0.4593.pth and its kin; SSAST-Base-Patch-400.pth"
    needs = "nothing; mean and std of a corpus of your own"
    licence = "BSD-3-Clause"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether there is a ViT under ``v.``."""
        return {"v.patch_embed.proj.weight", "v.blocks.0.attn.qkv.weight"} <= weights.state.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return all tensors, the ViT's without their prefix."""
        return {key.removeprefix("v."): value for key, value in weights.state.items()}

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie in (mel, frame) images, from the number of positions."""
        return spectrogram_geometry(state)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return Kaldi's features, as long as the position table."""
        if geometry is None:
            return None
        frames = published_frames(self.renamed(weights), geometry)
        mean, std = STATISTICS.get(frames, STATISTICS[1024])
        return LogMel.Config(
            n_mels=geometry.n_mels or N_MELS,
            mean=mean,
            std=std,
            padding="legacy",
            target_frames=frames,
        )

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        if settings.front_end is None:
            return settings
        frames = settings.front_end.target_frames
        corpus = {512: "ESC-50", 128: "Speech Commands"}.get(frames or 0, "AudioSet")
        note = (
            f"mean and std are not in the file: those of {corpus}, which AST's code has for clips "
            f"of {frames} frames"
        )
        if frames not in STATISTICS:
            note = "mean and std are not in the file: those of AudioSet"
        return settings._replace(notes=[note])

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head ``mlp_head``.

        The file does not say what it pools: AST the class tokens, SSAST the patches or, if asked,
        the class tokens. Patches as high as the spectrogram are SSAST's alone.
        """
        if "mlp_head.1.weight" not in weights.state:
            return None
        height = weights.state["v.patch_embed.proj.weight"].shape[2]
        pooling = "mean" if height == N_MELS else "cls"
        others = {"mean": "an SSAST of class tokens takes cls", "cls": "SSAST may take mean"}
        note = f"pooling is not in the file: {pooling}, see --pooling ({others[pooling]})"
        return Head(linear="mlp_head.1", norm="mlp_head.0", pooling=pooling, notes=[note])


def spectrogram_geometry(state: State) -> Geometry | None:
    """Return how the patches of AST and SSAST lie; None if several geometries are possible.

    Raises:
        ConfigError: the size in the file does not fit its positions.
    """
    patches = patch_positions(state)
    if patches is None:
        return None
    height, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
    count = len(patches)
    if "p_input_fdim" in state:
        # SSAST's pretraining, whose patches do not overlap.
        n_mels = int(state["p_input_fdim"])
        rows = n_mels // height
        columns = int(state["p_input_tdim"]) // width
        if rows * columns != count:
            raise ConfigError(
                f"pos_embed has {count} positions, but p_input_fdim = {n_mels} and p_input_tdim = "
                f"{int(state['p_input_tdim'])} make {rows} x {columns}; give the published file"
            )
        return Geometry(rows, columns, (height, width), n_mels, False)
    possible = _possible_geometries(count, (height, width))
    if len(possible) == 1:
        return possible[0]
    # Of several, one may be of a published length.
    lengths = [
        geometry
        for geometry in possible
        if any(_columns(geometry, (height, width), frames) for frames in STATISTICS)
    ]
    return lengths[0] if len(lengths) == 1 else None


def published_frames(state: State, geometry: Geometry) -> int:
    """Return the frames of the spectrograms that the positions were trained for.

    Frames after the last whole patch are dropped, so that any number up to the next patch gives the
    same tokens; a published length is preferred.
    """
    height, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
    for frames in STATISTICS:
        if _columns(geometry, (height, width), frames):
            return frames
    stride = geometry.stride or (height, width)
    return (geometry.columns - 1) * stride[1] + width


def _possible_geometries(count: int, patch: tuple[int, int]) -> list[Geometry]:
    """Return the geometries of 128 mels that have this many patches, by their stride."""
    overlapping = (10, 10)
    if patch[0] == N_MELS:
        overlapping = (N_MELS, 1)
    strides = [stride for stride in (overlapping, patch) if stride[0] <= patch[0]]
    possible: list[Geometry] = []
    for stride in strides:
        if stride[1] > patch[1] or patch[0] > N_MELS:
            continue
        rows = PatchGrid(n_mels=N_MELS, patch=patch, stride=stride, partial="drop").rows
        if count and count % rows == 0:
            possible.append(Geometry(rows, count // rows, stride, N_MELS, False))
    if patch[0] == N_MELS:
        # All have one row: frames overlap once they are fine-tuned.
        return possible[:1]
    return possible


def _columns(geometry: Geometry, patch: tuple[int, int], frames: int) -> bool:
    """Return whether spectrograms of this many frames have the columns of a geometry."""
    stride = geometry.stride or patch
    grid = PatchGrid(n_mels=geometry.n_mels or N_MELS, patch=patch, stride=stride, partial="drop")
    return grid.columns(frames) == geometry.columns
