"""Weights of EAT, of fairseq or of Hugging Face: a post-norm ViT on images of (frame, mel)."""

import re
from typing import Any

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.interop.base import Axes, Head, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

N_MELS = 128
FRAMES = 1024
"""Frames of a clip of AudioSet, unless the settings beside the weights say another number."""
_KERNEL = "local_encoder.proj.weight"
_PREFIX = re.compile(r"^(model\.)?(modality_encoders\.IMAGE\.)?")
_TO_TIMM = {
    "extra_tokens": "cls_token",
    "local_encoder.proj.weight": "patch_embed.proj.weight",
    "local_encoder.proj.bias": "patch_embed.proj.bias",
    "context_encoder.norm.weight": "norm.weight",
    "context_encoder.norm.bias": "norm.bias",
    "pre_norm.weight": "norm.weight",
    "pre_norm.bias": "norm.bias",
}
_POSITIONS = "fixed_positional_encoder.positions"


class EAT(TimmViT):
    """Weights of EAT, pretrained or fine-tuned, whose kernels span (frame, mel).

    The blocks are post-norm, with a LayerNorm before the first. Tokens are numbered time-major.
    Positions are fixed sines with the mel row in the first half of the channels; the class token
    has none. The encoder is the student; the teacher (``_ema``) and the decoder are left out.

    The published mean and standard deviation are AudioSet's, which the weights do not hold.

    A classifier of fairseq has not been compared with what its code computes.

    Source: Chen et al. 2024 (arXiv 2401.03497); names and layout are those of the published code.
    """

    family = "EAT"
    files = "checkpoints {cfg, model} of fairseq; folders of Hugging Face"
    needs = "config.json or cfg tells the heads; clips shorter than 10 s: --front-end.target-frames"
    licence = "MIT"
    hub = (
        "hf:worstchan/EAT-base_epoch30_pretrain, hf:worstchan/EAT-base_epoch30_finetune_AS2M; "
        "hf:ta012/SSLAM_pretrain has the same names, and was not compared"
    )
    norm = "post"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys are those of an encoder of EAT, with one colour."""
        tensors = {_plain(key): value for key, value in weights.state.items()}
        kernel = tensors.get(_KERNEL)
        named = {_POSITIONS, "extra_tokens", "blocks.0.attn.qkv.weight"} <= tensors.keys()
        return named and kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 1

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names; the class token's position is 0."""
        tensors = {_plain(key): value for key, value in weights.state.items()}
        tensors = {_TO_TIMM.get(key, key): value for key, value in tensors.items()}
        positions = tensors.pop(_POSITIONS)
        tensors["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
        return tensors

    def num_heads(self, weights: Weights, width: int, reading: Reading) -> int:
        """Return the attention heads in the settings, or else those of a published width."""
        heads = _model(weights).get("num_heads")
        if reading.num_heads is None and isinstance(heads, int):
            return heads
        return super().num_heads(weights, width, reading)

    def norm_eps(self, weights: Weights) -> float:
        """Return the epsilon in the settings, or else the published 1e-6."""
        return float(_model(weights).get("norm_eps", super().norm_eps(weights)))

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: time-major, without overlap, on 128 mels."""
        width, height = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        rows = N_MELS // height
        patches = patch_positions(state)
        assert patches is not None
        return Geometry(rows, len(patches) // rows, (height, width), N_MELS, True)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return AST's features with AudioSet's statistics, as long as the settings say."""
        return LogMel.Config(
            mean=-4.268, std=4.569, padding="legacy", target_frames=_frames(weights)
        )

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        note = "mean and std are not in the file: AudioSet's, as published"
        return super().published(weights, reading)._replace(notes=[note])

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head of a fine-tuned file, of the class token.

        Its norm has another epsilon in the code of Hugging Face than in that of fairseq.
        """
        if "model.head.weight" not in weights.state:
            return None
        eps = self.norm_eps(weights)
        if "model.pre_norm.weight" in weights.state:
            eps = 1e-5
        return Head(linear="model.head", norm="model.fc_norm", norm_eps=eps, pooling="cls")


def _plain(key: str) -> str:
    """Return a key without the prefixes of either layout."""
    return _PREFIX.sub("", key)


def _model(weights: Weights) -> dict[str, Any]:
    """Return the settings of the model: config.json of Hugging Face, or cfg.model of fairseq."""
    settings: dict[str, Any] = weights.facts.get("config") or {}
    if not settings:
        settings = weights.facts.get("cfg", {}).get("model") or {}
    return settings


def _frames(weights: Weights) -> int:
    """Return the frames of a clip in the settings, or else those of AudioSet's."""
    model = _model(weights)
    image = model.get("modalities", {}).get("image", {})
    size = model.get("img_size", [image.get("target_length", FRAMES)])
    return int(size[0])
