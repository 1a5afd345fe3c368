"""Official ASiT weights at random but reproducible values: the rule that makes them, and our names for them.

The rule is described in golden/asit/README.md of the shared folder, where c23 and c24 are the releases of April 2023
and March 2024. Their spectrograms are (time, mel) and their tokens time-major, ours (mel, frame) and frequency-major.
"""

import json
import zlib
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from places import shared
from torch import Tensor

from melpatch.encoders.vit import ViT
from melpatch.objectives.asit import ASiT
from melpatch.recipes.asit import asit_2023, asit_2024
from melpatch.training.config import RunConfig, build

Release = Literal["c23", "c24"]
RECIPES = {"c23": asit_2023, "c24": asit_2024}
DTYPES = (torch.float64, torch.float32)
ROWS, COLUMNS = 8, 37
CROP = 192  # frames
NORMS = ("norm1.weight", "norm2.weight", "norm.weight")
RENAMED = (
    ("backbone.patch_embed.proj", "encoder.projection"),
    ("backbone.blocks", "encoder.transformer.blocks"),
    ("mlp.fc1", "mlp.0"),
    ("mlp.fc2", "mlp.2"),
    ("backbone.norm", "encoder.transformer.norm"),
    ("backbone", "encoder"),
    ("head_recons.convTrans.weight", "decoder.unpatch.weight"),
    ("head_recons.convTrans.bias", "decoder.bias"),
    ("head_recons", "decoder"),
    ("head_cls.mlp", "distillation.student.trunks.shared"),
    ("head_cls.cls_layer", "distillation.student.prototypes.global"),
    ("head_cls.data_layer", "distillation.student.prototypes.local"),
    ("head.mlp", "distillation.student.trunks.shared"),
    ("head.last_layer", "distillation.student.prototypes.shared"),
    ("weight_v", "direction"),
    ("weight_g", "gain"),
)


# ------------------------------------------------------------------------------------------------------- golden numbers


@cache
def golden(name: str) -> Any:
    """A file of the golden numbers, such as "keys.json" or "heads.npz"."""
    path = shared(f"golden/asit/{name}")
    return np.load(path) if path.suffix == ".npz" else json.loads(path.read_text())


def stated(name: str) -> Tensor:
    """One of the arrays that the manifest lists."""
    return torch.from_numpy(golden(golden("manifest.json")["arrays"][name]["file"])[name])


def close(name: str, found: Tensor, dtype: torch.dtype, where: Tensor | None = None) -> None:
    """Assert that what was found in a precision is the array of this name, within the manifest's tolerance for it.

    Args:
        name: of the array.
        found: its counterpart.
        dtype: precision of the model that it comes from.
        where: which elements to look at; None for all.
    """
    wanted, tolerance = stated(name).double(), golden("manifest.json")["arrays"][name]
    assert found.shape == wanted.shape
    allowed = torch.full_like(wanted, tolerance["atol_float32"])
    if dtype == torch.float64:
        allowed = tolerance["atol_float64"] + tolerance["rtol_float64"] * wanted.abs()
    wrong = ~((found.detach().double() - wanted).abs() <= allowed)
    if where is not None:
        wrong &= where
    assert not wrong.any(), f"{name}: {found[wrong].tolist()}, stated {wanted[wrong].tolist()}"


# --------------------------------------------------------------------------------------------------------- drawing rule


@cache
def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The unit-variance numbers that the rule gives to a name."""
    rng = np.random.default_rng([1, zlib.crc32(name.encode())])
    return torch.from_numpy(np.asarray(rng.standard_normal(shape)).astype(np.float32))


def weight(key: str, shape: tuple[int, ...], gain: float = 0.02, owner: str = "") -> Tensor:
    """The value of a model weight under its official key; ``owner`` is "teacher." for a teacher with its own."""
    if key.endswith("weight_g"):
        return torch.ones(shape)
    value = draw(owner + key, shape) * np.float32(gain)
    return 1 + value if key.endswith(NORMS) else value


def spectrogram(name: str, frames: int, dtype: torch.dtype) -> Tensor:
    """A golden input of two clips as we hold it, (clip, mel, frame)."""
    return draw(name, (2, 1, frames, 16 * ROWS))[:, 0].transpose(1, 2).to(dtype)


# ------------------------------------------------------------------------------------------------ theirs, as we have it


def time_major(tokens: Tensor) -> Tensor:
    """Our tokens (clip, token, ...) in the official order."""
    return tokens.unflatten(1, (ROWS, -1)).transpose(1, 2).flatten(1, 2)


def frequency_major(tokens: Tensor) -> Tensor:
    """Official tokens (clip, token, ...) in our order."""
    return tokens.unflatten(1, (-1, ROWS)).transpose(1, 2).flatten(1, 2)


def ours(key: str, value: Tensor) -> dict[str, Tensor]:
    """An official weight under our name in the objective: positions are two of ours, gains that are fixed at 1 none."""
    if key == "backbone.pos_embed":
        return {
            "encoder.cls_position": value[0, :1],
            "encoder.position_table": frequency_major(value[:, 1:])[0],
        }
    if key.startswith("head_cls.") and key.endswith("weight_g"):
        return {}
    if key == "backbone.cls_token":
        value = value[0]
    elif key == "backbone.patch_embed.proj.weight":
        value = value[:, 0].transpose(1, 2).flatten(1)
    elif key == "head_recons.convTrans.weight":
        value = value[:, 0].transpose(1, 2).flatten(1).T
    for official, our in RENAMED:
        key = key.replace(official, our)
    return {key: value}


def of_teacher(name: str) -> str | None:
    """Our name of the teacher's copy of a student's weight; None for the decoder, of which there is none."""
    if name.startswith("decoder"):
        return None
    return name.replace("distillation.student", "distillation.teacher").replace(
        "encoder.", "teacher."
    )


def official_state(release: Release, gain: float = 0.02, owner: str = "") -> dict[str, Tensor]:
    """A whole network of the small configuration, under our names of the student."""
    state = {}
    for entry in golden("keys.json")["small_config"][release]:
        state |= ours(entry["key"], weight(entry["key"], tuple(entry["shape"]), gain, owner))
    return state


# ---------------------------------------------------------------------------------------------------------- our modules


def config(release: Release) -> RunConfig:
    """The release's recipe at the size of the golden numbers."""
    recipe = RECIPES[release]("nano")
    return replace(recipe, encoder=replace(recipe.encoder, depth=2, drop_path=0.0))


def official_encoder(release: Release, gain: float, dtype: torch.dtype) -> ViT:
    """A fresh encoder with the official weights, in evaluation mode."""
    vit = ViT(config(release).encoder, n_mels=16 * ROWS)
    state = official_state(release, gain)
    vit.load_state_dict(
        {
            name.removeprefix("encoder."): state[name]
            for name in state
            if name.startswith("encoder.")
        }
    )
    return vit.to(dtype).eval()


@cache
def _built(release: Release) -> ASiT:
    objective = build(config(release))
    assert isinstance(objective, ASiT)
    return objective


def load_official(objective: ASiT, release: Release, gain: float, teacher: str = "") -> ASiT:
    """Load the official weights, the teacher's being those of an owner; centres stay as they are. Returns it."""
    state = dict(official_state(release, gain))
    told = {
        of_teacher(name): value for name, value in official_state(release, gain, teacher).items()
    }
    state |= {name: value for name, value in told.items() if name is not None}
    assert state.keys() == dict(objective.named_parameters()).keys()
    objective.load_state_dict(state, strict=False)
    return objective


def official_objective(release: Release, dtype: torch.dtype, gain: float = 0.02) -> ASiT:
    """A fresh objective of the release's recipe with the official weights, the teacher's being the student's."""
    return load_official(deepcopy(_built(release)), release, gain).to(dtype)


def temperature(release: Release, epoch: int) -> float:
    """The official teacher's of an epoch; ours rises step by step (tests/golden/test_schedules.py)."""
    stairs = golden("schedules.json")[release]["run100x50"]["teacher_temperature_per_epoch"]
    return float(stairs[epoch])


def corruption_masks() -> Tensor:
    """The official rectangles as pixels to hide, (view, mel, frame): first views of both clips, then second ones."""
    rectangles = golden("rectangles.json")["rectangles"]
    hidden = torch.zeros(4, 16 * ROWS, 16 * COLUMNS, dtype=torch.bool)
    for mask, name in zip(hidden, ("v1s0", "v1s1", "v2s0", "v2s1"), strict=True):
        for frame, frames, mel, mels in rectangles[name]:
            mask[mel : mel + mels, frame : frame + frames] = True
    return hidden
