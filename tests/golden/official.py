"""Official SSAST and AST weights at random but reproducible values: the rule that makes them, and our names for them.

The rule is described in golden/ssast/README.md of the shared folder. This mapping is independent of `melpatch.interop`.
"""

import json
import zlib
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from places import shared
from torch import Tensor

from melpatch.encoders.vit import ViT

Variant = Literal["patch", "frame", "ast"]
PATCH = {"patch": (16, 16), "frame": (128, 2), "ast": (16, 16)}
COLUMNS = {"patch": 64, "frame": 512, "ast": 101}
NORMS = ("norm1.weight", "norm2.weight", "v.norm.weight", "mlp_head.0.weight")
INTEGERS = {"p_input_fdim": 128, "p_input_tdim": 1024}


@cache
def golden(name: str) -> Any:
    """A JSON file of the golden numbers, such as "pretrain_patch"."""
    return json.loads(shared(f"golden/ssast/{name}.json").read_text())


def draw(key: str, shape: tuple[int, ...]) -> Tensor:
    """The unit-variance float32 numbers that the rule gives to a key; inputs are used as they are."""
    rng = np.random.default_rng([1, zlib.crc32(key.encode())])
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a model weight under its official key, without `module.`."""
    if key in INTEGERS:
        return torch.tensor(INTEGERS[key])
    value = draw(key, shape) * np.float32(0.02)
    return 1 + value if key.endswith(NORMS) else value


@cache
def official_state(variant: Variant) -> dict[str, Tensor]:
    """The official state dict, without `module.` and without the unused ImageNet heads."""
    shapes = golden("rule_check")["state_dict_keys"][variant]
    return {
        key: weight(key, tuple(shape))
        for key, shape in shapes.items()
        if not key.startswith("v.head")
    }


def encoder_state(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's part of an official state dict, under our names."""
    positions = official["v.pos_embed"][0]
    state = {
        "cls_token": torch.cat([official["v.cls_token"], official["v.dist_token"]], 1)[0],
        "cls_position": positions[:2],
        "position_table": positions[2:],
        "projection.weight": official["v.patch_embed.proj.weight"].flatten(1),
        "projection.bias": official["v.patch_embed.proj.bias"],
    }
    for key, value in official.items():
        if key.startswith(("v.blocks.", "v.norm.")):
            ours = key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2")
            state[f"transformer.{ours.removeprefix('v.')}"] = value
    return state


def config(variant: Variant) -> ViT.Config:
    """The settings of the official tiny model, on spectrograms of 1024 frames and 128 mels."""
    stride = (10, 10) if variant == "ast" else None
    settings = {
        "patch": PATCH[variant],
        "stride": stride,
        "partial": "drop",
        "columns": COLUMNS[variant],
    }
    return ViT.Config.of_size("tiny", **settings, cls_tokens=2, positions="learned")


def load_official(vit: ViT, variant: Variant) -> ViT:
    """Load the official weights into a ViT made with `config(variant)` and 128 mels; returns it."""
    vit.load_state_dict(encoder_state(official_state(variant)))
    return vit


def official_encoder(variant: Variant) -> ViT:
    """A fresh ViT with the official weights, in float64 and evaluation mode."""
    return load_official(ViT(config(variant), n_mels=128), variant).double().eval()


def spectrogram(frames: int = 1024) -> Tensor:
    """The golden input as we hold it, (clip, mel, frame), in float64."""
    return draw("input", (2, frames, 128)).transpose(1, 2).double()
