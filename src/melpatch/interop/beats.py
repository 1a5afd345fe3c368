"""Weights of BEATs, pretrained or fine-tuned."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from melpatch.audio import front_ends
from melpatch.encoders.beats import BEATs
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Converted, Head, Published, Reading, WeightFormat, left_out
from melpatch.weight_files import Weights

__registered__ = "BEATsWeights"

_LAYER = "encoder.layers."
_TABLE = "relative_attention_bias.weight"
_RENAMED = {
    "self_attn.out_proj": "attn.proj",
    "self_attn.grep_linear": "attn.gate",
    "self_attn_layer_norm": "norm1",
    "final_layer_norm": "norm2",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
# The norm of the convolution's kernel, as torch named it before and names it since version 2.0.
_GAIN = ("encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.parametrizations.weight.original0")
_DIRECTION = ("encoder.pos_conv.0.weight_v", "encoder.pos_conv.0.parametrizations.weight.original1")
_OWN = ("encoder.", "patch_embedding.", "post_extract_proj.", "layer_norm.")
_HEAD = "predictor"
_SECONDS = 10.0
"""Length of AudioSet's clips, on which the published files are fine-tuned."""
_MAX_DISTANCE = 800
"""Published max_distance, which no tensor tells."""
_ARCHITECTURE = {
    "deep_norm": True,
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "activation_fn": "gelu",
}
"""The settings of the published models that change what is computed."""


class BEATsWeights(WeightFormat):
    """Weights of BEATs: ``patch_embedding``, ``encoder.layers.0.self_attn.grep_linear`` and so on.

    Its spectrograms are (frame, mel), ours (mel, frame), so that the kernel is transposed. The file
    holds one table of position biases, repeated for every layer.

    Source: Chen et al. 2022 (arXiv 2212.09058); names and layout are those of the published code.
    """

    family = "BEATs"
    encoder = "beats"
    files = "BEATs_iter3_plus_AS2M.pt and others, {cfg, model}"
    needs = "nothing"
    licence = "MIT (code); weights not stated"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold BEATs' patches and gates."""
        names = {"patch_embedding.weight", f"{_LAYER}0.self_attn.grep_linear.weight"}
        return names <= weights.state.keys()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = weights.facts.get("cfg", {})
        for name, value in _ARCHITECTURE.items():
            if settings.get(name, value) != value:
                raise ConfigError(
                    f"cfg.{name} = {settings[name]!r} in the file; the encoder beats is that of "
                    f"the published models, with {value!r}"
                )
        notes = []
        if "max_distance" not in settings:
            notes.append(f"no cfg in the file, so max_distance is the published {_MAX_DISTANCE}")
        max_distance = settings.get("max_distance", _MAX_DISTANCE)
        shape = _shape(weights.state) | {"partial": "drop", "max_distance": max_distance}
        return Published(BEATs.Config(**shape), front_ends.beats(), notes)

    def convert(self, weights: Weights, encoder: BEATs, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`BEATs`; see :meth:`WeightFormat.convert`."""
        state = weights.state
        _check(state, encoder)
        converted = {
            # A kernel over (frame, mel) becomes a kernel over (mel, frame).
            "patch_embedding.weight": state["patch_embedding.weight"][:, 0].mT.flatten(1),
            "position_conv.gain": _either(state, _GAIN).flatten(),
            "position_conv.direction": _either(state, _DIRECTION),
            "position_conv.bias": state["encoder.pos_conv.0.bias"],
            "position_bias.table": state[f"{_LAYER}0.self_attn.{_TABLE}"],
        }
        for part in ("weight", "bias"):
            converted[f"patch_norm.{part}"] = state[f"layer_norm.{part}"]
            converted[f"norm.{part}"] = state[f"encoder.layer_norm.{part}"]
            if f"post_extract_proj.{part}" in state:
                converted[f"projection.{part}"] = state[f"post_extract_proj.{part}"]
        for number in range(encoder.config.depth):
            converted |= _layer(state, number)
        unused = {key.split(".")[0] for key in state if not key.startswith(_OWN)}
        return Converted(converted, left_out(unused))

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head ``predictor`` of a fine-tuned file; see :meth:`WeightFormat.head`.

        The published mean of the tokens' logits is the logits of their mean.
        """
        if f"{_HEAD}.weight" not in weights.state:
            return None
        names = weights.facts.get("label_dict", {})
        labels = [str(names[number]) for number in sorted(names)]
        return Head(linear=_HEAD, pooling="mean", labels=labels, multi_label=True, seconds=_SECONDS)


def _shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings that the shapes of the tensors tell."""
    width = len(state["encoder.layer_norm.weight"])
    frames, mels = state["patch_embedding.weight"].shape[2:]
    buckets, heads = state[f"{_LAYER}0.self_attn.{_TABLE}"].shape
    _, group_width, kernel = _either(state, _DIRECTION).shape
    layers = {match[1] for key in state if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    return {
        "embed_dim": width,
        "depth": len(layers),
        "num_heads": heads,
        "mlp_ratio": len(state[f"{_LAYER}0.fc1.bias"]) / width,
        "patch": (mels, frames),
        "patch_dim": len(state["patch_embedding.weight"]),
        "conv_kernel": kernel,
        "conv_groups": width // group_width,
        "buckets": buckets,
    }


def _check(state: Mapping[str, Tensor], encoder: BEATs) -> None:
    """Raise ConfigError unless the encoder has the sizes of these weights."""
    for name, value in _shape(state).items():
        own = getattr(encoder.config, name)
        if own != value:
            text = " ".join(map(str, value)) if isinstance(value, tuple) else value
            flag = f"--encoder.{name.replace('_', '-')} {text}"
            raise ConfigError(
                f"encoder.{name} = {own!r}, but these weights have {value!r}; use {flag}"
            )


def _layer(state: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return a layer under the names of :class:`BEATs`, with q, k and v in one tensor."""
    there = f"{_LAYER}{number}."
    here = f"layers.{number}."
    layer = {f"{here}attn.scale": state[f"{there}self_attn.grep_a"].flatten()}
    for part in ("weight", "bias"):
        for published, own in _RENAMED.items():
            layer[f"{here}{own}.{part}"] = state[f"{there}{published}.{part}"]
        thirds = [state[f"{there}self_attn.{name}_proj.{part}"] for name in "qkv"]
        layer[f"{here}attn.qkv.{part}"] = torch.cat(thirds)
    return layer


def _either(state: Mapping[str, Tensor], names: tuple[str, str]) -> Tensor:
    """Return the tensor that has one of two names."""
    return state[names[0]] if names[0] in state else state[names[1]]
