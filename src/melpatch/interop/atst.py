"""Weights of ATST-Clip and ATST-Frame: a pre-norm ViT on columns of 64 mel bins x 4 frames."""

from torch import Tensor

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights, without_prefix

N_MELS = 64
_PREFIXES = ("model.teacher.encoder.", "model.student.encoder.", "encoder.", "")
"""What may stand before the names of an encoder; the published readers take the teacher's."""
_PROJECTION = "patch_embed.patch_embed."


class ATST(TimmViT):
    """Weights of ATST-Clip and ATST-Frame, whose tokens are columns of all 64 mel bins.

    The encoder is the teacher's, as in the published readers; student, projectors and predictor are
    left out. The published layers for q, k and v have no bias, which is zero here. Positions are a
    learned table of which shorter clips take the first columns. ATST-Clip has a class token with
    the first position; ATST-Frame has none, and leaves the first position unused.

    Source: Li et al. 2022 (arXiv 2204.12076) and 2024 (arXiv 2306.04186); names and layout are
    those of the published code.
    """

    family = "ATST-Clip or ATST-Frame"
    files = "checkpoints {state_dict} of Lightning"
    needs = "nothing; unusual widths, --encoder.num-heads"
    licence = "CC BY 4.0"
    resizing = "crop"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold ATST's patch projection and blocks."""
        tensors = without_prefix(weights.state, _PREFIXES, f"{_PROJECTION}weight")
        return {f"{_PROJECTION}weight", "blocks.0.attn.qkv.weight", "pos_embed"} <= tensors.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, with biases of q, k and v."""
        tensors = without_prefix(weights.state, _PREFIXES, f"{_PROJECTION}weight")
        # The values of a token are numbered band by band, (mel, frame).
        kernel = tensors.pop(f"{_PROJECTION}weight")
        tensors["patch_embed.proj.weight"] = kernel.reshape(len(kernel), 1, N_MELS, -1)
        tensors["patch_embed.proj.bias"] = tensors.pop(f"{_PROJECTION}bias")
        if "cls_token" not in tensors:
            tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
        named = {key.replace("norm_frame.", "norm."): value for key, value in tensors.items()}
        return _with_biases(named)

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: in one row, without overlap."""
        height, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        patches = patch_positions(state)
        assert patches is not None
        return Geometry(1, len(patches), (height, width), N_MELS, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the published front end, whose range of values stands in no file."""
        return front_ends.atst()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        state = self.renamed(weights)
        geometry = self.one_colour_geometry(state, reading)
        assert geometry is not None
        # One frame more than the tokens hold, as in the published 10 s of 1001 frames.
        width = state["patch_embed.proj.weight"].shape[3]
        return settings._replace(frames=geometry.columns * width + 1)


def _with_biases(state: State) -> dict[str, Tensor]:
    """Return the tensors with zeros for the biases of q, k and v that are missing."""
    tensors = dict(state)
    for name, weight in state.items():
        if name.endswith(".attn.qkv.weight"):
            bias = f"{name.removesuffix('weight')}bias"
            tensors.setdefault(bias, weight.new_zeros(len(weight)))
    return tensors
