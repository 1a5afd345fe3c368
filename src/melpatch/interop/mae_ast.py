"""Weights of MAE-AST, on patches or frames: a post-norm encoder under fairseq's names."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from melpatch.audio import front_ends
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Converted, Published, Reading, WeightFormat, left_out
from melpatch.weight_files import Weights

NORM_EPS = 1e-5
_LAYER = "encoder.layers."
_RENAMED = {
    "self_attn.out_proj": "attn.proj",
    "self_attn_layer_norm": "norm1",
    "final_layer_norm": "norm2",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_OWN = ("encoder.", "post_extract_proj.", "batch_norm.")


class MAEAST(WeightFormat):
    """Weights of MAE-AST: ``post_extract_proj``, ``encoder.layers.0.self_attn`` and so on.

    The encoder is post-norm, numbers its patches in the order of time, has no class token, and
    normalises its input by running statistics, which are taken too. ``cfg`` in the file tells heads
    and patches. The decoder is left out.

    Source: Baade et al. 2022 (arXiv 2203.16691); names and layout are those of the published code.
    """

    family = "MAE-AST"
    encoder = "vit"
    files = "checkpoints {cfg, model}"
    needs = "the whole checkpoint, whose cfg tells patches and heads"
    licence = "not stated"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold MAE-AST's projection and blocks."""
        return {"post_extract_proj.weight", "encoder.layers.0.fc1.weight", "encoder_mask_emb"} <= (
            weights.state.keys()
        )

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        state = weights.state
        width = len(state["post_extract_proj.weight"])
        settings = weights.facts.get("cfg", {}).get("model", {})
        patch = (settings.get("ast_kernel_size_chan"), settings.get("ast_kernel_size_time"))
        heads = reading.num_heads or settings.get("encoder_attention_heads")
        if heads is None or None in patch:
            raise ConfigError(
                "cfg.model with ast_kernel_size_chan, ast_kernel_size_time and "
                "encoder_attention_heads is missing, so patches or heads are not known; give the "
                "whole checkpoint"
            )
        encoder = ViT.Config(
            embed_dim=width,
            depth=_depth(state),
            num_heads=heads,
            mlp_ratio=len(state[f"{_LAYER}0.fc1.bias"]) / width,
            patch=patch,
            partial="drop",
            cls_tokens=0,
            positions="interleaved",
            norm="post",
            norm_eps=NORM_EPS,
            input_norm="batch",
        )
        # The encoder's running statistics are those of log-mel values as they are.
        front_end = replace(front_ends.mae_ast(), mean=0.0, std=1.0, scale=1.0)
        return Published(encoder, front_end)

    def convert(self, weights: Weights, encoder: ViT, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`ViT`; see :meth:`WeightFormat.convert`."""
        state = weights.state
        _check(state, encoder)
        _check_positions(state, encoder)
        converted = {
            "projection.weight": _projection(state, encoder),
            "projection.bias": state["post_extract_proj.bias"],
            "transformer.norm.weight": state["encoder.layer_norm.weight"],
            "transformer.norm.bias": state["encoder.layer_norm.bias"],
        }
        for number in range(encoder.config.depth):
            converted |= _block(state, number)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            converted[f"input_norm.{name}"] = state[f"batch_norm.{name}"]
        unused = {key.split(".")[0] for key in state if not key.startswith(_OWN)}
        return Converted(converted, left_out(unused))


def _depth(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith(_LAYER)})


def _check(state: Mapping[str, Tensor], encoder: ViT) -> None:
    """Raise ConfigError unless the encoder has the kind of layers that these weights have."""
    config = encoder.config
    wanted = {
        "embed_dim": len(state["post_extract_proj.weight"]),
        "depth": _depth(state),
        "norm": "post",
        "norm_eps": NORM_EPS,
        "positions": "interleaved",
        "cls_tokens": 0,
        "input_norm": "batch",
    }
    for name, value in wanted.items():
        own = getattr(config, name)
        if own != value:
            flag = f"--encoder.{name.replace('_', '-')} {value}"
            raise ConfigError(
                f"encoder.{name} = {own!r}, but these weights have {value!r}; use {flag}"
            )
    values = state["post_extract_proj.weight"].shape[1]
    if values != encoder.grid.pixels:
        raise ConfigError(
            f"post_extract_proj.weight takes {values} values of a patch, but encoder.patch = "
            f"{encoder.grid.patch} has {encoder.grid.pixels}; use --encoder.patch 16 16 or 128 2"
        )


def _check_positions(state: Mapping[str, Tensor], encoder: ViT) -> None:
    """Raise ConfigError unless the sines in the file, if it holds them, are the encoder's."""
    table = state.get("enc_sine_pos_embed.pe")
    if table is None or len(table[0]) < encoder.grid.rows:
        return
    columns = len(table[0]) // encoder.grid.rows
    # Published tokens are numbered in the order of time, ours by rows.
    ours = encoder.positions(columns).view(encoder.grid.rows, columns, -1)
    theirs = table[0, : encoder.grid.rows * columns].float()
    if not torch.allclose(ours.transpose(0, 1).flatten(0, 1), theirs, atol=1e-2):
        raise ConfigError(
            "enc_sine_pos_embed.pe does not hold the published sines; give the published file"
        )


def _projection(state: Mapping[str, Tensor], encoder: ViT) -> Tensor:
    """Return the projection over (mel, frame) patches; published ones are (frame, mel)."""
    mels, frames = encoder.grid.patch
    kernel = state["post_extract_proj.weight"].reshape(-1, frames, mels)
    return kernel.transpose(1, 2).flatten(1)


def _block(state: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return a block under the names of :class:`ViT`, with q, k and v in one tensor."""
    there = f"{_LAYER}{number}."
    here = f"transformer.blocks.{number}."
    block = {}
    for part in ("weight", "bias"):
        for published, own in _RENAMED.items():
            block[f"{here}{own}.{part}"] = state[f"{there}{published}.{part}"]
        thirds = [state[f"{there}self_attn.{name}_proj.{part}"] for name in "qkv"]
        block[f"{here}attn.qkv.{part}"] = torch.cat(thirds)
    return block
