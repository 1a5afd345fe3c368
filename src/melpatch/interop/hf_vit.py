"""Weights of Hugging Face transformers: ViT, DeiT, ViTMAE and AST, of versions 4 and 5."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import from_dict
from melpatch.errors import ConfigError, shortened
from melpatch.interop.ast import published_frames, spectrogram_geometry
from melpatch.interop.base import Axes, Head, Published, Reading
from melpatch.interop.timm_positions import State
from melpatch.interop.timm_vit import TimmViT, depth_of
from melpatch.nn.grid import PatchGrid
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

NORM_EPS = 1e-12
"""Epsilon of LayerNorm in these models, unless config.json says otherwise."""
_DENSE = "classifier.dense"
_MULTI_LABEL = {
    "multi_label_classification": True,
    "single_label_classification": False,
    None: None,
}
"""Whether clips have several labels, by the problem_type of config.json."""
_MODEL = re.compile(r"^(vit|deit|audio_spectrogram_transformer)\.")
_QKV = re.compile(r"\.attn\.[qkv]\.")
# Longer patterns come before those that match their end, as in "attention.output.dense".
_TO_TIMM = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(attention\.)?(query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(attention\.)?(key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(attention\.)?(value|v_proj)\.", ".attn.v."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""Patterns of parts of a key, each with timm's name for it."""


class HFViT(TimmViT):
    """Weights of transformers' ViT, DeiT, ViTMAE and AST; their q, k and v are separate layers.

    ``config.json`` and ``preprocessor_config.json`` beside the weights tell what no tensor holds:
    heads, epsilon, strides, and the front end of AST. Without them, AST's are the published ones.
    Models without biases of q, k and v (``qkv_bias: false``) get zeros.

    Source: the state dicts of transformers 5.23, on disk (with the names of version 4) and in
    memory.
    """

    family = "a ViT of Hugging Face transformers"
    files = "folders of save_pretrained; state dicts saved with torch"
    hub = (
        "hf:MIT/ast-finetuned-audioset-10-10-0.4593, hf:google/vit-base-patch16-224, "
        "hf:facebook/deit-base-distilled-patch16-224, hf:facebook/vit-mae-base"
    )
    needs = "config.json and preprocessor_config.json beside it, if it is unusual"
    licence = "of each model, as its card on the Hub says"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold the patch projection and blocks of transformers' ViTs."""
        plain = {_MODEL.sub("", key) for key in weights.state}
        # The names of version 4, then of version 5.
        blocks = {"encoder.layer.0.layernorm_before.weight", "layers.0.layernorm_before.weight"}
        return "embeddings.patch_embeddings.projection.weight" in plain and bool(blocks & plain)

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, with q, k and v in one tensor."""
        tensors = {_timm_key(key): value for key, value in weights.state.items()}
        _add_missing_biases(tensors)
        for query in [key for key in tensors if ".attn.q." in key]:
            parts = [query.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
            if set(parts) <= tensors.keys():
                fused = query.replace(".attn.q.", ".attn.qkv.")
                tensors[fused] = torch.cat([tensors.pop(part) for part in parts])
        return tensors

    def norm_eps(self, weights: Weights) -> float:
        """Return the epsilon of the LayerNorms: that of config.json, or else 1e-12."""
        return float(_config(weights).get("layer_norm_eps", NORM_EPS))

    def num_heads(self, weights: Weights, width: int, reading: Reading) -> int:
        """Return the attention heads of config.json, or else those of a published width."""
        heads = _config(weights).get("num_attention_heads")
        if reading.num_heads is None and isinstance(heads, int):
            return heads
        return super().num_heads(weights, width, reading)

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how AST's patches lie in (mel, frame) images, from the number of positions."""
        return spectrogram_geometry(state)

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie, by config.json where it is AST's."""
        config = _config(weights)
        names = ("frequency_stride", "time_stride", "num_mel_bins", "max_length")
        numbers = [config[name] for name in names if isinstance(config.get(name), int)]
        if len(numbers) < len(names):
            return super().geometry(weights, state, reading)
        stride = (numbers[0], numbers[1])
        n_mels = numbers[2]
        height, width = state["patch_embed.proj.weight"].shape[2:]
        grid = PatchGrid(n_mels=n_mels, patch=(height, width), stride=stride, partial="drop")
        return Geometry(grid.rows, grid.columns(numbers[3]), stride, n_mels, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the front end of AST by preprocessor_config.json, or else the published one."""
        state = self.renamed(weights)
        if geometry is None or geometry.n_mels is None:
            return None
        extractor = weights.facts.get("preprocessor_config", {})
        frames = extractor.get("max_length") or _config(weights).get("max_length")
        settings: dict[str, Any] = {
            "n_mels": geometry.n_mels,
            "padding": "legacy",
            "target_frames": frames or published_frames(state, geometry),
        }
        names = {"sampling_rate": "sample_rate", "mean": "mean", "std": "std"}
        settings |= {own: extractor[name] for name, own in names.items() if name in extractor}
        if extractor.get("do_normalize") is False:
            settings |= {"mean": 0.0, "std": 1.0, "scale": 1.0}
        # The values of a file may be of any type.
        return from_dict(LogMel.Config, settings, "preprocessor_config.json")

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`.

        Raises:
            ConfigError: blocks are missing, or have another activation than a GELU.
        """
        activation = _config(weights).get("hidden_act", "gelu")
        if activation != "gelu":
            raise ConfigError(
                f"hidden_act = {shortened(activation)} in config.json; allowed: 'gelu', which the "
                "blocks of the encoder have"
            )
        weights = _without_qkv(weights)
        settings = super().published(weights, reading)
        depth = depth_of(self.renamed(weights))
        wanted = _config(weights).get("num_hidden_layers", depth)
        if depth != wanted:
            raise ConfigError(
                f"{depth} blocks in the file, but num_hidden_layers = {shortened(wanted)} in "
                "config.json; give the whole published file"
            )
        if settings.front_end is None or "preprocessor_config" in weights.facts:
            return settings
        note = "no preprocessor_config.json beside the weights: mean and std are AudioSet's"
        return settings._replace(notes=[note])

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head of an ASTForAudioClassification; those for images are not read.

        Raises:
            ConfigError: there is no config.json, or its labels or its problem_type cannot be used.
        """
        if f"{_DENSE}.weight" not in weights.state:
            return None
        config = _config(weights)
        if not config:
            raise ConfigError(
                "a classifier without config.json beside it, which tells its labels and settings; "
                "put both into one folder, with preprocessor_config.json"
            )
        _require_one_size(weights)
        kind = config.get("problem_type")
        if kind not in _MULTI_LABEL:
            allowed = ", ".join(filter(None, _MULTI_LABEL))
            raise ConfigError(
                f"problem_type = {shortened(kind)} in config.json; allowed: {allowed}"
            )
        return Head(
            linear=_DENSE,
            norm="classifier.layernorm",
            norm_eps=self.norm_eps(weights),
            labels=_labels(config),
            multi_label=_MULTI_LABEL[kind],
        )


def _without_qkv(weights: Weights) -> Weights:
    """Return weights without q, k and v, of which no setting is read: joined, they take memory."""
    state = {key: value for key, value in weights.state.items() if not _QKV.search(_timm_key(key))}
    return weights._replace(state=state)


def _config(weights: Weights) -> dict[str, Any]:
    config: dict[str, Any] = weights.facts.get("config", {})
    return config


def _require_one_size(weights: Weights) -> None:
    """Raise ConfigError if model and feature extractor have spectrograms of different sizes."""
    config = _config(weights)
    extractor = weights.facts.get("preprocessor_config", {})
    for name in ("max_length", "num_mel_bins"):
        wanted = config.get(name)
        if wanted is not None and extractor.get(name, wanted) != wanted:
            raise ConfigError(
                f"{name} = {shortened(extractor[name])} in preprocessor_config.json, but "
                f"{shortened(wanted)} in config.json; download both from one place"
            )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of config.json in the order of their numbers; empty if it has none.

    Raises:
        ConfigError: they are not numbered from 0.
    """
    names = config.get("id2label")
    if names is None:
        return ()
    if isinstance(names, dict) and names.keys() == {str(number) for number in range(len(names))}:
        return tuple(str(names[str(number)]) for number in range(len(names)))
    raise ConfigError(
        f"id2label = {shortened(names)} in config.json; wanted: a name for each of the numbers "
        "from 0, one per class; download it again"
    )


def _add_missing_biases(tensors: dict[str, Tensor]) -> None:
    """Add zeros for the biases of q, k and v where no block has any.

    Raises:
        ConfigError: some blocks have them and others do not.
    """
    layers = [key for key in tensors if _QKV.search(key) and key.endswith(".weight")]
    biases = {key.replace(".weight", ".bias"): key for key in layers}
    missing = sorted(biases.keys() - tensors.keys())
    if not missing:
        return
    if len(missing) < len(biases):
        raise ConfigError(
            f"{missing[0]} is missing, though other biases of q, k and v are there; give the whole "
            "published file"
        )
    for name, weight in biases.items():
        tensors[name] = tensors[weight].new_zeros(len(tensors[weight]))


def _timm_key(key: str) -> str:
    """Return timm's name for a key of transformers; parts that timm does not have are kept."""
    key = _MODEL.sub("", key)
    for pattern, name in _TO_TIMM:
        key = re.sub(pattern, name, key)
    return key
